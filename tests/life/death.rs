//! The end of a program: whatever causes it, nothing is left soon afterwards, and nothing is printed.
#![expect(unsafe_code, reason = "a child that leads a terminal's session")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::program::{
    Ended, PATIENCE, PROBE, PROBE_AT_MAIN, Running, await_readable, hold, is_readable_by, probe,
};
use nix::{
    libc,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgid, getpgrp},
};

/// The time in which an end must happen, with room for a loaded machine: the promise is two seconds.
const SOON: Duration = Duration::from_secs(2);

/// A program with two workers under load, which are there.
fn staying(program: &str, place: &str, load: &str, end: &str) -> Running {
    let mut running = Running::start(&mut probe(program, &["stay", place, load, end]));
    let mut lines = vec!["up", "up", "ready"];
    let mut processes = 3;
    if ["stubborn", "left"].contains(&load) {
        // Each worker has a child of its own.
        lines.extend(["child up", "child up"]);
        processes += 2;
    }
    running.expect(&lines);
    assert_eq!(running.processes().len(), processes, "{place} {load}");
    running
}

fn pid(running: &Running) -> Pid {
    Pid::from_raw(running.child.id().cast_signed())
}

#[test]
fn kill_9_of_the_parent_leaves_no_process_with_idle_or_busy_workers_wherever_their_pool_stands() {
    for (program, place, load) in [
        (PROBE, "local", "idle"),
        (PROBE, "local", "sleep"),
        (PROBE, "local", "spin"),
        (PROBE, "local", "stubborn"),
        (PROBE, "static", "sleep"),
        (PROBE, "parallel", "sleep"),
        (PROBE, "process", "sleep"),
        (PROBE, "process", "stubborn"),
        (PROBE, "detached", "spin"),
        (PROBE, "thread", "idle"),
        (PROBE, "thread", "sleep"),
        (PROBE_AT_MAIN, "thread", "idle"),
        (PROBE_AT_MAIN, "thread", "spin"),
    ] {
        let running = staying(program, place, load, "return");
        kill(pid(&running), Signal::SIGKILL).unwrap();
        let ended = running.end(SOON);
        assert_eq!(ended.signal(), Some(libc::SIGKILL), "{place} {load}");
        assert_eq!(ended.stderr, "", "{place} {load}");
    }
}

#[test]
fn children_of_tasks_of_idle_workers_end_with_the_program() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for method in ["spawn", "forkserver"] {
            for transport in ["memory", "socket"] {
                for end in ["killed", "return", "exit", "panic"] {
                    let mut command = probe(program, &["stay", "static", "left", end]);
                    command.env("PROCESSION_START_METHOD", method).env("PROCESSION_TRANSPORT", transport);
                    let mut running = Running::start(&mut command);
                    running.expect(&["up", "up", "ready", "child up", "child up"]);
                    if end == "killed" {
                        kill(pid(&running), Signal::SIGKILL).unwrap();
                    } else {
                        running.go_on();
                    }
                    let ended = running.end(PATIENCE);
                    let which = format!("{program} {method} {transport} {end}: {ended:?}");
                    assert_eq!(ended.signal() == Some(libc::SIGKILL), end == "killed", "{which}");
                    assert_eq!(ended.stderr.is_empty(), end != "panic", "{which}");
                }
            }
        }
    }
}

#[test]
fn main_that_returns_while_tasks_run_ends_everything_quickly_and_quietly() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for (place, load) in [
            ("local", "sleep"),
            ("local", "stubborn"),
            ("static", "idle"),
            ("static", "spin"),
            ("static", "stubborn"),
            ("thread", "spin"),
            ("parallel", "sleep"),
            ("process", "stubborn"),
            ("detached", "sleep"),
        ] {
            let mut running = staying(program, place, load, "return");
            running.go_on();
            let ended = running.end(SOON);
            assert_eq!(ended.quietly(), "", "{place} {load}");
        }
    }
}

#[test]
fn exit_in_the_middle_of_tasks_ends_everything_quickly_and_quietly() {
    for (place, load) in [
        ("local", "idle"),
        ("local", "sleep"),
        ("static", "spin"),
        ("parallel", "sleep"),
        ("process", "sleep"),
        ("detached", "stubborn"),
    ] {
        let mut running = staying(PROBE, place, load, "exit");
        running.go_on();
        assert_eq!(running.end(SOON).quietly(), "", "{place} {load}");
    }
}

