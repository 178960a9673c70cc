//! A task past its limit is asked to end, then its process is terminated, then killed. Other tasks are not affected.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigHandler, Signal, signal};
use procession::{Pool, TaskError, delayed, worker};

use crate::{
    alone::alone,
    event::{block_on, is_there, take_time, until, until_exists},
    scratch::{Folder, append, numbers},
};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(60);
/// The time limit of a task that is to fail.
const SHORT: Duration = Duration::from_millis(100);
/// The time limit of a task that is to succeed, on a loaded machine.
const AMPLE: Duration = Duration::from_secs(5);
/// A task that is past its limit is over within this, even if it will not go.
const SOON: Duration = Duration::from_secs(2);

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// Reports its pid, and runs for long.
#[worker]
fn hang(file: &Path) {
    say_who(file);
    take_time(LONG);
}

/// The same, and ignores SIGTERM.
#[worker]
fn hang_on(file: &Path) {
    ignore_sigterm();
    say_who(file);
    take_time(LONG);
}

#[expect(unsafe_code, reason = "SIGTERM ignored, as a program may have it")]
fn ignore_sigterm() {
    // SAFETY: it is ignored: no handler runs.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.expect("a disposition that may be had");
}

/// Ends when it is asked to. Another thread sees the request, too.
#[worker]
fn heed(file: &Path) -> u32 {
    assert!(!procession::is_cancelled(), "it has just begun");
    let other = std::thread::spawn(|| until("the thread is told", procession::is_cancelled));
    until("the task is told", procession::is_cancelled);
    other.join().expect("the thread was told");
    say_who(file);
    7
}

#[worker]
fn is_told() -> bool {
    procession::is_cancelled()
}

/// Takes so long and notes its number.
#[worker]
fn note_after(time: Duration, file: &Path, n: u64) -> u64 {
    take_time(time);
    append(file, n);
    n
}

/// The first hangs, the others note their number.
#[worker]
fn hang_at(n: u64, hanging: u64, file: &Path) -> u64 {
    append(file, n);
    if n == hanging {
        take_time(LONG);
    }
    n
}

fn say_who(file: &Path) {
    let part = file.with_extension("part");
    std::fs::write(&part, std::process::id().to_string()).expect("a file of the test's");
    std::fs::rename(part, file).expect("a file of the test's");
}

fn who_said(file: &Path) -> u32 {
    until_exists(file);
    std::fs::read_to_string(file).expect("it is there").parse().expect("a pid")
}

fn pool(jobs: usize, limit: Duration) -> Pool {
    Pool::builder().jobs(jobs).task_timeout(limit).build().unwrap()
}

fn assert_timed_out(error: &TaskError) {
    assert!(error.is_timeout() && !error.is_crash() && !error.is_cancelled(), "{error}");
    assert_eq!(error.attempts(), 1, "{error}");
    assert!(error.to_string().contains("timed out"), "{error}");
    assert!(error.to_string().contains("100ms"), "the words say the limit: {error}");
}

#[test]
fn a_task_that_runs_past_its_limit_fails_as_timed_out_and_its_worker_is_replaced() {
    alone(|| {
        let folder = Folder::new();
        let pool = pool(1, SHORT);
        let start = Instant::now();
        let error = pool.submit(delayed!(hang(&folder.path("who")))).join().unwrap_err();
        assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
        assert_timed_out(&error);
        let before = who_said(&folder.path("who"));
        assert_eq!(error.worker_pid(), Some(before));
        assert!(!is_there(before), "it was reaped");
        assert_ne!(pool.submit(delayed!(pid())).join().unwrap(), before);
    });
}

#[test]
fn a_task_that_ignores_sigterm_is_killed() {
    alone(|| {
        let folder = Folder::new();
        let pool = pool(1, SHORT);
        let _warm = pool.submit(delayed!(pid())).join().unwrap();
        let start = Instant::now();
        let error = pool.submit(delayed!(hang_on(&folder.path("who")))).join().unwrap_err();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_timed_out(&error);
        assert!(!is_there(who_said(&folder.path("who"))));
        assert!(pool.submit(delayed!(pid())).join().is_ok());
    });
}

