//! Waiting uses no CPU: neither a pool without work, whatever it did before, nor a host whose workers are busy. A task that no
//! thread waits for runs as soon as any other.

use std::{path::Path, time::Duration};

use procession::{Pool, delayed, parallel, worker};

use crate::{
    alone::{alone, alone_with_warm_pool},
    event::{take_time, until_exists, within},
    leak::workers,
    scratch::{Folder, append, numbers},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn wait_for(file: &Path) -> u64 {
    until_exists(file);
    1
}

#[worker]
fn take(millis: u64) {
    take_time(Duration::from_millis(millis));
}

#[worker]
fn note(file: &Path, n: u64) {
    append(file, n);
}

/// The CPU time that a process has used, in hundredths of a second.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

const TIME: Duration = Duration::from_millis(400);
/// A thread that spins uses more than this part of that time, even on a loaded machine.
const MOST_TICKS: u64 = 5;

#[track_caller]
pub(crate) fn assert_at_rest(what: &str, with_workers: bool) {
    let mut pids = vec![std::process::id()];
    if with_workers {
        pids.extend(workers());
    }
    // What was begun may end.
    take_time(Duration::from_millis(50));
    let before: Vec<u64> = pids.iter().copied().map(ticks).collect();
    take_time(TIME);
    for (pid, before) in pids.into_iter().zip(before) {
        let used = ticks(pid) - before;
        assert!(used <= MOST_TICKS, "{what}: process {pid} has used {used}0 ms of {TIME:?}");
    }
}

#[test]
fn a_pool_uses_no_cpu_after_a_burst_of_any_kind() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for _ in 0..2 {
            assert_eq!(pool.map((0..20_000).map(|n| delayed!(echo(n)))).unwrap().len(), 20_000);
            assert_at_rest("map", true);
            assert_eq!(pool.imap((0..).map(|n| delayed!(echo(n)))).take(5_000).count(), 5_000);
            assert_at_rest("imap, dropped", true);
            let handles: Vec<_> = (0..2_000).map(|n| pool.submit(delayed!(echo(n)))).collect();
            handles.into_iter().for_each(|handle| assert!(handle.join().is_ok()));
            assert_at_rest("submit", true);
            drop(pool.submit(delayed!(echo(1))));
            assert_at_rest("submit, without a waiting thread", true);
            assert!(pool.map([delayed!(echo(1))]).is_ok());
            assert_at_rest("map of one", true);
        }
    });
}

#[test]
fn the_warm_pool_uses_no_cpu_after_a_burst() {
    alone_with_warm_pool(|| {
        assert_eq!(parallel!(jobs = 2; echo(n) for n in 0..20_000).unwrap().len(), 20_000);
        assert_at_rest("parallel!", true);
    });
}

#[test]
fn a_host_whose_workers_are_busy_sleeps() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let pool = Pool::new(2).unwrap();
        // The first are quick: more of the same is expected soon.
        for (n, what) in [(2u64, "as many as workers"), (3, "one more"), (40, "many more")] {
            assert!(pool.map((0..500).map(|n| delayed!(echo(n)))).is_ok());
            std::thread::scope(|scope| {
                let call = scope.spawn(|| {
                    let tasks =
                        (0..200).map(|n| delayed!(echo(n))).chain((0..n).map(|_| delayed!(wait_for(&go))));
                    assert_eq!(pool.map(tasks).unwrap().len() as u64, 200 + n);
                });
                take_time(Duration::from_millis(300));
                assert_at_rest(what, false);
                std::fs::write(&go, "").unwrap();
                call.join().unwrap();
            });
            std::fs::remove_file(&go).unwrap();
        }
        let long = pool.submit(delayed!(take(60_000)));
        assert_at_rest("a handle that is not joined", false);
        drop(long);
    });
}

/// A call whose end and the next submit lie within a millisecond must not leave a check of its feed due forever.
#[test]
fn a_call_and_a_submit_behind_it_leave_the_pool_at_rest() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap();
        }
        pool.submit(delayed!(echo(1))).join().unwrap();
        assert_at_rest("a call and a submit", false);
    });
}

/// A leader that sleeps must notice new tasks immediately, and not only at its check each second.
#[test]
fn occasional_tasks_run_while_another_thread_waits_for_a_long_one() {
    alone(|| {
        let folder = Folder::new();
        let (file, go) = (folder.path("numbers"), folder.path("go"));
        let pool = Pool::new(2).unwrap();
        pool.broadcast(delayed!(echo(1))).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.submit(delayed!(wait_for(&go))).join().unwrap());
            take_time(Duration::from_millis(100));
            let all = within(Duration::from_secs(15), || {
                let n = numbers(&file).len() as u64;
                drop(pool.submit(delayed!(note(&file, n))));
                within(Duration::from_secs(5), || numbers(&file).len() as u64 > n) && n + 1 == 60
            });
            std::fs::write(&go, "").unwrap();
            waiting.join().unwrap();
            assert!(all, "{} of 60 short tasks have run in 15 s", numbers(&file).len());
        });
    });
}
