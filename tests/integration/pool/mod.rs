//! Pools: their settings, what they take and give, and their end.

mod broadcast;
mod handle;
mod initialize;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use procession::{Handle, Jobs, Pool, Task, delayed, is_worker, worker, worker_index};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::{EXIT_CODE, End},
    event::{block_on, is_there, take_time, until, until_exists},
    leak::{children, workers},
    scratch::{Folder, append, numbers},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn place() -> (Option<usize>, u32) {
    (worker_index(), std::process::id())
}

#[worker]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[worker]
fn folder() -> PathBuf {
    std::env::current_dir().expect("it is there")
}

#[worker]
fn strike(end: End) {
    end.strike()
}

#[worker]
fn wait_for(file: &Path) -> u64 {
    until_exists(file);
    1
}

#[worker]
fn begin_and_wait(begun: &Path, go: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
}

#[worker]
fn own_jobs() -> usize {
    Pool::builder().build().expect("a pool in a worker").jobs()
}

#[worker]
fn wrongly(_n: u64) -> bool {
    is_worker()
}

#[test]
fn a_pool_has_the_requested_number_of_workers() {
    alone(|| {
        for jobs in [1, 2, 5] {
            let pool = Pool::new(jobs).unwrap();
            assert_eq!(pool.jobs(), jobs);
            let places = pool.broadcast(delayed!(place())).unwrap();
            assert!(places.iter().map(|(index, _)| *index).eq((0..jobs).map(Some)), "{places:?}");
            let pids: BTreeSet<u32> = places.iter().map(|(_, pid)| *pid).collect();
            assert!(pids.iter().copied().eq(workers()), "each worker once, and no other process");
        }
    });
}

#[test]
fn impossible_settings_are_refused_with_a_way_out() {
    alone(|| {
        let refused = |builder: procession::Builder| builder.build().unwrap_err().to_string();
        assert!(refused(Pool::builder().jobs(0)).contains("from 1"));
        assert!(refused(Pool::builder().jobs(Jobs::Exactly(1 << 20))).contains("to 4096"));
        assert!(refused(Pool::builder().chunk_size(0)).contains("from 1"));
        assert!(refused(Pool::builder().env("A=B", "c")).contains("A=B"));
        assert!(refused(Pool::builder().env("", "c")).contains("not empty"));
        assert_eq!(workers().len(), 0);
    });
}

#[test]
fn the_environment_sets_the_number_of_workers() {
    alone(|| {
        for (words, jobs) in [("3", 3), (" 2 ", 2)] {
            let pool = Pool::builder().jobs(1).env("PROCESSION_JOBS", words).build().unwrap();
            assert_eq!(pool.submit(delayed!(own_jobs())).join().unwrap(), jobs);
        }
        let pool = Pool::builder().jobs(1).env("PROCESSION_JOBS", "many").build().unwrap();
        let error = pool.submit(delayed!(own_jobs())).join().unwrap_err();
        assert!(error.to_string().contains("PROCESSION_JOBS=many"), "{error}");
    });
}

#[test]
fn workers_have_the_environment_that_they_were_given() {
    alone(|| {
        let pool = Pool::builder()
            .jobs(2)
            .env("COLOUR", "red")
            .env("PATH", "/nowhere")
            .env("EMPTY", "")
            .build()
            .unwrap();
        for _ in 0..2 {
            let get = |name: &str| pool.broadcast(delayed!(variable(name))).unwrap();
            assert_eq!(get("COLOUR"), vec![Some("red".to_owned()); 2]);
            assert_eq!(get("PATH"), vec![Some("/nowhere".to_owned()); 2]);
            assert_eq!(get("EMPTY"), vec![Some(String::new()); 2]);
            assert_eq!(get("CARGO_MANIFEST_DIR"), vec![std::env::var("CARGO_MANIFEST_DIR").ok(); 2]);
            assert_eq!(get(procession_tests::MARKER), [None, None], "the marker is not to be inherited");
            let _ = pool.submit(delayed!(strike(End::Kill))).join();
        }
    });
}

#[test]
fn workers_work_in_the_folder_that_they_were_given() {
    alone(|| {
        let there = Folder::new();
        let pool = Pool::builder().jobs(1).current_dir(there.root()).build().unwrap();
        assert_eq!(pool.submit(delayed!(folder())).join().unwrap(), there.root().canonicalize().unwrap());
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.submit(delayed!(folder())).join().unwrap(), std::env::current_dir().unwrap());
    });
}

