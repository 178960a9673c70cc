//! Workers that are copies of this process.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use log::{LevelFilter, Log, Metadata, Record};
use nix::unistd::Pid;
use procession::{Pool, StartMethod, delayed, worker};

use super::{LOADED, echo, look, server};
use crate::{
    alone::{alone, alone_in_one_thread},
    event::{take_time, until_exists},
    leak::children,
    scratch::Folder,
};

/// Leaves its group and does not end.
#[worker]
fn leave_the_group(begun: &Path) {
    let template = nix::unistd::getpgid(Some(nix::unistd::getppid())).expect("the template's group");
    nix::unistd::setpgid(Pid::from_raw(0), template).expect("a group of the same session");
    std::fs::write(begun, "").expect("a file of the test's");
    take_time(Duration::from_secs(1000));
}

#[test]
fn a_forked_worker_that_has_left_its_group_is_killed_all_the_same() {
    alone(|| {
        let there = Folder::new();
        let begun = there.path("begun");
        let pool = server().jobs(1).build().unwrap();
        let handle = pool.submit(delayed!(leave_the_group(&begun)));
        until_exists(&begun);
        handle.cancel();
        assert!(handle.join().unwrap_err().is_cancelled());
        assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
    });
}

#[test]
fn a_copy_of_this_process_has_what_it_had_in_memory() {
    alone_in_one_thread(|| {
        LOADED.get_or_init(|| vec![11]);
        let pool = Pool::builder().jobs(2).start_method(StartMethod::Fork).build().unwrap();
        let seen = pool.broadcast(delayed!(look())).unwrap();
        assert!(seen.iter().all(|(loaded, ..)| *loaded == Some(11)), "{seen:?}");
        let pool = server().jobs(1).build().unwrap();
        assert_eq!(pool.submit(delayed!(look())).join().unwrap().0, None, "elsewhere nothing is inherited");
    });
}

#[test]
fn a_process_with_a_second_thread_is_not_copied_and_the_error_says_what_to_do() {
    alone_in_one_thread(|| {
        let build = || Pool::builder().jobs(1).start_method(StartMethod::Fork).build();
        std::thread::scope(|scope| {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            let error = build().unwrap_err().to_string();
            assert!(error.contains("this one has 2") && error.contains("ForkServer"), "{error}");
            drop(go);
        });
        assert_eq!(children().len(), 0);
        assert_eq!(build().unwrap().submit(delayed!(echo(1))).join().unwrap(), 1, "now there is one again");
    });
}

#[test]
fn a_forked_worker_runs_tasks_of_a_pool_that_it_has_inherited_itself_and_leaves_the_pools_workers_alone() {
    static INHERITED: std::sync::Mutex<Option<Pool>> = std::sync::Mutex::new(None);
    #[worker]
    fn use_and_drop() -> (u32, Vec<u32>) {
        let pool = INHERITED.lock().expect("not poisoned").take().expect("it was inherited");
        let pid = pool.submit(delayed!(look())).join().expect("it runs here").1;
        let others = pool.map((0..3).map(|_| delayed!(look()))).expect("they run here");
        drop(pool);
        let pids = others.into_iter().map(|(_, pid, _)| pid).chain([pid]).collect();
        (std::process::id(), pids)
    }
    alone_in_one_thread(|| {
        let first = Pool::builder().jobs(2).start_method(StartMethod::Fork).build().unwrap();
        let before = first.broadcast(delayed!(look())).unwrap();
        *INHERITED.lock().unwrap() = Some(first);
        let second = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap();
        let (pid, pids) = second.submit(delayed!(use_and_drop())).join().unwrap();
        assert_eq!(pids, [pid; 4]);
        let first = INHERITED.lock().unwrap().take().unwrap();
        assert_eq!(first.broadcast(delayed!(look())).unwrap(), before, "its workers live on");
    });
}

#[test]
fn a_copy_of_this_process_keeps_the_logger_that_was_set_before_and_forwards_without_one() {
    struct Count(AtomicU32);
    impl Log for Count {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, _: &Record<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn flush(&self) {}
    }
    static COUNT: Count = Count(AtomicU32::new(0));
    /// Returns what the logger of this process has counted.
    #[worker]
    fn say() -> u32 {
        log::info!("said");
        COUNT.0.load(Ordering::Relaxed)
    }
    alone_in_one_thread(|| {
        let before = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap();
        log::set_logger(&COUNT).unwrap();
        log::set_max_level(LevelFilter::Info);
        assert_eq!(before.submit(delayed!(say())).join().unwrap(), 0);
        assert_eq!(COUNT.0.load(Ordering::Relaxed), 1, "the record came here");
        let after = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap();
        assert_eq!(
            after.submit(delayed!(say())).join().unwrap(),
            1 + 1,
            "the worker's copy of the logger had it"
        );
        assert_eq!(COUNT.0.load(Ordering::Relaxed), 1, "and this one had not");
    });
}
