//! Initializers, and pools that are given up because they fail.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use procession::{Handle, Pool, delayed, worker};

use super::{echo, place, strike};
use crate::{
    alone::alone,
    end::End,
    event::until,
    leak::workers,
    scratch::{Folder, append, is_first, numbers},
};

#[worker]
pub(super) fn note_pid(file: &Path) {
    append(file, std::process::id());
}

#[worker]
fn note_and_strike(file: &Path, end: End) {
    append(file, std::process::id());
    end.strike()
}

#[test]
fn an_initializer_runs_once_in_each_worker_and_in_each_that_replaces_one() {
    alone(|| {
        let there = Folder::new();
        let file = there.path("initialized");
        let pool = Pool::builder().jobs(2).initializer(delayed!(note_pid(&file))).build().unwrap();
        let mut pids: BTreeSet<u64> = BTreeSet::new();
        for _ in 0..3 {
            for (_, pid) in pool.broadcast(delayed!(place())).unwrap() {
                pids.insert(u64::from(pid));
            }
            assert_eq!(pool.map((0..100).map(|n| delayed!(echo(n)))).unwrap().len(), 100);
            let error = pool.submit(delayed!(strike(End::Abort))).join().unwrap_err();
            pids.insert(u64::from(error.worker_pid().unwrap()));
        }
        drop(pool);
        assert!(pids.iter().copied().eq(numbers(&file)), "{pids:?}: {:?}", numbers(&file));
        assert!(pids.len() >= 4);
    });
}

/// More attempts than this to start a worker are not bounded.
const MOST_ATTEMPTS: usize = 12;

fn check_failing_initializer(end: End) {
    let there = Folder::new();
    let file = there.path("attempts");
    let start = Instant::now();
    let builder = Pool::builder().jobs(2).initializer(delayed!(note_and_strike(&file, end)));
    let pool = builder.max_restarts(4, Duration::from_secs(30)).build().unwrap();
    let handles: Vec<Handle<u64>> = (0..10).map(|n| pool.submit(delayed!(echo(n)))).collect();
    for handle in handles {
        let error = handle.join().unwrap_err();
        let words = error.to_string();
        assert!(words.contains(end.words()), "{error}");
        assert!(
            words.contains("no worker could be started: the initializer `")
                && words.contains("note_and_strike` ")
        );
        assert!(words.contains("; gave up after ") && words.contains(" failed starts in "), "{words}");
        assert_eq!(error.attempts(), 0, "no task was begun: {error}");
        assert_eq!(error.is_panic(), end == End::Panic, "{error}");
    }
    // With RUST_BACKTRACE each panic takes a tenth of a second, and more on a loaded machine.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    // A second worker may have been on its way when the pool gave up.
    until("all attempts have ended", || workers().is_empty());
    let attempts = numbers(&file).len();
    assert!((2..=MOST_ATTEMPTS).contains(&attempts), "{attempts} attempts");
    let error = pool.submit(delayed!(echo(1))).join().unwrap_err();
    assert!(error.to_string().contains(end.words()), "{error}");
    assert!(pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap_err().to_string().contains(end.words()));
    assert!(pool.broadcast(delayed!(echo(1))).unwrap_err().to_string().contains(end.words()));
    assert_eq!(numbers(&file).len(), attempts, "it is not tried again");
}

#[test]
fn an_initializer_that_panics_stops_the_pool_with_its_own_message() {
    alone(|| check_failing_initializer(End::Panic));
}

#[test]
fn an_initializer_that_ends_the_process_stops_the_pool_with_the_cause() {
    alone(|| check_failing_initializer(End::Exit));
}

#[test]
fn an_initializer_that_is_killed_stops_the_pool_with_the_cause() {
    alone(|| check_failing_initializer(End::Kill));
}

#[test]
fn workers_that_are_killed_as_they_start_a_few_times_in_a_row_end_no_pool() {
    alone(|| {
        #[worker]
        fn strike_eight_times(file: &Path) {
            append(file, 1);
            if numbers(file).len() <= 8 {
                End::Kill.strike()
            }
        }
        let there = Folder::new();
        let file = there.path("attempts");
        let pool = Pool::builder().jobs(1).initializer(delayed!(strike_eight_times(&file))).build().unwrap();
        assert_eq!(pool.submit(delayed!(echo(3))).join().unwrap(), 3);
        assert_eq!(numbers(&file).len(), 9);
    });
}

