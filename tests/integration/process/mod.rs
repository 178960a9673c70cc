//! One function in a process of its own: it starts immediately, ends by itself or is ended, reports how, and leaves nothing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a process writes is told apart here")]

mod many;
mod output;
mod surroundings;
mod tree;

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};
use procession::{Process, RemoteError, TaskError, delayed, is_worker, worker, worker_index};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    event::{block_on, is_there, take_time, until, until_exists},
    leak::{Snapshot, descriptors, threads},
    scratch::Folder,
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn who() -> (u32, bool, Option<usize>, bool) {
    (std::process::id(), is_worker(), worker_index(), procession::task_id().is_some())
}

#[worker]
fn strike(end: End) {
    end.strike()
}

#[worker]
fn begin_and_wait(begun: &Path, go: &Path) -> u32 {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
    std::process::id()
}

/// Ends only by force.
#[worker]
#[expect(unsafe_code, reason = "a process that SIGTERM does not end")]
fn ignore_sigterm(begun: &Path) {
    // SAFETY: to ignore a signal installs no handler.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.expect("SIGTERM may be ignored");
    std::fs::write(begun, "").expect("a file of the test's");
    loop {
        std::thread::park();
    }
}

#[worker]
fn many_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| n as u8).collect()
}

#[worker]
fn many_words(n: u32) -> Vec<String> {
    (0..n).map(|n| n.to_string()).collect()
}

#[worker]
fn count(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[worker]
fn refuse() -> Result<u32, RemoteError> {
    Err(RemoteError::msg("not today"))
}

/// Does not cross.
#[derive(Debug, Deserialize)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it would rather stay"))
    }
}

#[worker]
fn take_stubborn(stubborn: Stubborn) {
    let Stubborn = stubborn;
}

#[worker]
fn give_stubborn() -> Stubborn {
    Stubborn
}

/// A process that waits for the file that comes back with it.
fn waiting(folder: &Folder) -> (Process<u32>, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let (begun, go) = (folder.path(&format!("begun {n}")), folder.path(&format!("go {n}")));
    let process = Process::spawn(delayed!(begin_and_wait(&begun, &go))).unwrap();
    until_exists(&begun);
    (process, go)
}

fn code(process: &Process<impl Sized>) -> Option<i32> {
    process.exit_status().and_then(|exit| exit.code())
}

/// The process's own copy of what it is made from is not its affair.
fn is_fork() -> bool {
    std::env::var_os("PROCESSION_START_METHOD").is_some_and(|method| method == "fork")
}

#[test]
fn a_function_runs_in_a_process_of_its_own_which_then_ends() {
    alone(|| {
        let mut process = Process::spawn(delayed!(who())).unwrap();
        let id = process.id();
        assert_ne!(id, std::process::id());
        assert_eq!(process.join().unwrap(), (id, true, None, true));
        assert!(!process.is_alive() && !is_there(id));
        assert_eq!(code(&process), Some(0));
        assert_eq!(process.exit_status().unwrap().signal(), None);
        assert_eq!(process.id(), id, "and still has its number");
    });
}

#[test]
fn a_process_is_alive_until_it_has_ended() {
    alone(|| {
        let folder = Folder::new();
        let (mut process, go) = waiting(&folder);
        assert!(process.is_alive() && process.exit_status().is_none() && is_there(process.id()));
        assert!(process.join_timeout(Duration::ZERO).is_none());
        assert!(process.join_timeout(Duration::from_millis(20)).is_none(), "not yet, ask again");
        std::fs::write(go, "").unwrap();
        assert_eq!(process.join_timeout(Duration::from_secs(60)).unwrap().unwrap(), process.id());
        assert!(!process.is_alive());
    });
}

#[test]
fn a_result_is_given_once_and_asking_again_is_an_error() {
    alone(|| {
        let mut process = Process::spawn(delayed!(echo(1))).unwrap();
        assert_eq!(process.join().unwrap(), 1);
        let check = |error: TaskError| {
            assert!(error.is_lost(), "{error}");
            assert!(error.to_string().contains("already taken"), "{error}");
        };
        check(process.join().unwrap_err());
        check(process.join_timeout(Duration::ZERO).unwrap().unwrap_err());
        check(block_on(&mut process).unwrap_err());
        assert_eq!(code(&process), Some(0));

        let mut process = Process::spawn(delayed!(strike(End::Exit))).unwrap();
        assert!(process.join().unwrap_err().is_crash());
        check(process.join().unwrap_err());
    });
}

#[test]
fn every_cause_of_the_end_of_a_process_is_reported_by_name() {
    alone(|| {
        for end in [End::Panic, End::Exit, End::Abort, End::Segfault, End::Kill, End::StackOverflow] {
            let mut process = Process::builder().name("doomed").spawn(delayed!(strike(end))).unwrap();
            let error = process.join().unwrap_err();
            let words = error.to_string();
            assert!(words.contains(end.words()) && words.contains("in process `doomed`"), "{words}");
            assert_eq!(error.is_panic(), end == End::Panic, "{words}");
            assert_eq!(error.is_crash(), end != End::Panic, "{words}");
            assert_eq!((error.worker_pid(), error.attempts()), (Some(process.id()), 1), "{words}");
            let exit = process.exit_status().map(|exit| (exit.code(), exit.signal()));
            // A panic ends the process as it ends any Rust program.
            assert_eq!(exit, end.leaves().or(Some((Some(101), None))), "{words}");
        }
    });
}

