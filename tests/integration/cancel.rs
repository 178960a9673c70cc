//! A cancelled task does not run, or is stopped, and its pool stays usable.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::socket::{Shutdown, shutdown};
use procession::{Pool, RemoteError, TaskError, delayed, parallel, report_progress, worker};

use crate::{
    alone::alone,
    event::{is_there, take_time, until, until_exists},
    rest::ticks,
    scratch::{Folder, append, numbers},
};

/// Longer than any test waits.
const LONG: u64 = 60_000;
/// A call that has failed is over within this.
const SOON: Duration = Duration::from_secs(1);

/// Reports that it has begun and its pid, and runs for long.
#[worker]
fn begin(file: &Path, millis: u64) {
    let part = file.with_extension("part");
    std::fs::write(&part, std::process::id().to_string()).expect("a file of the test's");
    std::fs::rename(part, file).expect("a file of the test's");
    take_time(Duration::from_millis(millis));
}

#[worker]
fn note(file: &Path, n: u64) -> u64 {
    append(file, n);
    n
}

#[worker]
fn same(n: u64) -> u64 {
    n
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// Fails once the other has begun.
#[worker]
fn fail_after(file: &Path) {
    until_exists(file);
    panic!("the first failure")
}

#[worker]
fn long_but_for(n: u64, failing: u64, begun: &Path) -> Result<u64, RemoteError> {
    if n == failing {
        until("another runs", || n == 0 || !numbers(begun).is_empty());
        return Err(RemoteError::msg(format!("{n} fails")));
    }
    append(begun, n);
    take_time(Duration::from_millis(LONG));
    Ok(n)
}

fn pid_in(file: &Path) -> u32 {
    until_exists(file);
    std::fs::read_to_string(file).expect("it is there").parse().expect("a pid")
}

#[test]
fn a_queued_task_that_is_cancelled_never_runs() {
    alone(|| {
        let folder = Folder::new();
        let (begun, ran) = (folder.path("begun"), folder.path("ran"));
        let pool = Pool::new(1).unwrap();
        let first = pool.submit(delayed!(begin(&begun, LONG)));
        let queued: Vec<_> = (0..10).map(|n| pool.submit(delayed!(note(&ran, n)))).collect();
        until_exists(&begun);
        queued.iter().step_by(2).for_each(|handle| handle.cancel());
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        for (n, handle) in queued.into_iter().enumerate() {
            match handle.join() {
                Ok(value) => assert_eq!((value, n % 2), (n as u64, 1)),
                Err(error) => {
                    assert!(error.is_cancelled() && n % 2 == 0, "{error}");
                    assert_eq!(error.attempts(), 0);
                }
            }
        }
        assert_eq!(numbers(&ran), [1, 3, 5, 7, 9]);
    });
}

#[test]
fn a_running_task_that_is_cancelled_has_its_process_killed() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(begin(&begun, LONG)));
        let pid_before = pid_in(&begun);
        let start = Instant::now();
        handle.cancel();
        let error = handle.join().unwrap_err();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert!(error.is_cancelled() && !error.is_crash(), "{error}");
        assert_eq!(error.worker_pid(), Some(pid_before));
        assert!(!is_there(pid_before));
        assert_ne!(pool.submit(delayed!(pid())).join().unwrap(), pid_before);
    });
}

#[test]
fn cancelling_an_ended_task_changes_nothing() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let before = pool.submit(delayed!(pid())).join().unwrap();
        let handle = pool.submit(delayed!(pid()));
        until("the task has ended", || handle.is_finished());
        handle.cancel();
        handle.cancel();
        assert_eq!(handle.join().unwrap(), before);
        assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), before);
    });
}

#[test]
fn a_task_can_be_cancelled_while_another_thread_drives() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let pool = Pool::new(1).unwrap();
        let first = pool.submit(delayed!(begin(&begun, LONG)));
        until_exists(&begun);
        std::thread::scope(|scope| {
            let driver = scope.spawn(|| first.join());
            for _ in 0..20 {
                let queued = pool.submit(delayed!(pid()));
                queued.cancel();
                assert!(queued.join().unwrap_err().is_cancelled());
            }
            assert!(!driver.is_finished());
            // The running task is not cancelled itself, but its process is killed.
            use nix::{sys::signal, unistd::Pid};
            signal::kill(Pid::from_raw(pid_in(&begun).cast_signed()), signal::Signal::SIGKILL).unwrap();
            assert!(driver.join().unwrap().unwrap_err().is_crash());
        });
    });
}

