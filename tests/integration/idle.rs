//! Workers that have nothing to do leave, and the next call brings them back.

use std::{collections::BTreeSet, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procession::{Pool, delayed, worker};

use crate::{
    alone::alone,
    event::{block_on, is_there, take_time, until},
    rest::{assert_at_rest, ticks},
    scratch::{Folder, append, numbers},
};

const BRIEF: Duration = Duration::from_millis(10);

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn note(file: &Path, n: u64) -> u64 {
    append(file, n);
    n
}

fn pool(jobs: usize, timeout: Duration) -> Pool {
    Pool::builder().jobs(jobs).idle_timeout(timeout).build().unwrap()
}

#[test]
fn idle_workers_leave_and_the_next_call_brings_them_back() {
    alone(|| {
        let pool = pool(2, BRIEF);
        let mut seen = BTreeSet::new();
        for _ in 0..5 {
            let pids = pool.broadcast(delayed!(pid())).unwrap();
            assert_eq!(pids.len(), 2);
            assert!(pids.iter().all(|pid| seen.insert(*pid)), "those of before have left");
            until("they have left", || !pids.iter().any(|pid| is_there(*pid)));
        }
    });
}

#[test]
fn idle_workers_leave_even_if_no_thread_waits() {
    alone(|| {
        let pool = pool(1, BRIEF);
        let handle = pool.submit(delayed!(pid()));
        until("the task has ended", || handle.is_finished());
        let worker = handle.join().unwrap();
        until("it has left", || !is_there(worker));
        let worker = block_on(pool.submit(delayed!(pid()))).unwrap();
        until("it has left again", || !is_there(worker));
    });
}

#[test]
fn a_worker_that_is_used_stays() {
    alone(|| {
        let pool = pool(1, Duration::from_secs(20));
        let first = pool.submit(delayed!(pid())).join().unwrap();
        for _ in 0..50 {
            assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), first);
            take_time(Duration::from_millis(2));
        }
    });
}

#[test]
fn a_worker_with_a_long_task_is_not_idle() {
    alone(|| {
        #[worker]
        fn take(time: Duration) -> u32 {
            take_time(time);
            std::process::id()
        }
        let pool = pool(1, BRIEF);
        let handles = [0, 1].map(|_| pool.submit(delayed!(take(BRIEF * 10))));
        let pids = handles.map(|handle| handle.join().unwrap());
        assert_eq!(pids[0], pids[1], "the second waited for the first, and the worker did not");
    });
}

#[test]
fn no_task_is_lost_if_workers_leave_just_as_it_arrives() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("ran");
        let pool = pool(2, BRIEF);
        let mut random = 1u64;
        for n in 0..400 {
            assert_eq!(pool.submit(delayed!(note(&file, n))).join().unwrap(), n);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            take_time(Duration::from_micros(8_500 + (random >> 33) % 3_000));
        }
        assert_eq!(numbers(&file), (0..400).collect::<Vec<_>>());
    });
}

#[test]
fn a_pool_whose_workers_have_left_uses_no_cpu() {
    alone(|| {
        let pool = pool(2, BRIEF);
        for _ in 0..2 {
            assert_eq!(pool.map((0..5_000).map(|_| delayed!(pid()))).unwrap().len(), 5_000);
            let used = pool.broadcast(delayed!(pid())).unwrap();
            until("they have left", || !used.iter().any(|pid| is_there(*pid)));
            assert_at_rest("all have left", true);
        }
    });
}

#[test]
fn a_pool_that_may_be_idle_for_long_uses_no_cpu_meanwhile() {
    alone(|| {
        let pool = pool(2, Duration::from_secs(600));
        assert_eq!(pool.map((0..5_000).map(|_| delayed!(pid()))).unwrap().len(), 5_000);
        assert_at_rest("idle", true);
    });
}

#[test]
fn a_lazy_call_goes_on_after_its_workers_have_left() {
    alone(|| {
        let pool = pool(2, BRIEF);
        let results = pool.imap((0..200).map(|n| {
            if n % 50 == 49 {
                take_time(BRIEF * 5);
            }
            delayed!(pid())
        }));
        let mut count = 0;
        for result in results {
            assert!(result.is_ok());
            count += 1;
            if count % 60 == 0 {
                take_time(BRIEF * 5);
            }
        }
        assert_eq!(count, 200);
    });
}

#[test]
fn a_timeout_may_be_the_longest_duration() {
    alone(|| {
        let pool =
            Pool::builder().jobs(1).idle_timeout(Duration::MAX).start_timeout(Duration::MAX).build().unwrap();
        assert!(pool.submit(delayed!(pid())).join().is_ok());
    });
}

#[test]
fn a_pool_whose_worker_is_slow_to_leave_ends_without_spinning() {
    alone(|| {
        let pool = pool(1, Duration::from_millis(300));
        let worker = pool.submit(delayed!(pid())).join().unwrap();
        // It is asked to leave and does not, until it is killed.
        kill(Pid::from_raw(worker.cast_signed()), Signal::SIGSTOP).unwrap();
        let before = ticks(std::process::id());
        drop(pool);
        let used = ticks(std::process::id()) - before;
        assert!(used <= 50, "the host has used {used}0 ms while it waited");
    });
}