#[test]
fn a_folder_that_goes_missing_is_an_error_that_names_it() {
    alone(|| {
        let start = Instant::now();
        let there = Folder::new();
        let missing = there.path("missing");
        std::fs::create_dir(&missing).unwrap();
        let pool = Pool::builder().jobs(2).current_dir(&missing).build().unwrap();
        std::fs::remove_dir(&missing).unwrap();
        for _ in 0..2 {
            let error = pool.submit(delayed!(folder())).join().unwrap_err();
            assert!(error.is_lost() && error.to_string().contains("/missing"), "{error}");
            let error = pool.map((0..10).map(|n| delayed!(echo(n)))).unwrap_err();
            assert!(error.to_string().contains("/missing"), "{error}");
            let error = pool.broadcast(delayed!(folder())).unwrap_err();
            assert!(error.to_string().contains("/missing"), "{error}");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "the attempts are bounded");
    });
}

#[test]
fn threads_that_make_their_first_parallel_call_at_once_share_one_pool() {
    alone_with_warm_pool(|| {
        let barrier = std::sync::Barrier::new(8);
        let call = || {
            barrier.wait();
            procession::parallel!(jobs = 2; place() for _ in 0..8).unwrap()
        };
        let places = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let pids: BTreeSet<u32> = places.iter().map(|(_, pid)| *pid).collect();
        assert!(places.len() == 64 && pids.len() <= 2, "{pids:?}");
    });
}

#[test]
fn join_finishes_submitted_tasks() {
    alone(|| {
        let there = Folder::new();
        let file = there.path("ran");
        #[worker]
        fn note(file: &Path, n: u64) {
            take_time(Duration::from_millis(1));
            append(file, n);
        }
        let pool = Pool::new(2).unwrap();
        let handles: Vec<_> = (0..100).map(|n| pool.submit(delayed!(note(&file, n)))).collect();
        pool.join().unwrap();
        assert_eq!(numbers(&file), (0..100).collect::<Vec<_>>());
        assert_eq!(children().len(), 0);
        handles.into_iter().for_each(|handle| {
            assert!(handle.is_finished());
            handle.join().unwrap();
        });
        Pool::new(1).unwrap().join().unwrap();
    });
}

#[test]
fn a_pool_that_was_never_used_starts_nothing_and_ends() {
    alone(|| {
        let pool = Pool::new(4).unwrap();
        // A template is known as such a moment after its start.
        until("there is no worker", || workers().is_empty());
        drop(pool);
        Pool::new(4).unwrap().terminate();
    });
}

#[test]
fn a_pool_in_process_runs_tasks_where_it_is() {
    alone(|| {
        let pool = Pool::in_process();
        let own = std::process::id();
        assert_eq!(pool.jobs(), 1);
        assert_eq!(pool.submit(delayed!(place())).join().unwrap(), (None, own));
        assert_eq!(pool.map((0..5).map(|n| delayed!(echo(n)))).unwrap(), [0, 1, 2, 3, 4]);
        assert!(pool.imap((0..).map(|n| delayed!(echo(n)))).take(100).map(Result::unwrap).eq(0..100));
        assert_eq!(pool.imap_unordered((0..9).map(|n| delayed!(echo(n)))).count(), 9);
        assert_eq!(pool.broadcast(delayed!(wrongly(1))).unwrap(), [false]);
        let error = pool.map((0..3).map(|_| delayed!(strike(End::Panic)))).unwrap_err();
        assert!(error.as_task_error().is_some_and(|error| error.is_panic() && error.task_index() == Some(0)));
        assert_eq!(block_on(pool.submit(delayed!(echo(4)))).unwrap(), 4);
        assert_eq!(children().len(), 0);
        pool.join().unwrap();
    });
}

#[test]
fn the_environment_can_put_every_call_in_process() {
    alone(|| {
        #[worker]
        fn pids() -> (u32, u32) {
            let pool = Pool::new(2).expect("a pool in a worker");
            (std::process::id(), pool.submit(delayed!(place())).join().expect("it runs").1)
        }
        let pool = Pool::builder().jobs(1).env("PROCESSION_IN_PROCESS", "1").build().unwrap();
        let (outer, inner) = pool.submit(delayed!(pids())).join().unwrap();
        assert_eq!(outer, inner);
    });
}

#[test]
fn every_waiting_thread_learns_of_the_pools_end() {
    alone(|| {
        let there = Folder::new();
        let (begun, never) = (there.path("begun"), there.path("never"));
        for _ in 0..5 {
            let pool = Pool::new(1).unwrap();
            let running = pool.submit(delayed!(begin_and_wait(&begun, &never)));
            let queued = pool.submit(delayed!(echo(1)));
            let awaited = pool.submit(delayed!(echo(2)));
            until_exists(&begun);
            std::thread::scope(|scope| {
                let waiters = [
                    scope.spawn(|| running.join().is_err_and(|error| error.is_cancelled())),
                    scope.spawn(|| queued.join().is_err_and(|error| error.is_cancelled())),
                    scope.spawn(|| block_on(awaited).is_err_and(|error| error.is_cancelled())),
                ];
                drop(pool);
                waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap()));
            });
            std::fs::remove_file(&begun).unwrap();
        }
    });
}

