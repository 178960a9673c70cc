//! Pools: their settings, what they take and give, and their end.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use procession::{Handle, Jobs, Pool, Task, delayed, is_worker, worker, worker_index};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::{EXIT_CODE, End},
    event::{block_on, is_there, take_time, until, until_exists},
    leak::{children, workers},
    scratch::{Folder, append, is_first, numbers},
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
fn note_pid(file: &Path) {
    append(file, std::process::id());
}

#[worker]
fn note_and_strike(file: &Path, end: End) {
    append(file, std::process::id());
    end.strike()
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
fn a_pool_has_as_many_workers_as_it_was_asked_for() {
    alone(|| {
        for jobs in [1, 2, 5] {
            let pool = Pool::new(jobs).unwrap();
            assert_eq!(pool.jobs(), jobs);
            let places = pool.broadcast(delayed!(place())).unwrap();
            assert!(places.iter().map(|(index, _)| *index).eq((0..jobs).map(Some)), "{places:?}");
            let pids: BTreeSet<u32> = places.iter().map(|(_, pid)| *pid).collect();
            assert!(pids.iter().copied().eq(workers()), "each worker once, and nobody else");
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
fn the_environment_says_how_many_workers_there_are() {
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
    assert_eq!(numbers(&file).len(), attempts, "nobody tries again");
}

#[test]
fn an_initializer_that_panics_stops_the_pool_with_its_own_words() {
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
fn a_broadcast_that_needs_a_worker_that_cannot_start_fails_while_another_serves() {
    alone(|| {
        #[worker]
        fn strike_but_once(file: &Path) {
            if !is_first(file) {
                End::Exit.strike()
            }
        }
        let there = Folder::new();
        let file = there.path("attempts");
        let builder = Pool::builder().jobs(2).initializer(delayed!(strike_but_once(&file)));
        let pool = builder.start_timeout(Duration::from_secs(3)).build().unwrap();
        assert_eq!(pool.submit(delayed!(echo(3))).join().unwrap(), 3);
        let error = pool.broadcast(delayed!(echo(4))).unwrap_err().to_string();
        assert!(error.contains("no worker could be started: the initializer `"), "{error}");
        assert_eq!(pool.submit(delayed!(echo(5))).join().unwrap(), 5);
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
fn broadcast_reaches_workers_that_are_busy_or_dead() {
    alone(|| {
        let there = Folder::new();
        let (begun, go) = (there.path("begun"), there.path("go"));
        let pool = Pool::new(3).unwrap();
        let _ = pool.broadcast(delayed!(place())).unwrap();
        let busy = pool.submit(delayed!(begin_and_wait(&begun, &go)));
        assert!(pool.submit(delayed!(strike(End::Kill))).join().unwrap_err().is_crash());
        until_exists(&begun);
        std::thread::scope(|scope| {
            let broadcast = scope.spawn(|| pool.broadcast(delayed!(place())));
            assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
            assert!(!broadcast.is_finished());
            std::fs::write(&go, "").unwrap();
            let places = broadcast.join().unwrap().unwrap();
            assert!(places.iter().map(|(index, _)| *index).eq((0..3).map(Some)));
        });
        busy.join().unwrap();
    });
}

#[test]
fn broadcast_fails_with_the_task_that_fails() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let error = pool.broadcast(delayed!(strike(End::Panic))).unwrap_err();
        assert!(error.as_task_error().unwrap().is_panic(), "{error}");
        let error = pool.broadcast(delayed!(strike(End::Segfault))).unwrap_err();
        assert!(error.as_task_error().unwrap().is_crash(), "{error}");
        assert_eq!(pool.broadcast(delayed!(echo(2))).unwrap(), [2, 2]);
    });
}

#[test]
fn join_finishes_what_was_handed_in() {
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

#[test]
fn threads_submit_side_by_side() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let pool = &pool;
                scope.spawn(move || {
                    let numbers = thread * 1000..thread * 1000 + 200;
                    let handles: Vec<_> = numbers.clone().map(|n| pool.submit(delayed!(echo(n)))).collect();
                    assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(numbers));
                });
            }
        });
    });
}

#[test]
fn handles_may_be_joined_in_any_order_and_by_other_threads() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let handles: Vec<_> = (0..100).map(|n| pool.submit(delayed!(echo(n)))).collect();
        let back: Vec<u64> = handles.into_iter().rev().map(|handle| handle.join().unwrap()).collect();
        assert!(back.into_iter().eq((0..100).rev()));
        let handles: Vec<_> = (0..50).map(|n| pool.submit(delayed!(echo(n)))).collect();
        std::thread::scope(|scope| {
            for (n, handle) in (0..).zip(handles) {
                scope.spawn(move || assert_eq!(handle.join().unwrap(), n));
            }
        });
    });
}

