//! Many processes at once, and what they cost.

use super::*;

#[test]
fn a_hundred_processes_cost_one_thread() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let before = threads().len();
        let mut processes: Vec<_> = (0..if is_fork() { 20 } else { 100 })
            .map(|n| {
                let begun = folder.path(&format!("begun {n}"));
                Process::spawn(delayed!(begin_and_wait(&begun, &go))).unwrap()
            })
            .collect();
        assert_eq!(threads().len(), before + 1);
        std::fs::write(go, "").unwrap();
        let pids: BTreeSet<u32> = processes.iter_mut().map(|process| process.join().unwrap()).collect();
        assert!(pids.into_iter().eq(processes.iter().map(Process::id).collect::<BTreeSet<_>>()));
        let ids: Vec<u32> = processes.iter().map(Process::id).collect();
        assert!(ids.into_iter().all(|id| !is_there(id)));
    });
}

#[test]
fn processes_that_run_on_cost_their_parent_no_cpu() {
    alone(|| {
        let folder = Folder::new();
        let waiting: Vec<_> = (0..10).map(|_| waiting(&folder).0).collect();
        let ticks = || {
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
            let rest = stat.rsplit(')').next().unwrap_or_default();
            rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>()
        };
        take_time(Duration::from_millis(50));
        let before = ticks();
        take_time(Duration::from_millis(400));
        assert!(ticks() - before <= 5, "{} hundredths of a second", ticks() - before);
        drop(waiting);
    });
}

#[test]
fn many_threads_start_and_join_processes_at_once() {
    if is_fork() {
        // Only a process with one thread can be copied.
        return;
    }
    alone(|| {
        std::thread::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move || {
                    for i in 0..10 {
                        let mut process = Process::spawn(delayed!(echo(n * 100 + i))).unwrap();
                        assert_eq!(process.join().unwrap(), n * 100 + i);
                    }
                });
            }
        });
    });
}