#[test]
fn a_task_past_its_limit_is_asked_to_end_and_its_worker_is_kept_if_it_does() {
    alone(|| {
        let folder = Folder::new();
        let pool = pool(1, SHORT);
        for round in 0..3 {
            let file = folder.path(&round.to_string());
            let error = pool.submit(delayed!(heed(&file))).join().unwrap_err();
            assert_timed_out(&error);
            assert!(file.exists(), "it was told, and not killed");
            assert!(!pool.submit(delayed!(is_told())).join().unwrap(), "another task is not told");
        }
    });
}

#[test]
fn a_cancelled_task_is_asked_to_end_too() {
    alone(|| {
        #[worker]
        fn begin_and_heed(begun: &Path, file: &Path) {
            say_who(begun);
            until("the task is told", procession::is_cancelled);
            say_who(file);
        }
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        let (begun, file) = (folder.path("begun"), folder.path("file"));
        let handle = pool.submit(delayed!(begin_and_heed(&begun, &file)));
        let worker = who_said(&begun);
        handle.cancel();
        let error = handle.join().unwrap_err();
        assert!(error.is_cancelled() && !error.is_timeout(), "{error}");
        assert_eq!(who_said(&file), worker);
    });
}

#[test]
fn a_cancelled_task_that_ignores_sigterm_is_killed() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(hang_on(&folder.path("who"))));
        let worker = who_said(&folder.path("who"));
        let start = Instant::now();
        handle.cancel();
        assert!(handle.join().unwrap_err().is_cancelled());
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert!(!is_there(worker));
    });
}

#[test]
fn waiting_does_not_count() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("ran");
        let limit = Duration::from_secs(1);
        let pool = Pool::builder().jobs(1).task_timeout(limit).chunk_size(30).build().unwrap();
        // All of them are in the worker's ring at once, for longer than one may run.
        let tasks = (0..30).map(|n| delayed!(note_after(limit / 20, &file, n)));
        assert_eq!(pool.map(tasks).unwrap(), (0..30).collect::<Vec<_>>());
    });
}