#[test]
fn a_pool_that_was_given_up_tries_again_once_its_failures_are_long_enough_ago() {
    alone(|| {
        #[worker]
        fn strike_three_times(file: &Path) {
            append(file, 1);
            if numbers(file).len() <= 3 {
                End::Exit.strike()
            }
        }
        let there = Folder::new();
        let file = there.path("attempts");
        let within = Duration::from_secs(1);
        let builder = Pool::builder().jobs(1).initializer(delayed!(strike_three_times(&file)));
        let pool = builder.max_restarts(2, within).build().unwrap();
        let error = pool.submit(delayed!(echo(3))).join().unwrap_err();
        assert!(error.to_string().contains("gave up after 3 failed starts"), "{error}");
        until("it is tried again", || pool.submit(delayed!(echo(4))).join().is_ok());
        assert_eq!(numbers(&file).len(), 4);
    });
}

#[test]
fn a_pool_is_not_given_up_while_a_worker_initializes() {
    alone(|| {
        #[worker]
        fn wait_for_failures_or_fail(file: &Path) {
            append(file, 1);
            if !is_first(&file.with_extension("first")) {
                End::Exit.strike()
            }
            until("others have failed", || numbers(file).len() > 5);
        }
        let there = Folder::new();
        let file = there.path("attempts");
        let builder = Pool::builder().jobs(2).initializer(delayed!(wait_for_failures_or_fail(&file)));
        let pool = builder.max_restarts(2, Duration::from_secs(600)).build().unwrap();
        let echoes = [1, 2].map(|n| pool.submit(delayed!(echo(n))));
        assert_eq!(echoes.map(|echo| echo.join().unwrap()), [1, 2]);
    });
}

#[test]
fn a_pool_that_was_given_up_serves_as_soon_as_a_worker_does() {
    alone(|| {
        #[worker]
        fn wait_or_fail(file: &Path, go: &Path) {
            if !is_first(file) {
                End::Exit.strike()
            }
            until("it is to go on", || go.exists());
        }
        let there = Folder::new();
        let (file, go) = (there.path("attempts"), there.path("go"));
        let builder = Pool::builder().jobs(2).initializer(delayed!(wait_or_fail(&file, &go)));
        let builder = builder.start_timeout(Duration::from_secs(3));
        let pool = builder.max_restarts(0, Duration::from_secs(600)).build().unwrap();
        for echo in [1, 2].map(|n| pool.submit(delayed!(echo(n)))) {
            let error = echo.join().unwrap_err().to_string();
            assert!(error.contains("gave up after"), "{error}");
        }
        append(&go, 1);
        until("a worker serves", || pool.submit(delayed!(echo(3))).join().is_ok());
    });
}

#[test]
fn an_initializer_that_crashes_now_and_then_stops_nothing() {
    alone(|| {
        #[worker]
        fn fail_the_first_time(file: &Path) {
            append(file, 1);
            if numbers(file).len() < 2 {
                End::Segfault.strike()
            }
        }
        let there = Folder::new();
        let file = there.path("attempts");
        let pool = Pool::builder().jobs(1).initializer(delayed!(fail_the_first_time(&file))).build().unwrap();
        assert_eq!(pool.submit(delayed!(echo(3))).join().unwrap(), 3);
        assert_eq!(numbers(&file).len(), 2);
    });
}

#[test]
fn an_initializer_runs_once_in_a_pool_that_the_environment_put_in_process() {
    alone(|| {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        #[worker]
        fn count() {
            RUNS.fetch_add(1, Ordering::Relaxed);
        }
        #[worker]
        fn runs() -> u32 {
            RUNS.load(Ordering::Relaxed)
        }
        #[worker]
        fn runs_seen_within() -> Vec<u32> {
            let pool =
                Pool::builder().jobs(2).initializer(delayed!(count())).build().expect("a pool in a worker");
            pool.map((0..3).map(|_| delayed!(runs()))).expect("they run")
        }
        let pool = Pool::builder().jobs(1).env("PROCESSION_IN_PROCESS", "1").build().unwrap();
        assert_eq!(pool.submit(delayed!(runs_seen_within())).join().unwrap(), [1, 1, 1]);
    });
}