#[test]
fn a_lazy_iterator_may_outlive_its_pool() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut results = pool.imap((0..).map(|n| delayed!(echo(n))));
        assert_eq!(results.next().unwrap().unwrap(), 0);
        drop(pool);
        let error = results.find_map(Result::err).unwrap();
        assert!(error.is_cancelled(), "{error}");
        assert!(results.next().unwrap().is_err());
    });
}

#[test]
fn a_pool_outlives_the_thread_that_made_it() {
    alone(|| {
        let (pool, pid) = std::thread::spawn(|| {
            let pool = Pool::new(1).unwrap();
            let (_, pid) = pool.submit(delayed!(place())).join().unwrap();
            (pool, pid)
        })
        .join()
        .unwrap();
        for _ in 0..3 {
            assert_eq!(pool.submit(delayed!(place())).join().unwrap().1, pid, "its worker lives on, too");
        }
        std::thread::spawn(move || drop(pool)).join().unwrap();
        assert!(!is_there(pid));
    });
}

#[test]
fn pools_tasks_and_handles_may_go_to_other_threads() {
    fn goes<T: Send + 'static>() {}
    fn is_shared<T: Send + Sync>() {}
    goes::<Task<u64>>();
    goes::<Handle<u64>>();
    is_shared::<Pool>();
}

#[test]
fn several_pools_live_side_by_side() {
    alone(|| {
        let pools: Vec<Pool> = (1..=4).map(|jobs| Pool::new(jobs).unwrap()).collect();
        let handles: Vec<_> = (0..100).map(|n| pools[n % 4].submit(delayed!(echo(n as u64)))).collect();
        assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(0..100));
        let _ = pools[1].submit(delayed!(strike(End::Exit))).join().map_err(|error| {
            assert_eq!(error.exit().and_then(|exit| exit.code()), Some(EXIT_CODE));
        });
        for pool in pools.into_iter().rev() {
            assert_eq!(pool.submit(delayed!(echo(9))).join().unwrap(), 9);
        }
    });
}

#[test]
fn a_pools_name_shows_in_its_errors() {
    alone(|| {
        let pool = Pool::builder().jobs(1).name("scoring").build().unwrap();
        let error = pool.submit(delayed!(strike(End::Exit))).join().unwrap_err();
        assert!(error.to_string().contains("in worker 0 of `scoring` (pid "), "{error}");
    });
}

#[test]
fn the_warm_pool_grows_and_shrinks_to_jobs() {
    alone_with_warm_pool(|| {
        #[worker]
        fn place_after(time: Duration) -> usize {
            take_time(time);
            worker_index().expect("a worker has a place")
        }
        let places = |jobs: usize| -> BTreeSet<usize> {
            let time = Duration::from_millis(20);
            procession::parallel!(jobs = jobs; place_after(time) for _ in 0..jobs * 4)
                .unwrap()
                .into_iter()
                .collect()
        };
        // Workers start when there is work and no worker is idle. The others continue meanwhile, so a worker that is slow to start on
        // a loaded machine finds nothing left to do. This is intended: no task waits for a start while a worker could run it.
        until("three have something to do", || places(3) == BTreeSet::from([0, 1, 2]));
        assert_eq!(workers().len(), 3);
        assert_eq!(places(1), BTreeSet::from([0]));
        until("the two that are too many have left", || workers().len() == 1);
        until("two have something to do", || places(2) == BTreeSet::from([0, 1]));
        assert_eq!(workers().len(), 2);
    });
}

#[test]
fn a_pool_of_two_hundred_workers_starts_one_for_one_task_and_no_more_than_there_is_work_for() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(200).unwrap();
        assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
        assert_eq!(crate::leak::workers().len(), 1);
        for n in 0..50 {
            assert_eq!(pool.submit(delayed!(echo(n))).join().unwrap(), n);
        }
        assert_eq!(crate::leak::workers().len(), 1, "one after the other, they need but one");
        assert_eq!(pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap(), [0, 1, 2]);
        assert!(crate::leak::workers().len() <= 4);
        let go = folder.path("go");
        let handles: Vec<_> = (0..7).map(|_| pool.submit(delayed!(wait_for(&go)))).collect();
        until("each has a worker", || crate::leak::workers().len() >= 7);
        std::fs::write(&go, "").unwrap();
        handles.into_iter().for_each(|handle| assert!(handle.join().is_ok()));
        assert!(crate::leak::workers().len() <= 7, "seven tasks at a time need seven workers");
    });
}

#[test]
fn two_hundred_workers_on_few_cores_make_progress() {
    alone(|| {
        let pool = Pool::new(200).unwrap();
        let pids = pool.broadcast(delayed!(place())).unwrap();
        assert_eq!(pids.len(), 200);
        for _ in 0..2 {
            let results = pool.map((0..5_000).map(|n| delayed!(echo(n)))).unwrap();
            assert!(results.into_iter().eq(0..5_000));
        }
    });
}