#[test]
fn tasks_behind_one_past_its_limit_run_once() {
    alone(|| {
        for jobs in [1, 2] {
            let folder = Folder::new();
            let file = folder.path("ran");
            let pool = Pool::builder().jobs(jobs).task_timeout(SHORT).chunk_size(20).build().unwrap();
            let outcomes: Vec<_> = pool.imap((0..40).map(|n| delayed!(hang_at(n, 3, &file)))).collect();
            for (n, outcome) in outcomes.into_iter().enumerate() {
                match outcome {
                    Ok(value) => assert_eq!(value, n as u64),
                    Err(error) => {
                        assert_eq!(n, 3, "{error}");
                        assert_eq!(error.task_index(), Some(3));
                        assert_timed_out(&error);
                    }
                }
            }
            assert_eq!(numbers(&file), (0..40).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_limit_is_enforced_even_if_no_thread_waits() {
    alone(|| {
        let folder = Folder::new();
        let pool = pool(1, SHORT);
        let handle = pool.submit(delayed!(hang(&folder.path("who"))));
        let before = who_said(&folder.path("who"));
        until("the worker is gone", || !is_there(before));
        assert_timed_out(&handle.join().unwrap_err());
        let error = block_on(pool.submit(delayed!(hang(&folder.path("again"))))).unwrap_err();
        assert_timed_out(&error);
    });
}

#[test]
fn a_limit_holds_in_lazy_calls_that_are_not_read() {
    alone(|| {
        let folder = Folder::new();
        let who = folder.path("who");
        let pool = pool(2, SHORT);
        #[worker]
        fn hang_at_second(n: u64, file: &Path) -> u64 {
            if n == 1 {
                say_who(file);
                take_time(LONG);
            }
            n
        }
        let mut results = pool.imap((0..).map(|n| delayed!(hang_at_second(n, &who))));
        assert_eq!(results.next().unwrap().unwrap(), 0);
        let before = loop {
            // The window may have held but the first.
            if who.exists() {
                break who_said(&who);
            }
            if let Some(Err(error)) = results.next() {
                assert_timed_out(&error);
                break error.worker_pid().unwrap();
            }
        };
        until("the worker is gone", || !is_there(before));
        let mut unordered = pool.imap_unordered((0..10).map(|n| delayed!(hang_at_second(n, &who))));
        let failed = unordered.find_map(|(index, outcome)| Some((index, outcome.err()?))).unwrap();
        assert_eq!(failed.0, 1);
        assert_timed_out(&failed.1);
    });
}

#[test]
fn a_limit_holds_on_every_worker_of_a_broadcast() {
    alone(|| {
        let folder = Folder::new();
        let pool = pool(2, SHORT);
        let error = pool.broadcast(delayed!(hang(&folder.path("who")))).unwrap_err();
        assert_timed_out(error.as_task_error().unwrap());
        assert_eq!(pool.broadcast(delayed!(pid())).unwrap().len(), 2);
    });
}

#[test]
fn a_task_past_its_limit_is_not_tried_again() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("ran");
        let pool = Pool::builder().jobs(1).task_timeout(SHORT).retries(3).build().unwrap();
        assert_timed_out(&pool.submit(delayed!(hang_at(5, 5, &file))).join().unwrap_err());
        assert_eq!(numbers(&file), [5]);
    });
}

#[test]
fn many_tasks_past_their_limit_leave_the_pool_whole() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("ran");
        let pool = pool(2, SHORT);
        let outcomes: Vec<_> = pool
            .imap((0..60).map(|n| delayed!(hang_at(n, if n % 10 == 4 { n } else { 1000 }, &file))))
            .collect();
        for (n, outcome) in (0..).zip(outcomes) {
            match outcome {
                Ok(value) => assert!(value == n && n % 10 != 4),
                Err(error) => assert!(error.is_timeout() && n % 10 == 4, "{n}: {error}"),
            }
        }
        assert_eq!(numbers(&file), (0..60).collect::<Vec<_>>());
        assert_eq!(pool.broadcast(delayed!(pid())).unwrap().len(), 2);
    });
}

#[test]
fn the_time_for_which_the_program_is_stopped_does_not_count() {
    alone(|| {
        #[worker]
        fn begin_and_await(begun: &Path, file: PathBuf) {
            say_who(begun);
            until_exists(&file);
        }
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let limit = Duration::from_secs(1);
        let pool = pool(1, limit);
        let handle = pool.submit(delayed!(begin_and_await(&begun, go.clone())));
        who_said(&begun);
        // As by Ctrl-Z and fg; but a worker is in a group of its own, and works on.
        let script = r#"kill -STOP "$1"; sleep 2; kill -CONT "$1"; sleep 0.1; : > "$2""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(std::process::id().to_string()).arg(&go);
        let mut shell = shell.spawn().unwrap();
        handle.join().expect("it has run for longer than it may only while nobody could count");
        assert!(shell.wait().unwrap().success());
    });
}

#[test]
fn tasks_within_their_limit_do_not_notice_that_there_is_one() {
    alone(|| {
        let pool = pool(2, AMPLE);
        let pids = pool.map((0..20_000).map(|_| delayed!(pid()))).unwrap();
        let workers: std::collections::BTreeSet<u32> = pids.into_iter().collect();
        assert!(workers.len() <= 2, "{workers:?}");
        assert!(!pool.submit(delayed!(is_told())).join().unwrap());
    });
}

#[test]
fn a_limit_of_zero_is_refused() {
    let error = Pool::builder().task_timeout(Duration::ZERO).build().unwrap_err();
    assert!(error.to_string().contains("task_timeout"), "{error}");
}