#[test]
fn handles_are_futures_that_nobody_needs_to_drive() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for n in 0..200 {
            assert_eq!(block_on(pool.submit(delayed!(echo(n)))).unwrap(), n);
        }
        let handles: Vec<_> = (0..200).map(|n| pool.submit(delayed!(echo(n)))).collect();
        let all = block_on(async move {
            let mut all = Vec::new();
            for handle in handles {
                all.push(handle.await.unwrap());
            }
            all
        });
        assert!(all.into_iter().eq(0..200));
        let error = block_on(pool.submit(delayed!(strike(End::Segfault)))).unwrap_err();
        assert!(error.is_crash());
    });
}

#[test]
fn futures_and_waiting_threads_share_a_pool() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for n in 0..100 {
                        let handle = pool.submit(delayed!(echo(n)));
                        let result = if thread % 2 == 0 { block_on(handle) } else { handle.join() };
                        assert_eq!(result.unwrap(), n);
                    }
                });
            }
        });
    });
}

#[test]
fn join_timeout_says_not_yet_and_can_be_asked_again() {
    alone(|| {
        let there = Folder::new();
        let go = there.path("go");
        let pool = Pool::new(1).unwrap();
        let mut handle = pool.submit(delayed!(wait_for(&go)));
        for millis in [0, 1, 30] {
            let (start, timeout) = (Instant::now(), Duration::from_millis(millis));
            assert!(handle.join_timeout(timeout).is_none());
            assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
        }
        assert!(!handle.is_finished());
        std::fs::write(&go, "").unwrap();
        assert_eq!(handle.join_timeout(Duration::MAX).unwrap().unwrap(), 1);
    });
}

#[test]
fn a_handle_is_finished_without_anybody_waiting() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(echo(5)));
        until("it is finished", || handle.is_finished());
        assert_eq!(handle.join().unwrap(), 5);
        let handle = pool.submit(delayed!(strike(End::Kill)));
        until("its end is noticed", || handle.is_finished());
        assert!(handle.join().unwrap_err().is_crash());
    });
}

#[test]
fn dropping_a_handle_cancels_nothing() {
    alone(|| {
        let there = Folder::new();
        let file = there.path("ran");
        let pool = Pool::new(1).unwrap();
        for _ in 0..10 {
            drop(pool.submit(delayed!(note_pid(&file))));
        }
        until("all of them have run", || numbers(&file).len() == 10);
    });
}

#[test]
fn handles_of_a_pool_that_has_ended_say_so() {
    alone(|| {
        let there = Folder::new();
        let (begun, never) = (there.path("begun"), there.path("never"));
        let pool = Pool::new(1).unwrap();
        let done = pool.submit(delayed!(echo(1)));
        until("one has ended", || done.is_finished());
        let running = pool.submit(delayed!(begin_and_wait(&begun, &never)));
        let queued: Vec<_> = (0..5).map(|n| pool.submit(delayed!(echo(n)))).collect();
        let future = pool.submit(delayed!(echo(6)));
        until_exists(&begun);
        drop(pool);
        assert_eq!(done.join().unwrap(), 1, "a result that was there stays");
        assert!(running.join().unwrap_err().is_cancelled());
        for handle in queued {
            assert!(handle.is_finished());
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled() && error.to_string().contains("pool has ended"), "{error}");
        }
        future.cancel();
        assert!(block_on(future).unwrap_err().is_cancelled());
    });
}

#[test]
fn whoever_waits_hears_of_the_pools_end() {
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
        // Workers start when there is work and nobody idle for it, and those that are there go on meanwhile: one that is slow to start, on
        // a loaded machine, finds nothing left to do. That is so by design: nobody waits for a start while a worker could do the task.
        until("three have something to do", || places(3) == BTreeSet::from([0, 1, 2]));
        assert_eq!(workers().len(), 3);
        assert_eq!(places(1), BTreeSet::from([0]));
        until("the two that are too many have left", || workers().len() == 1);
        until("two have something to do", || places(2) == BTreeSet::from([0, 1]));
        assert_eq!(workers().len(), 2);
    });
}

/// Refuses to cross.
struct Stubborn;

impl serde::Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

impl<'de> serde::Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[test]
fn a_broadcast_whose_argument_does_not_encode_says_so_and_starts_nothing() {
    alone(|| {
        #[worker]
        fn take(value: Stubborn) -> usize {
            size_of_val(&value)
        }
        let pool = Pool::new(2).unwrap();
        let error = pool.broadcast(delayed!(take(Stubborn))).unwrap_err().into_task_error().unwrap();
        assert!(error.is_codec() && error.to_string().contains("argument `value`"), "{error}");
        assert_eq!(error.attempts(), 0);
        // A template is known as such a moment after its start.
        until("there is no worker", || workers().is_empty());
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