#[test]
fn a_panic_in_main_ends_everything_quickly_and_is_all_there_is_to_read() {
    for (place, load) in [("local", "sleep"), ("static", "spin"), ("parallel", "sleep")] {
        let mut running = staying(PROBE, place, load, "panic");
        running.go_on();
        let ended = running.end(SOON);
        assert_eq!(ended.status.code(), Some(101));
        let lines = ended.stderr.lines().filter(|line| !line.is_empty()).count();
        assert!(ended.stderr.contains("as it was told") && lines == 3, "{place} {load}: {}", ended.stderr);
    }
}

#[test]
fn a_dropped_pool_or_process_leaves_no_process_though_its_parent_lives_on() {
    for (place, load) in [
        ("local", "idle"),
        ("local", "sleep"),
        ("local", "spin"),
        ("local", "stubborn"),
        ("process", "sleep"),
        ("process", "stubborn"),
    ] {
        let mut running = staying(PROBE, place, load, "drop");
        running.go_on();
        running.expect(&["dropped"]);
        running.alone(SOON);
        running.go_on();
        assert_eq!(running.end(SOON).quietly(), "");
    }
}

#[test]
fn a_worker_that_was_stopped_when_its_parent_was_killed_ends_once_it_is_continued() {
    let running = staying(PROBE, "local", "sleep", "return");
    let workers: Vec<u32> =
        running.processes().into_iter().filter(|&pid| pid != running.child.id()).collect();
    let signal = |signal| {
        for worker in &workers {
            // If no other process of its session is left to continue it, the kernel has done so already.
            let _ = kill(Pid::from_raw(worker.cast_signed()), signal);
        }
    };
    signal(Signal::SIGSTOP);
    kill(pid(&running), Signal::SIGKILL).unwrap();
    running.parent_ends(SOON);
    signal(Signal::SIGCONT);
    running.end(SOON);
}

/// The time from the end of a program to the end of all that came of it and held its stdout.
fn linger(running: Running) -> (Duration, Ended) {
    running.parent_ends(PATIENCE);
    let start = Instant::now();
    let ended = running.end(PATIENCE);
    (start.elapsed(), ended)
}

/// The time in which a program that does nothing starts and ends.
fn ordinary_run() -> Duration {
    let start = Instant::now();
    assert!(Command::new("true").status().unwrap().success());
    start.elapsed()
}

#[test]
fn a_worker_that_starts_as_its_host_ends_exits_immediately_at_every_step() {
    for (program, method) in
        [(PROBE, "spawn"), (PROBE_AT_MAIN, "spawn"), (PROBE, "forkserver"), (PROBE, "fork")]
    {
        let mut ordinary = Vec::new();
        let mut times: Vec<Duration> = (0..40)
            .map(|run| {
                ordinary.push(ordinary_run());
                let micros = (run * 200).to_string();
                let mut command = probe(program, &["leave", &micros]);
                let (time, ended) = linger(Running::start(command.env("PROCESSION_START_METHOD", method)));
                assert_eq!(ended.quietly(), "", "{method} after {micros} µs");
                assert!(time < Duration::from_secs(1), "{method} after {micros} µs: it took {time:?}");
                time
            })
            .collect();
        times.sort_unstable();
        ordinary.sort_unstable();
        // A loaded machine takes its time, also with a program that does nothing.
        let most = Duration::from_millis(50) + 4 * ordinary[ordinary.len() / 2];
        assert!(times[times.len() / 2] < most, "{method}, at most {most:?}: {times:?}");
    }
}

#[test]
fn a_worker_that_is_stuck_as_its_host_ends_exits_immediately() {
    for step in ["initializer", "preload", "debugger", "result"] {
        let mut command = probe(PROBE, &["stuck", step]);
        if step == "debugger" {
            command.env("PROCESSION_WAIT_FOR_DEBUGGER", "1");
        }
        let mut running = Running::start(&mut command);
        match step {
            "debugger" => running.expect_error("waits for a debugger"),
            _ => running.expect(&["up"]),
        }
        if step == "result" {
            let state = waitpid(pid(&running), Some(WaitPidFlag::WUNTRACED)).unwrap();
            assert!(matches!(state, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{state:?}");
            until_asleep(running.processes().into_iter().filter(|&other| other != running.child.id()));
        }
        kill(pid(&running), Signal::SIGKILL).unwrap();
        let (time, _) = linger(running);
        assert!(time < Duration::from_secs(1), "{step}: it took {time:?}");
    }
}

/// Waits until no thread of these processes has run for a while.
fn until_asleep(processes: impl Iterator<Item = u32>) {
    let deadline = Instant::now() + PATIENCE;
    for process in processes {
        let runs = || std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap();
        let (read, _write) = std::io::pipe().unwrap();
        let mut before = String::new();
        while before != runs() {
            assert!(Instant::now() < deadline, "{process} does not sleep");
            before = runs();
            // Waits for nothing to happen.
            assert!(!is_readable_by(&read, Instant::now() + Duration::from_millis(50)));
        }
    }
}

#[test]
fn output_of_a_worker_is_flushed_when_it_exits() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let ended = Running::start(&mut probe(program, &["flush"])).end(PATIENCE);
        assert_eq!(ended.quietly(), "a line without an end");
        let ended = Running::start(&mut probe(program, &["process", "flush"])).end(PATIENCE);
        assert_eq!(ended.quietly(), "a line without an end, and last words");
    }
}

