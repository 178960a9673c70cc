//! Runs a test in a process of its own, so that what it leaves behind can be counted to the last descriptor, and so that a test
//! that hangs is a failure.
//!
//! Under `PROCESSION_START_METHOD=fork` that process must have one thread, and a test harness has two: there the body runs in a copy of
//! the process, which has only the thread that made it.
#![expect(unsafe_code, reason = "a copy of this process, which has one thread")]
#![expect(clippy::print_stdout, reason = "a test that is left out is named")]

mod excluded;
mod processes;

use std::{
    any::type_name,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Child, Command, ExitStatus, Stdio},
    thread::park_timeout,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};

use self::{
    excluded::{NOT_IN_PROCESS, NOT_UNDER_FORK},
    processes::{doing, processes_of},
};
use crate::{event::until, leak::Snapshot, scratch::Folder};

/// In the process of one test: the test's name. Its workers inherit it.
const ALONE: &str = "PROCESSION_TESTS_ALONE";

/// A test that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// The time in which the processes that a test's process has started must end after it.
const FOLLOW: Duration = Duration::from_secs(10);

/// Runs `body` in a process of its own, and then asserts that this process is left as `body` found it.
#[track_caller]
pub(crate) fn alone<F: FnOnce()>(body: F) {
    run(body, true, is_fork());
}

/// As [`alone`], in a process with one thread, whatever the start method is: for tests that build pools that copy it.
#[track_caller]
pub(crate) fn alone_in_one_thread<F: FnOnce()>(body: F) {
    run(body, true, true);
}

/// As [`alone`], for tests that use the process's own pool, which stays: what is asserted is that it ends with the process.
#[track_caller]
pub(crate) fn alone_with_warm_pool<F: FnOnce()>(body: F) {
    run(body, false, is_fork());
}

#[track_caller]
fn run<F: FnOnce()>(body: F, leaves_nothing: bool, in_one_thread: bool) {
    // The test is the function that the closure was written in.
    let path = type_name::<F>().trim_end_matches("::{{closure}}");
    let name = path.split_once("::").expect("a test is in a crate").1;
    if let Some((how, why)) = excluded(name) {
        println!("not run {how}: `{name}`: {why}");
        return;
    }
    if std::env::var_os(ALONE).is_none_or(|running| running != name) {
        return run_in_process_of_its_own(name);
    }
    let play = || {
        let before = Snapshot::take();
        body();
        if leaves_nothing {
            before.assert_same_now();
        }
    };
    if in_one_thread { in_a_copy(play) } else { play() }
}

/// Returns under which setting this test is not run, and why.
fn excluded(name: &str) -> Option<(&'static str, &'static str)> {
    let listed = |list: &[(&str, &'static str)]| {
        let is_this = |listed: &str| name == listed || (listed.ends_with("::") && name.starts_with(listed));
        list.iter().find(|(listed, _)| is_this(listed)).map(|(_, why)| *why)
    };
    let under_fork = if is_fork() { listed(NOT_UNDER_FORK) } else { None };
    let in_process = if is_in_process() { listed(NOT_IN_PROCESS) } else { None };
    under_fork.map(|why| ("under fork", why)).or_else(|| in_process.map(|why| ("in process", why)))
}

/// Runs this test by the same program, and asserts that it passes in time and leaves no process.
#[track_caller]
fn run_in_process_of_its_own(name: &str) {
    let folder = Folder::new();
    let output = folder.path("output");
    let file = File::create(&output).expect("a file in our own folder");
    let executable = std::env::current_exe().expect("the path of the running test");
    let mut child = Command::new(executable)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .env("PROCESSION_TESTS_FOLDER", folder.root())
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second descriptor"))
        .stderr(file)
        .spawn()
        .expect("the test itself can be executed");
    let pid = child.id();
    let status = wait(&mut child);
    let doing = if status.is_none() { doing(&folder) } else { String::new() };
    let _ = (child.kill(), child.wait());
    let words = std::fs::read(&output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let words = words.unwrap_or_default();
    match status {
        None => panic!("`{name}` (pid {pid}) hangs:\n{words}\n{doing}"),
        Some(status) if !status.success() => panic!("`{name}` fails ({}):\n{words}", say(status)),
        Some(_) => assert!(words.contains("1 passed"), "`{name}` did not run:\n{words}"),
    }
    // All processes that the test has started have the path of its folder in their environment.
    let mut left = Vec::new();
    let deadline = Instant::now() + FOLLOW;
    while Instant::now() < deadline {
        left = processes_of(&folder);
        if left.is_empty() {
            return;
        }
        park_timeout(Duration::from_millis(5));
    }
    panic!("`{name}` leaves processes behind: {left:?}\n{words}");
}

/// Waits until the process has ended, or for [`DEADLINE`].
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match child.try_wait().expect("our own child") {
            Some(status) => return Some(status),
            None if Instant::now() < deadline => park_timeout(Duration::from_millis(2)),
            None => return None,
        }
    }
}

/// Returns whether pools copy this process by default.
fn is_fork() -> bool {
    std::env::var_os("PROCESSION_START_METHOD").is_some_and(|method| method == "fork")
}

/// Every call runs in the calling process.
fn is_in_process() -> bool {
    std::env::var_os("PROCESSION_IN_PROCESS").is_some_and(|value| value == "1")
}

#[test]
fn each_test_that_does_not_run_in_process_has_a_reason() {
    println!("tests and modules (`name::`) that do not run in process:");
    for (name, why) in NOT_IN_PROCESS {
        println!("  {name}: {why}");
    }
}

#[test]
fn few_tests_do_not_run_under_fork_and_each_has_a_reason() {
    println!("{} tests do not run under fork:", NOT_UNDER_FORK.len());
    for (name, why) in NOT_UNDER_FORK {
        println!("  {name}: {why}");
    }
    assert!(NOT_UNDER_FORK.len() < 10);
}

/// Runs the body in a copy of this process, whose only thread is this one, and asserts that it ends well.
#[expect(clippy::exit, reason = "the copy has no main to return to")]
fn in_a_copy(body: impl FnOnce()) {
    // The harness's own thread has nothing locked while it waits for this one.
    let main = format!("/proc/self/task/{}/stat", std::process::id());
    until("the harness waits", || {
        std::fs::read_to_string(&main)
            .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, s)| s.starts_with('S')))
    });
    // SAFETY: the harness's thread waits, and there is no other: the copy finds nothing half done.
    match unsafe { fork() }.expect("a copy of this process") {
        ForkResult::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let outcome = catch_unwind(AssertUnwindSafe(body));
            std::process::exit(if outcome.is_ok() { 0 } else { 101 })
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("our own child");
            assert!(
                matches!(status, WaitStatus::Exited(_, 0)),
                "the copy that ran the test ended so: {status:?}"
            );
        }
    }
}

fn say(status: ExitStatus) -> String {
    status.to_string()
}