#[test]
fn the_first_failure_ends_a_call_within_a_second() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        // To put names to a panic's backtrace takes a debug build a second on a loaded machine, and is no part of ending the call.
        let pool = Pool::builder().jobs(2).env("RUST_BACKTRACE", "0").build().unwrap();
        pool.broadcast(delayed!(pid())).unwrap();
        let start = Instant::now();
        let tasks = [delayed!(begin(&begun, LONG)), delayed!(fail_after(&begun))];
        let more = (0..100).map(|_| delayed!(begin(&begun, LONG)));
        let error = pool.map(tasks.into_iter().chain(more)).unwrap_err().into_task_error().unwrap();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert!(error.is_panic() && error.task_index() == Some(1), "{error}");
        let sleeper = pid_in(&begun);
        until("the sleeper is gone", || !is_there(sleeper));
    });
}

#[test]
fn an_err_under_a_question_mark_ends_a_call_within_a_second() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        pool.broadcast(delayed!(pid())).unwrap();
        for failing in [0, 1] {
            let folder = Folder::new();
            let begun = folder.path("begun");
            let start = Instant::now();
            let error: RemoteError =
                parallel!(pool = &pool; long_but_for(n, failing, &begun)? for n in 0..1000).unwrap_err();
            assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
            assert_eq!(error.to_string(), format!("{failing} fails"));
        }
    });
}

#[test]
fn twenty_five_calls_that_fail_leave_the_pool_whole() {
    alone(|| {
        #[worker]
        fn fail_at(n: u64, failing: u64) -> u64 {
            assert_ne!(n, failing, "this one fails");
            take_time(Duration::from_micros(300 * (n % 3)));
            n
        }
        let pool = Pool::new(2).unwrap();
        for round in 0..25 {
            let failing = round * 7 % 100;
            let error = pool.map((0..500).map(|n| delayed!(fail_at(n, failing)))).unwrap_err();
            let error = error.into_task_error().unwrap();
            assert!(
                error.is_panic() && error.task_index() == Some(failing as usize),
                "round {round}: {error}"
            );
            let whole = pool.map((0..50).map(|n| delayed!(fail_at(n, 1000)))).unwrap();
            assert_eq!(whole, (0..50).collect::<Vec<_>>(), "round {round}");
            assert_eq!(pool.broadcast(delayed!(pid())).unwrap().len(), 2, "round {round}");
        }
    });
}

#[test]
fn dropping_a_lazy_iterator_ends_its_call() {
    alone(|| {
        let folder = Folder::new();
        let ran = folder.path("ran");
        let pool = Pool::new(2).unwrap();
        for _ in 0..10 {
            let mut results = pool.imap((0..).map(|n| delayed!(note(&ran, n))));
            assert_eq!(results.next().unwrap().unwrap(), 0);
        }
        // Those that run see their end before the next task of anyone is begun.
        assert_eq!(pool.broadcast(delayed!(pid())).unwrap().len(), 2);
        let many = numbers(&ran).len();
        assert_eq!(pool.broadcast(delayed!(pid())).unwrap().len(), 2);
        assert_eq!(numbers(&ran).len(), many, "nothing of the dropped calls runs any more");
    });
}

#[test]
fn ending_the_pool_ends_running_tasks_within_a_second() {
    alone(|| {
        let folder = Folder::new();
        let (first, second) = (folder.path("1"), folder.path("2"));
        let pool = Pool::new(2).unwrap();
        let handles = [
            pool.submit(delayed!(begin(&first, LONG))),
            pool.submit(delayed!(begin(&second, LONG))),
            pool.submit(delayed!(begin(&first, LONG))),
        ];
        let pids = [pid_in(&first), pid_in(&second)];
        let start = Instant::now();
        pool.terminate();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        pids.into_iter().for_each(|pid| assert!(!is_there(pid)));
        for handle in handles {
            let error: TaskError = handle.join().unwrap_err();
            assert!(error.is_cancelled(), "{error}");
        }
    });
}

#[worker]
fn note_briefly(file: &Path, n: u64) -> u64 {
    append(file, n);
    take_time(Duration::from_micros(20));
    n
}

