//! Pitfalls that tutorials on Python's multiprocessing warn of and that our users need not care about. `docs/from-python.md` lists them.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use procession::{Pool, RemoteError, StartMethod, delayed, parallel, worker};

use crate::{
    alone::{alone, alone_in_one_thread, alone_with_warm_pool},
    event::until_exists,
    scratch::Folder,
};

/// Something global that any thread may hold: an allocator's lock, a logger's, a library's.
static GLOBAL: Mutex<u32> = Mutex::new(0);

#[worker]
fn lock_the_global() -> u32 {
    *GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn scale(n: u64, #[default(10)] by: u64, #[default(0)] plus: u64) -> u64 {
    n * by + plus
}

#[worker]
fn wait_for(file: &Path) {
    until_exists(file);
}

#[worker]
fn touch(file: &Path) {
    std::fs::write(file, "").expect("a file of the test's");
}

#[worker]
fn sum_on_threads(numbers: Vec<u64>) -> u64 {
    let (left, right) = numbers.split_at(numbers.len() / 2);
    thread::scope(|scope| {
        let left = scope.spawn(|| left.iter().sum::<u64>());
        right.iter().sum::<u64>() + left.join().expect("it adds up")
    })
}

#[worker]
fn shout() -> Result<String, RemoteError> {
    let output = std::process::Command::new("echo").arg("from a child of the worker's").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[worker]
fn divide(a: u64, b: u64) -> u64 {
    a / b
}

/// "Forking copies all memory, but not everything: this can cause deadlocks."
#[test]
fn a_lock_that_another_thread_holds_is_free_in_workers() {
    alone(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let (held, is_held) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            thread::scope(|scope| {
                scope.spawn(move || {
                    let _guard = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
                    held.send(()).unwrap();
                    let _ = released.recv();
                });
                is_held.recv().unwrap();
                let pool = Pool::builder().jobs(1).start_method(method).build().unwrap();
                assert_eq!(pool.submit(delayed!(lock_the_global())).join().unwrap(), 0);
                drop(release);
            });
        }
    });
}

/// The same, of the start method that does copy the process: it refuses rather than to deadlock.
#[test]
fn fork_with_a_second_thread_is_an_error_and_no_deadlock() {
    alone_in_one_thread(|| {
        let (release, released) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || released.recv().is_err());
            let error = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap_err();
            assert!(error.to_string().contains("thread"), "{error}");
            drop(release);
        });
        let pool = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap();
        assert_eq!(pool.submit(delayed!(lock_the_global())).join().unwrap(), 0);
    });
}

/// "`set_start_method` should not be used more than once in the program: context has already been set."
#[test]
fn each_pool_has_a_start_method_of_its_own() {
    alone(|| {
        let spawned = Pool::builder().jobs(1).start_method(StartMethod::Spawn).build().unwrap();
        let forked = Pool::builder().jobs(1).start_method(StartMethod::ForkServer).build().unwrap();
        let pids =
            [&spawned, &forked, &spawned, &forked].map(|pool| pool.submit(delayed!(pid())).join().unwrap());
        assert_eq!(BTreeSet::from(pids).len(), 2);
    });
}

/// "You have to create single-argument functions and place them in different modules."
#[test]
fn functions_take_several_arguments_and_lie_where_they_are_used() {
    #[worker]
    fn local(a: u64, b: &str) -> String {
        format!("{a}{b}")
    }
    alone_with_warm_pool(|| {
        assert_eq!(parallel!(local(n, "x") for n in 1..3).unwrap(), ["1x", "2x"]);
        assert_eq!(parallel!(scale(n, plus = 1) for n in 0..3).unwrap(), [1, 11, 21]);
        assert_eq!(parallel!(scale(7), scale(7, by = 2), scale(7, plus = 5, by = 0)).unwrap(), (70, 14, 5));
    });
}

/// "If chunk size is big but the iterator produces jobs slowly, it takes more time waiting."
#[test]
fn an_input_that_comes_slowly_holds_no_job_back() {
    alone(|| {
        let folder = Folder::new();
        let ran = folder.path("ran");
        let pool = Pool::new(2).unwrap();
        // The second job is produced once the first has run: If it waited for a full chunk, it would wait forever.
        let jobs = (0..2).map(|n| {
            if n == 1 {
                until_exists(&ran);
            }
            delayed!(touch(&ran))
        });
        pool.map(jobs).unwrap();
    });
}

/// "Exceptions that are encountered may not propagate and stop execution."
#[test]
fn a_failure_propagates_and_stops_the_call() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut produced = 0u64;
        let endless = (0..).map(|n| {
            produced += 1;
            delayed!(divide(100, u64::from(n != 20)))
        });
        let error = pool.map(endless).unwrap_err();
        let error = error.as_task_error().expect("a task has failed");
        assert!(error.is_panic() && error.task_index() == Some(20), "{error}");
        assert!(error.to_string().contains("divide by zero"), "{error}");
        assert!(produced < 10_000_000, "an endless input has ended: {produced}");
    });
}

/// "Forked processes cannot have child processes or child threads."
#[test]
fn a_worker_has_threads_and_children_as_any_process() {
    alone(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let pool = Pool::builder().jobs(1).start_method(method).build().unwrap();
            assert_eq!(pool.submit(delayed!(sum_on_threads((1..=100).collect()))).join().unwrap(), 5050);
            let words = pool.submit(delayed!(shout())).join().unwrap().unwrap();
            assert_eq!(words, "from a child of the worker's");
        }
    });
}

/// "The `.join` is the culprit here: it's waiting for the process to end."
#[test]
fn submitted_tasks_run_even_if_they_are_never_joined() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let pool = Pool::new(2).unwrap();
        let first = pool.submit(delayed!(wait_for(&go)));
        // The first ends because the second runs beside it.
        let second = pool.submit(delayed!(touch(&go)));
        until_exists(&go);
        first.join().unwrap();
        second.join().unwrap();
    });
}
