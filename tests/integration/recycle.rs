//! Workers that leave in good order, and are replaced, or not: nothing is lost by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use procession::{Pool, RemoteError, delayed, worker};

use crate::{
    alone::alone,
    end::End,
    event::{is_there, take_time, until, until_exists},
    scratch::{Folder, append, numbers},
};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(60);

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn who_and(n: u64) -> (u64, u32) {
    (n, std::process::id())
}

#[worker]
fn who_after(micros: u64) -> u32 {
    take_time(Duration::from_micros(micros));
    std::process::id()
}

/// Returns how many tasks each process has run.
fn count(pids: impl IntoIterator<Item = u32>) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    pids.into_iter().for_each(|pid| *counts.entry(pid).or_insert(0) += 1);
    counts
}

mod max_tasks {
    use super::*;

    #[test]
    fn no_worker_runs_more_tasks_than_it_may_and_none_is_lost() {
        alone(|| {
            for (jobs, most) in [(1, 1), (1, 7), (2, 3), (2, 50)] {
                let pool = Pool::builder().jobs(jobs).max_tasks_per_worker(most).build().unwrap();
                let results = pool.map((0..200).map(|n| delayed!(who_and(n)))).unwrap();
                assert_eq!(results.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
                let counts = count(results.into_iter().map(|(_, pid)| pid));
                assert!(counts.values().all(|&n| n as u64 <= most), "{jobs} workers: {counts:?}");
                if jobs == 1 {
                    assert_eq!(counts.len() as u64, 200u64.div_ceil(most), "{counts:?}");
                }
            }
        });
    }

    #[test]
    fn a_batch_is_no_larger_than_what_the_worker_may_still_run() {
        alone(|| {
            let pool = Pool::builder().jobs(1).max_tasks_per_worker(10).chunk_size(64).build().unwrap();
            let pids = pool.map((0..100).map(|_| delayed!(pid()))).unwrap();
            assert_eq!(count(pids).into_values().collect::<Vec<_>>(), [10; 10]);
        });
    }

    #[test]
    fn single_tasks_count_too() {
        alone(|| {
            let pool = Pool::builder().jobs(1).max_tasks_per_worker(2).build().unwrap();
            let pids: Vec<u32> = (0..6).map(|_| pool.submit(delayed!(pid())).join().unwrap()).collect();
            assert_eq!(count(pids).into_values().collect::<Vec<_>>(), [2; 3]);
            let handles: Vec<_> = (0..20).map(|_| pool.submit(delayed!(pid()))).collect();
            let counts = count(handles.into_iter().map(|handle| handle.join().unwrap()));
            assert_eq!(counts.into_values().collect::<Vec<_>>(), [2; 10]);
        });
    }

    #[test]
    fn members_of_broadcasts_count_too() {
        alone(|| {
            let pool = Pool::builder().jobs(2).max_tasks_per_worker(1).build().unwrap();
            let mut seen = BTreeSet::new();
            for _ in 0..5 {
                let pids = pool.broadcast(delayed!(pid())).unwrap();
                assert!(pids.into_iter().all(|pid| seen.insert(pid)));
            }
            assert_eq!(seen.len(), 10);
        });
    }

    #[test]
    fn a_worker_that_has_run_its_tasks_leaves_and_the_next_task_brings_another() {
        alone(|| {
            let pool = Pool::builder().jobs(1).max_tasks_per_worker(1).build().unwrap();
            let last = pool.submit(delayed!(pid())).join().unwrap();
            until("the worker has left", || !is_there(last));
            assert_ne!(pool.submit(delayed!(pid())).join().unwrap(), last);
        });
    }

    #[test]
    fn none_is_refused() {
        for (builder, name) in [
            (Pool::builder().max_tasks_per_worker(0), "max_tasks_per_worker(0)"),
            (Pool::builder().max_worker_rss(0), "max_worker_rss(0)"),
        ] {
            let error = builder.build().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

mod finalizer {
    use super::*;

    static SUM: AtomicU64 = AtomicU64::new(0);

    #[worker]
    fn add(n: u64) {
        SUM.fetch_add(n, Ordering::Relaxed);
    }

    #[worker]
    fn sum() -> u64 {
        SUM.load(Ordering::Relaxed)
    }

    #[worker]
    fn note_pid(file: &Path) -> u64 {
        append(file, std::process::id());
        u64::from(std::process::id())
    }

    #[worker]
    fn fail(words: &str) {
        panic!("{words}")
    }

    #[worker]
    fn strike(end: End) {
        end.strike()
    }

    #[test]
    fn its_results_are_collected_from_those_that_left_before_too() {
        alone(|| {
            let builder = Pool::builder().jobs(2).max_tasks_per_worker(30).finalizer(delayed!(sum()));
            let pool = builder.build().unwrap();
            pool.map((0..1000).map(|n| delayed!(add(n)))).unwrap();
            let sums: Vec<u64> = pool.join_with_exit_results().unwrap();
            assert_eq!(sums.iter().sum::<u64>(), 499_500);
            assert!(sums.len() >= 1000 / 30, "{sums:?}");
        });
    }

    #[test]
    fn it_runs_once_in_each_worker_that_leaves_in_good_order() {
        alone(|| {
            let folder = Folder::new();
            let file = folder.path("left");
            let pool = Pool::builder().jobs(2).finalizer(delayed!(note_pid(&file))).build().unwrap();
            let mut pids: Vec<u64> =
                pool.broadcast(delayed!(pid())).unwrap().into_iter().map(u64::from).collect();
            pids.sort_unstable();
            assert_eq!(numbers(&file), [0; 0]);
            pool.join().unwrap();
            assert_eq!(numbers(&file), pids);
        });
    }

    #[test]
    fn a_pool_that_is_dropped_or_terminated_runs_none() {
        alone(|| {
            let folder = Folder::new();
            let file = folder.path("left");
            for terminate in [false, true] {
                let pool = Pool::builder().jobs(2).finalizer(delayed!(note_pid(&file))).build().unwrap();
                pool.broadcast(delayed!(pid())).unwrap();
                if terminate { pool.terminate() } else { drop(pool) }
            }
            assert!(!file.exists());
        });
    }

    #[test]
    fn one_that_fails_is_the_error_of_the_join() {
        alone(|| {
            let pool = Pool::builder().jobs(1).finalizer(delayed!(fail("not today"))).build().unwrap();
            pool.submit(delayed!(pid())).join().unwrap();
            let error = pool.join().unwrap_err();
            assert!(error.as_task_error().unwrap().is_panic(), "{error}");
            assert!(error.to_string().contains("not today") && error.to_string().contains("fail"), "{error}");
            for end in [End::Abort, End::Exit, End::Kill] {
                let pool = Pool::builder().jobs(1).finalizer(delayed!(strike(end))).build().unwrap();
                pool.submit(delayed!(pid())).join().unwrap();
                let error = pool.join().unwrap_err();
                assert!(error.to_string().contains(end.words()), "{error}");
            }
        });
    }

    #[test]
    fn one_that_hangs_is_ended_by_the_pools_limit() {
        alone(|| {
            #[worker]
            fn hang() {
                take_time(LONG);
            }
            let limit = Duration::from_millis(100);
            let pool =
                Pool::builder().jobs(1).task_timeout(limit).finalizer(delayed!(hang())).build().unwrap();
            pool.submit(delayed!(pid())).join().unwrap();
            let error = pool.join().unwrap_err();
            assert!(error.as_task_error().unwrap().is_timeout(), "{error}");
        });
    }

    #[test]
    fn a_result_of_another_type_than_is_asked_for_is_an_error_that_names_both() {
        alone(|| {
            let pool = Pool::builder().jobs(1).finalizer(delayed!(sum())).build().unwrap();
            let error = pool.join_with_exit_results::<String>().unwrap_err().to_string();
            assert!(error.contains("u64") && error.contains("String"), "{error}");
            let error = Pool::new(1).unwrap().join_with_exit_results::<u64>().unwrap_err().to_string();
            assert!(error.contains("no finalizer"), "{error}");
        });
    }

    #[test]
    fn without_processes_it_runs_where_the_tasks_ran() {
        alone(|| {
            #[worker]
            fn where_it_runs() -> Vec<u8> {
                std::process::id().to_string().into_bytes()
            }
            #[expect(unsafe_code, reason = "a variable for this process, which has but this thread of ours")]
            // SAFETY: no other thread reads the environment: the test runs alone.
            unsafe {
                std::env::set_var("PROCESSION_IN_PROCESS", "1")
            };
            let pool = Pool::builder().finalizer(delayed!(where_it_runs())).build().unwrap();
            pool.submit(delayed!(pid())).join().unwrap();
            let here = std::process::id().to_string().into_bytes();
            assert_eq!(pool.join_with_exit_results::<Vec<u8>>().unwrap(), [here]);
        });
    }
}

mod size {
    use super::*;

    #[worker]
    fn grow(megabytes: usize) -> u32 {
        std::mem::forget(vec![1u8; megabytes << 20]);
        std::process::id()
    }

    #[test]
    fn a_worker_that_has_grown_is_replaced_between_tasks() {
        alone(|| {
            let pool = Pool::builder().jobs(1).max_worker_rss(128 << 20).build().unwrap();
            let first = pool.submit(delayed!(grow(1))).join().unwrap();
            assert_eq!(pool.submit(delayed!(grow(200))).join().unwrap(), first);
            let second = pool.submit(delayed!(grow(1))).join().unwrap();
            assert_ne!(second, first);
            assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), second);
        });
    }

    #[test]
    fn tasks_queued_at_a_worker_that_has_grown_run_elsewhere() {
        alone(|| {
            let pool = Pool::builder().jobs(1).max_worker_rss(100 << 20).chunk_size(40).build().unwrap();
            let pids = pool.map((0..120).map(|_| delayed!(grow(10)))).unwrap();
            let counts = count(pids);
            // A few may have begun before it was seen.
            assert!(counts.len() >= 6 && counts.values().all(|&n| n <= 20), "{counts:?}");
        });
    }
}

mod resize {
    use super::*;

    #[worker]
    fn begin_and_await(begun: &Path, go: &Path) -> u32 {
        append(begun, std::process::id());
        until_exists(go);
        std::process::id()
    }

    #[test]
    fn a_pool_at_rest_shrinks_and_grows() {
        alone(|| {
            let pool = Pool::new(3).unwrap();
            let three = pool.broadcast(delayed!(pid())).unwrap();
            pool.resize(1).unwrap();
            assert_eq!(pool.jobs(), 1);
            until("two have left", || three.iter().filter(|pid| is_there(**pid)).count() == 1);
            assert_eq!(pool.broadcast(delayed!(pid())).unwrap(), three[..1]);
            pool.resize(4).unwrap();
            let four = pool.broadcast(delayed!(pid())).unwrap();
            assert!(four.len() == 4 && four[0] == three[0]);
            for wrong in [0, 1_000_000] {
                assert!(pool.resize(wrong).is_err());
            }
            assert_eq!(pool.jobs(), 4);
        });
    }

    #[test]
    fn a_busy_pool_that_shrinks_loses_nothing_and_runs_on_with_fewer() {
        alone(|| {
            let folder = Folder::new();
            let (begun, go) = (folder.path("begun"), folder.path("go"));
            let pool = Pool::builder().jobs(2).chunk_size(20).build().unwrap();
            let handles: Vec<_> =
                (0..2).map(|_| pool.submit(delayed!(begin_and_await(&begun, &go)))).collect();
            until("both run", || numbers(&begun).len() == 2);
            let queued: Vec<_> = (0..40).map(|_| pool.submit(delayed!(pid()))).collect();
            pool.resize(1).unwrap();
            std::fs::write(&go, "").unwrap();
            let both: BTreeSet<u32> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
            assert_eq!(both.len(), 2, "what had begun went on");
            let later: BTreeSet<u32> = queued.into_iter().map(|handle| handle.join().unwrap()).collect();
            assert!(later.len() == 1 && later.is_subset(&both), "{later:?} of {both:?}");
            until("one has left", || both.iter().filter(|pid| is_there(**pid)).count() == 1);
        });
    }

    #[test]
    fn a_busy_pool_that_grows_uses_its_new_workers() {
        alone(|| {
            let folder = Folder::new();
            let (begun, go) = (folder.path("begun"), folder.path("go"));
            let pool = Pool::new(1).unwrap();
            let handles: Vec<_> =
                (0..3).map(|_| pool.submit(delayed!(begin_and_await(&begun, &go)))).collect();
            until("one runs", || numbers(&begun).len() == 1);
            pool.resize(3).unwrap();
            until("all run", || numbers(&begun).len() == 3);
            std::fs::write(&go, "").unwrap();
            handles.into_iter().for_each(|handle| assert!(handle.join().is_ok()));
        });
    }

    #[test]
    fn a_pool_whose_size_changes_all_the_time_loses_and_doubles_nothing() {
        alone(|| {
            let folder = Folder::new();
            let file = folder.path("ran");
            #[worker]
            fn note(file: &Path, n: u64) -> u64 {
                append(file, n);
                n
            }
            let pool = Pool::new(1).unwrap();
            std::thread::scope(|scope| {
                let resizing = scope.spawn(|| {
                    for round in 0..60 {
                        pool.resize([3, 1, 2][round % 3]).unwrap();
                        pool.submit(delayed!(who_after(500))).join().unwrap();
                    }
                });
                let mut next = 0;
                while !resizing.is_finished() {
                    let tasks = (next..next + 100).map(|n| delayed!(note(&file, n)));
                    assert_eq!(pool.map(tasks).unwrap(), (next..next + 100).collect::<Vec<_>>());
                    next += 100;
                }
                assert_eq!(numbers(&file), (0..next).collect::<Vec<_>>());
            });
        });
    }

    #[test]
    fn a_broadcast_that_a_shrinking_pool_had_taken_is_answered() {
        alone(|| {
            let folder = Folder::new();
            let (begun, go) = (folder.path("begun"), folder.path("go"));
            let pool = Pool::new(3).unwrap();
            std::thread::scope(|scope| {
                let busy = pool.submit(delayed!(begin_and_await(&begun, &go)));
                until("it runs", || numbers(&begun).len() == 1);
                let broadcast = scope.spawn(|| pool.broadcast(delayed!(pid())));
                pool.resize(1).unwrap();
                std::fs::write(&go, "").unwrap();
                busy.join().unwrap();
                let answers = broadcast.join().unwrap().unwrap().len();
                assert!(answers == 3 || answers == 1, "{answers}: before or after");
            });
            assert_eq!(pool.broadcast(delayed!(pid())).unwrap().len(), 1);
        });
    }
}

mod initializer {
    use super::*;

    static BEGUN: AtomicU64 = AtomicU64::new(0);

    #[worker]
    fn begin(file: &Path) {
        append(file, std::process::id());
        BEGUN.fetch_add(1, Ordering::Relaxed);
    }

    #[worker]
    fn begun() -> (u32, u64) {
        (std::process::id(), BEGUN.load(Ordering::Relaxed))
    }

    #[worker]
    fn refuse(file: &Path) -> Result<(), RemoteError> {
        append(file, std::process::id());
        Err(RemoteError::msg("there is no model"))
    }

    #[test]
    fn it_runs_once_in_each_worker_and_in_each_that_takes_a_place() {
        alone(|| {
            let folder = Folder::new();
            let file = folder.path("begun");
            let builder = Pool::builder().jobs(2).max_tasks_per_worker(5).initializer(delayed!(begin(&file)));
            let pool = builder.build().unwrap();
            let told = pool.map((0..100).map(|_| delayed!(begun()))).unwrap();
            assert!(told.iter().all(|(_, times)| *times == 1), "{told:?}");
            let counts = count(told.into_iter().map(|(pid, _)| pid));
            assert!(counts.values().all(|&n| n <= 5), "it does not count as a task: {counts:?}");
            let pids: BTreeSet<u64> = counts.into_keys().map(u64::from).collect();
            // Another may begin at any time, to take the next place.
            let lines = numbers(&file);
            let begun: BTreeSet<u64> = lines.iter().copied().collect();
            assert_eq!(lines.len(), begun.len(), "once in each");
            assert!(pids.is_subset(&begun));
        });
    }

    #[test]
    fn an_err_of_it_is_the_tasks_error_after_five_attempts() {
        alone(|| {
            let folder = Folder::new();
            let file = folder.path("begun");
            let builder = Pool::builder().jobs(1).initializer(delayed!(refuse(&file)));
            let pool = builder.max_restarts(4, Duration::from_secs(30)).build().unwrap();
            let error = pool.submit(delayed!(pid())).join().unwrap_err();
            let words = error.to_string();
            assert!(words.contains("there is no model") && words.contains("refuse"), "{words}");
            assert_eq!(numbers(&file).len(), 5);
            let again = pool.submit(delayed!(pid())).join().unwrap_err().to_string();
            assert!(again.contains("there is no model"), "{again}");
            assert_eq!(numbers(&file).len(), 5, "the pool has given up");
        });
    }

    #[test]
    fn joining_a_pool_whose_workers_never_start_ends() {
        alone(|| {
            let folder = Folder::new();
            let file = folder.path("begun");
            let pool = Pool::builder().jobs(2).initializer(delayed!(refuse(&file))).build().unwrap();
            let handles: Vec<_> = (0..10).map(|_| pool.submit(delayed!(pid()))).collect();
            pool.join().unwrap();
            handles.into_iter().for_each(|handle| assert!(handle.join().is_err()));
        });
    }

    #[test]
    fn joining_a_pool_whose_workers_die_in_every_task_ends() {
        alone(|| {
            #[worker]
            fn strike(end: End) {
                end.strike()
            }
            let pool = Pool::builder().jobs(2).retries(1).build().unwrap();
            let handles: Vec<_> = (0..20).map(|_| pool.submit(delayed!(strike(End::Kill)))).collect();
            pool.join().unwrap();
            for handle in handles {
                let error = handle.join().unwrap_err();
                assert!(error.is_crash() && error.attempts() == 2, "{error}");
            }
        });
    }
}