#[test]
fn a_parent_that_is_stopped_for_longer_than_a_timeout_and_continued_has_lost_nothing() {
    let mut running = Running::start(&mut probe(PROBE, &["stop"]));
    let status = waitpid(pid(&running), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(status, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{status:?}");
    // Waits for nothing to happen while the start timeout of half a second passes.
    let (read, _write) = std::io::pipe().unwrap();
    assert!(!is_readable_by(&read, Instant::now() + Duration::from_millis(700)));
    kill(pid(&running), Signal::SIGCONT).unwrap();
    running.expect(&["the worker is still the first"]);
    assert_eq!(running.end(PATIENCE).quietly(), "");
}

/// Runs a scene on a terminal of its own, in the foreground; gives the terminal's other end and the child.
fn on_a_terminal(command: &mut Command) -> (File, std::process::Child) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let terminal = |()| Stdio::from(pty.slave.try_clone().unwrap());
    command.stdin(terminal(())).stdout(terminal(())).stderr(terminal(()));
    let take_terminal = || {
        nix::unistd::setsid()?;
        // A shell that runs the tests in the background has them ignore what a terminal's Ctrl-C sends.
        // SAFETY: the default action is no function of ours.
        unsafe { nix::sys::signal::signal(Signal::SIGINT, nix::sys::signal::SigHandler::SigDfl) }?;
        // SAFETY: TIOCSCTTY takes a number and touches no memory of ours; descriptor 0 is the terminal by then.
        match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes three system calls that are allowed there, and allocates nothing.
    unsafe { command.pre_exec(take_terminal) };
    let child = command.spawn().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (File::from(pty.master), child)
}

/// Reads from the terminal until `end` returns true, or every process has closed it.
fn read_terminal(terminal: &mut File, deadline: Instant, end: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    while !end(&text) {
        await_readable(terminal, deadline, &text);
        let mut piece = [0; 1024];
        match terminal.read(&mut piece) {
            // Linux says EIO when the last process has closed its end.
            Ok(0) | Err(_) => return text,
            Ok(n) => text.push_str(&String::from_utf8_lossy(&piece[..n])),
        }
    }
    text
}

#[test]
fn ctrl_c_in_a_terminal_ends_everything_within_a_second_without_reports_of_crashes() {
    for (program, place, load) in [
        (PROBE, "local", "idle"),
        (PROBE, "local", "sleep"),
        (PROBE, "local", "stubborn"),
        (PROBE, "parallel", "spin"),
        (PROBE, "process", "sleep"),
        (PROBE_AT_MAIN, "static", "sleep"),
    ] {
        let (mut terminal, mut child) = on_a_terminal(&mut probe(program, &["stay", place, load, "return"]));
        let ups = if load == "stubborn" { 4 } else { 2 };
        let is_up = |text: &str| text.matches("up\r\n").count() == ups && text.contains("ready");
        let said = read_terminal(&mut terminal, Instant::now() + PATIENCE, is_up);
        assert!(is_up(&said), "{said}");
        terminal.write_all(b"\x03").unwrap();
        let said = read_terminal(&mut terminal, Instant::now() + Duration::from_secs(1), |_| false);
        assert_eq!(said, "^C", "{place} {load}");
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGINT),
            "{place} {load}"
        );
    }
}

#[test]
fn a_template_and_its_workers_end_with_their_program_however_that_ends() {
    for (program, method, load) in [
        (PROBE, "forkserver", "idle"),
        (PROBE, "forkserver", "spin"),
        (PROBE, "forkserver", "stubborn"),
        (PROBE_AT_MAIN, "forkserver", "sleep"),
        (PROBE, "fork", "idle"),
        (PROBE, "fork", "sleep"),
    ] {
        for end in ["kill", "return", "exit", "panic", "drop"] {
            let mut running = Running::start(
                probe(program, &["stay", "local", load, end]).env("PROCESSION_START_METHOD", method),
            );
            let mut lines = vec!["up", "up", "ready"];
            if load == "stubborn" {
                lines.extend(["child up", "child up"]);
            }
            running.expect(&lines);
            // The program, its template, two workers.
            assert!(running.processes().len() >= 4, "{method} {load} {end}");
            match end {
                "kill" => kill(pid(&running), Signal::SIGKILL).unwrap(),
                "drop" => {
                    running.go_on();
                    running.expect(&["dropped"]);
                    running.alone(SOON);
                    running.go_on();
                }
                _ => running.go_on(),
            }
            let ended = running.end(SOON);
            let is_quiet = ended.stderr.is_empty() || end == "panic";
            assert!(is_quiet && ended.stdout.is_empty(), "{method} {load} {end}: {ended:?}");
        }
    }
}