#[test]
fn an_err_is_a_result_and_no_failure_of_the_process() {
    alone(|| {
        let mut process = Process::spawn(delayed!(refuse())).unwrap();
        assert_eq!(process.join().unwrap().unwrap_err().to_string(), "not today");
        assert_eq!(code(&process), Some(0));
    });
}

#[test]
fn a_terminated_process_fails_as_a_crash_by_sigterm() {
    alone(|| {
        let folder = Folder::new();
        let (mut process, _) = waiting(&folder);
        process.terminate().unwrap();
        let error = process.join().unwrap_err();
        assert!(error.is_crash() && error.to_string().contains("killed by SIGTERM"), "{error}");
        assert_eq!(error.exit().unwrap().signal(), Some(Signal::SIGTERM as i32));
        assert_eq!(process.exit_status(), error.exit());
        // It has ended, so no process is signalled.
        process.terminate().unwrap();
        process.kill().unwrap();
        assert_eq!(process.exit_status(), error.exit());
    });
}

#[test]
fn a_process_that_ignores_sigterm_lives_until_it_is_killed() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let mut process = Process::spawn(delayed!(ignore_sigterm(&begun))).unwrap();
        until_exists(&begun);
        process.terminate().unwrap();
        assert!(process.join_timeout(Duration::from_millis(50)).is_none() && process.is_alive());
        process.kill().unwrap();
        let error = process.join().unwrap_err();
        assert!(error.is_crash() && error.to_string().contains("SIGKILL"), "{error}");
    });
}

#[test]
fn a_process_that_is_ended_as_it_starts_fails_by_that_signal() {
    alone(|| {
        for n in 0..20 {
            let mut process =
                Process::spawn(delayed!(begin_and_wait(Path::new("/never"), Path::new("/never")))).unwrap();
            if n % 2 == 0 {
                process.terminate().unwrap()
            } else {
                process.kill().unwrap()
            }
            let error = process.join().unwrap_err();
            let words = if n % 2 == 0 { "SIGTERM" } else { "SIGKILL" };
            assert!(error.is_crash() && error.to_string().contains(words), "{error}");
            assert!(error.attempts() <= 1, "{error}");
        }
    });
}

#[test]
fn a_process_that_other_code_kills_is_seen_to_have_ended() {
    alone(|| {
        let folder = Folder::new();
        let (mut process, _) = waiting(&folder);
        kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGKILL).unwrap();
        until("it has ended", || !process.is_alive());
        assert_eq!(process.exit_status().unwrap().signal(), Some(Signal::SIGKILL as i32));
        assert!(process.join().unwrap_err().is_crash());
    });
}