#[test]
fn a_short_task_that_was_reported_as_cancelled_never_begins() {
    alone(|| {
        let folder = Folder::new();
        let ran = folder.path("ran");
        let pool = Pool::new(2).unwrap();
        let (mut expected, mut cancelled, mut next) = (Vec::new(), 0, 0);
        for round in 0..150u64 {
            // By now they are short, and many are queued at each worker.
            let handles: Vec<_> =
                (next..next + 40).map(|n| (n, pool.submit(delayed!(note_briefly(&ran, n))))).collect();
            next += 40;
            let step = 1 + round as usize % 7;
            handles.iter().rev().step_by(step).for_each(|(_, handle)| handle.cancel());
            for (n, handle) in handles {
                match handle.join() {
                    Ok(value) => {
                        assert_eq!(value, n);
                        expected.push(n);
                    }
                    Err(error) => {
                        assert!(error.is_cancelled(), "{error}");
                        cancelled += 1;
                        // A task that was killed while it ran may have noted itself.
                        if error.attempts() > 0 && numbers(&ran).binary_search(&n).is_ok() {
                            expected.push(n);
                        }
                    }
                }
            }
        }
        assert!(cancelled > 100, "{cancelled} were cancelled");
        assert_eq!(numbers(&ran), expected, "what ran, and how often");
    });
}

/// Each is found among those that wait, and left where it is: were the others moved each time, this would take minutes.
#[test]
fn a_hundred_thousand_tasks_that_wait_are_taken_back_one_by_one_in_any_order() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("begun");
        let pool = Pool::new(1).unwrap();
        let first = pool.submit(delayed!(begin(&file, LONG)));
        until_exists(&file);
        let many = 100_000u64;
        let mut handles: Vec<_> = (0..many).map(|n| Some(pool.submit(delayed!(same(n))))).collect();
        // A step that is coprime to their number reaches each of them once. Every hundredth stays.
        for n in (0..many).map(|n| n * 38_153 % many).filter(|n| n % 100 != 0) {
            let handle = handles[n as usize].take().unwrap();
            handle.cancel();
            assert!(handle.join().unwrap_err().is_cancelled());
        }
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        let left: Vec<u64> = handles.into_iter().flatten().map(|handle| handle.join().unwrap()).collect();
        assert!(left.into_iter().eq((0..many).step_by(100)));
    });
}

/// The first fails when the other runs. The other reports progress as long as it lives.
#[worker]
fn fail_or_speak(file: &Path, n: u64) {
    if n == 0 {
        until_exists(file);
        panic!("as it should");
    }
    std::fs::write(file, "").expect("a file of the test's");
    loop {
        report_progress(1.0);
        take_time(Duration::from_millis(1));
    }
}

#[test]
fn a_failed_call_waits_for_tasks_that_report_progress_without_spinning() {
    alone(|| {
        let there = Folder::new();
        let pool = Pool::new(2).unwrap();
        let (mut used, mut failed, begun) = (0, 0, Instant::now());
        for round in 0..8 {
            let file = there.path(&format!("runs-{round}"));
            let before = ticks(std::process::id());
            let outcome = parallel!(pool = &pool, verbose = 50; fail_or_speak(&file, n) for n in 0..2);
            used += ticks(std::process::id()) - before;
            failed += u32::from(outcome.is_err());
        }
        assert_eq!(failed, 8);
        // Each waits for 100 ms, and on a busy machine for longer.
        let all = begun.elapsed().as_millis();
        assert!(u128::from(used) * 10 <= all * 3 / 8, "the host has used {used}0 ms of {all} ms");
    });
}

/// The first closes the connection of its worker, and continues.
#[worker]
fn fall_silent(is_first: bool, file: &Path) {
    if !is_first {
        return append(file, 1);
    }
    let fds = std::fs::read_dir("/proc/self/fd").expect("/proc is there").filter_map(Result::ok);
    let sockets = fds
        .filter(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        })
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok());
    for socket in sockets {
        shutdown(socket, Shutdown::Write).expect("the connection");
    }
    std::fs::write(file.with_extension("silent"), "").expect("a file of the test's");
    take_time(Duration::from_millis(LONG));
}

#[test]
fn the_error_of_a_task_cancelled_behind_a_lost_one_does_not_mention_that_one() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("runs");
        let pool = Pool::new(1).unwrap();
        for _ in 0..100 {
            pool.submit(delayed!(fall_silent(false, &file))).join().unwrap();
        }
        let first = pool.submit(delayed!(fall_silent(true, &file)));
        let mut behind = pool.submit(delayed!(fall_silent(false, &file)));
        until_exists(&file.with_extension("silent"));
        // Meanwhile the end of the connection is seen.
        assert!(behind.join_timeout(Duration::from_millis(200)).is_none());
        behind.cancel();
        assert!(behind.join().unwrap_err().is_cancelled());
        let error = first.join().unwrap_err();
        assert!(!error.is_cancelled(), "{error}");
        assert_eq!(numbers(&file).len(), 100, "what is cancelled does not run");
    });
}