#[test]
fn ctrl_c_in_a_terminal_ends_a_template_and_its_workers_without_reports_of_crashes() {
    for (method, load) in [("forkserver", "idle"), ("forkserver", "sleep"), ("fork", "spin")] {
        let mut command = probe(PROBE, &["stay", "local", load, "return"]);
        let (mut terminal, mut child) = on_a_terminal(command.env("PROCESSION_START_METHOD", method));
        let is_up = |text: &str| text.matches("up\r\n").count() == 2 && text.contains("ready");
        let said = read_terminal(&mut terminal, Instant::now() + PATIENCE, is_up);
        assert!(is_up(&said), "{said}");
        terminal.write_all(b"\x03").unwrap();
        let said = read_terminal(&mut terminal, Instant::now() + Duration::from_secs(1), |_| false);
        assert_eq!(said, "^C", "{method} {load}");
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGINT),
            "{method} {load}"
        );
    }
}

/// Waits until of all that came of a program only a copy of it lives, and returns the copy.
///
/// The copy stays in the process group of the program. Workers and templates have groups of their own.
fn await_copy_alone(running: &Running, what: &str) -> Pid {
    let deadline = Instant::now() + PATIENCE;
    let is_copy = |pid: &u32| getpgid(Some(Pid::from_raw(pid.cast_signed()))) == Ok(getpgrp());
    loop {
        let (copies, others): (Vec<u32>, Vec<u32>) = running.processes().into_iter().partition(is_copy);
        let Some(other) = others.first() else {
            assert_eq!(copies.len(), 1, "the copy alone: {what}");
            return Pid::from_raw(copies[0].cast_signed());
        };
        if let Some(held) = hold(*other) {
            await_readable(&held, deadline, &format!("{other} of {others:?}: {what}"));
        }
    }
}

#[test]
fn workers_end_with_their_program_though_a_copy_of_it_lives() {
    for method in ["spawn", "forkserver", "fork"] {
        for transport in ["memory", "socket"] {
            for (load, end) in [("idle", "killed"), ("sleep", "killed"), ("left", "exit")] {
                let mut command = probe(PROBE, &["copied", load]);
                command.env("PROCESSION_START_METHOD", method).env("PROCESSION_TRANSPORT", transport);
                let mut running = Running::start(&mut command);
                let children: &[&str] = if load == "left" { &["child up", "child up"] } else { &[] };
                running.expect(&[&["up", "up", "up", "ready"], children].concat());
                assert!(running.processes().len() > 3, "{method} {transport} {load}");
                running.go_on();
                running.expect(&["copied"]);
                if end == "killed" {
                    kill(pid(&running), Signal::SIGKILL).unwrap();
                } else {
                    running.go_on();
                }
                running.parent_ends(PATIENCE);
                let copy = await_copy_alone(&running, &format!("{method} {transport} {load}"));
                kill(copy, Signal::SIGKILL).unwrap();
                assert_eq!(running.end(PATIENCE).stderr, "", "{method} {transport} {load}");
            }
        }
    }
}

#[test]
fn workers_that_start_as_their_program_ends_end_too_though_a_copy_of_it_lives() {
    for method in ["spawn", "forkserver"] {
        for micros in ["0", "300", "1000", "2000", "4000", "8000"] {
            let mut command = probe(PROBE, &["copied at", micros]);
            let running = Running::start(command.env("PROCESSION_START_METHOD", method));
            running.parent_ends(PATIENCE);
            await_copy_alone(&running, &format!("{method} {micros}"));
        }
    }
}

#[test]
fn a_daemon_that_forks_after_it_has_used_its_pool_uses_it_with_workers_of_its_own() {
    for method in ["spawn", "forkserver", "fork"] {
        let mut command = probe(PROBE, &["daemon"]);
        let ended = Running::start(command.env("PROCESSION_START_METHOD", method)).end(PATIENCE);
        // A crash of a task is part of both, which would have ended the daemon if the task had run there.
        let expected = "the squares' sum is 328350\nin the daemon, the squares' sum is 328350\nin its processes, 81\n\
                        by parallel!, [1, 4, 9]\n";
        assert_eq!(ended.quietly(), expected, "{method}");
    }
}