#[test]
fn a_process_with_a_result_larger_than_any_buffer_ends_before_it_is_joined() {
    const LEN: usize = 64 << 20;
    alone(|| {
        let mut bytes = Process::spawn(delayed!(many_bytes(LEN))).unwrap();
        let mut words = Process::spawn(delayed!(many_words(1_000_000))).unwrap();
        until("both have ended", || !bytes.is_alive() && !words.is_alive());
        assert!(!is_there(bytes.id()) && code(&bytes) == Some(0));
        let bytes = bytes.join().unwrap();
        assert!(bytes.len() == LEN && bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        assert_eq!(words.join().unwrap().last().unwrap(), "999999");
        let mut count = Process::spawn(delayed!(count(bytes))).unwrap();
        assert_eq!(count.join().unwrap(), LEN, "and an argument so large arrives");
    });
}

#[test]
fn a_dropped_process_is_killed_and_collected() {
    alone(|| {
        let folder = Folder::new();
        let before = Snapshot::take();
        for _ in 0..5 {
            let (process, _) = waiting(&folder);
            let id = process.id();
            drop(process);
            assert!(!is_there(id));
            before.assert_same_now();
            // As it starts.
            let process = Process::spawn(delayed!(echo(1))).unwrap();
            let id = process.id();
            drop(process);
            assert!(!is_there(id));
            before.assert_same_now();
        }
    });
}

#[test]
fn a_detached_process_runs_on_and_is_reaped() {
    alone(|| {
        let folder = Folder::new();
        let before = Snapshot::take();
        let (process, go) = waiting(&folder);
        let id = process.id();
        process.detach();
        assert!(is_there(id));
        // Others come and go meanwhile.
        assert_eq!(Process::spawn(delayed!(echo(3))).unwrap().join().unwrap(), 3);
        assert!(is_there(id));
        std::fs::write(go, "").unwrap();
        until("it is collected", || !is_there(id));
        until("no thread watches any more", || threads().len() == before.threads.len());
        until("nothing is left", || descriptors() == before.descriptors);
    });
}

#[test]
fn a_detached_process_ends_with_its_parent() {
    // The test asserts that it ends with the process.
    alone_with_warm_pool(|| {
        let folder = Folder::new();
        waiting(&folder).0.detach();
        // In a static it is never dropped.
        static KEPT: OnceLock<Process<u32>> = OnceLock::new();
        assert!(KEPT.set(waiting(&folder).0).is_ok());
    });
}

#[test]
fn the_descriptor_becomes_readable_at_the_end() {
    fn is_readable(process: &Process<u32>, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    }
    alone(|| {
        let folder = Folder::new();
        let (process, go) = waiting(&folder);
        assert!(!is_readable(&process, PollTimeout::ZERO));
        std::fs::write(go, "").unwrap();
        assert!(is_readable(&process, PollTimeout::from(60_000u16)));
        // Once the descriptor is readable, the process can be asked how it ended.
        assert!(!process.is_alive());
        assert_eq!(code(&process), Some(0));
        assert!(is_readable(&process, PollTimeout::ZERO), "and stays so");
    });
}

#[test]
fn a_process_is_a_future_and_is_killed_if_that_is_dropped() {
    alone(|| {
        assert_eq!(block_on(Process::spawn(delayed!(echo(4))).unwrap()).unwrap(), 4);
        let folder = Folder::new();
        let (mut process, _) = waiting(&folder);
        let id = process.id();
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(std::pin::Pin::new(&mut process).poll(&mut context).is_pending());
        drop(process);
        assert!(!is_there(id));
    });
}

#[test]
fn a_process_may_be_sent_to_another_thread_and_joined_there() {
    alone(|| {
        let mut process = Process::spawn(delayed!(echo(6))).unwrap();
        let joined = std::thread::spawn(move || process.join().unwrap());
        assert_eq!(joined.join().unwrap(), 6);
    });
}

#[test]
fn processes_are_named_by_their_function_and_a_number_or_by_the_user() {
    alone(|| {
        let (a, b) = (Process::spawn(delayed!(echo(1))).unwrap(), Process::spawn(delayed!(echo(1))).unwrap());
        for name in [a.name(), b.name()] {
            let number = name.strip_prefix("echo-").expect("the function's name first");
            assert!(number.parse::<u32>().is_ok(), "{name}");
        }
        assert_ne!(a.name(), b.name());
        let named = Process::builder().name("server").spawn(delayed!(echo(1))).unwrap();
        assert_eq!(named.name(), "server");
        let words = format!("{named:?}");
        assert!(words.contains("server") && words.contains(&named.id().to_string()), "{words}");
    });
}

#[test]
fn values_that_do_not_cross_are_errors_of_the_call() {
    alone(|| {
        let error = Process::spawn(delayed!(take_stubborn(Stubborn))).unwrap_err();
        let error = error.into_task_error().unwrap();
        assert!(
            error.is_codec() && error.to_string().contains("`integration::process::Stubborn`"),
            "{error}"
        );
        let mut process = Process::spawn(delayed!(give_stubborn())).unwrap();
        let error = process.join().unwrap_err();
        assert!(
            error.is_codec() && error.to_string().contains("`integration::process::Stubborn`"),
            "{error}"
        );
        assert_eq!(code(&process), Some(101));
    });
}

/// Has `PROCESSION_IN_PROCESS=1` in its environment.
#[worker]
fn spawn_in_process(begun: &Path, go: &Path) {
    let own = std::process::id();
    let mut process = Process::spawn(delayed!(begin_and_wait(begun, go))).unwrap();
    until_exists(begun);
    assert_eq!(process.id(), own);
    assert!(process.is_alive() && process.exit_status().is_none());
    assert!(process.join_timeout(Duration::from_millis(1)).is_none());
    for error in [process.terminate().unwrap_err(), process.kill().unwrap_err()] {
        assert!(error.to_string().contains("PROCESSION_IN_PROCESS=1"), "{error}");
    }
    std::fs::write(go, "").unwrap();
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    assert!(!process.is_alive());
    assert_eq!(process.join().unwrap(), own);
    assert!(process.join().unwrap_err().is_lost());
    assert_eq!(code(&process), Some(0));
    process.terminate().unwrap();
    assert_eq!(block_on(Process::spawn(delayed!(echo(2))).unwrap()).unwrap(), 2);
    let mut process = Process::spawn(delayed!(strike(End::Panic))).unwrap();
    assert!(process.join().unwrap_err().is_panic());
    assert_eq!(code(&process), Some(101));
    Process::spawn(delayed!(echo(2))).unwrap().detach();
}

#[test]
fn in_process_a_function_runs_on_a_thread() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let builder = Process::builder().env("PROCESSION_IN_PROCESS", "1");
        builder.spawn(delayed!(spawn_in_process(&begun, &go))).unwrap().join().unwrap();
    });
}
