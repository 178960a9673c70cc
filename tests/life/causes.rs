//! The table of causes: for every way in which a start or a task can end, what its error says and what it is.
//!
//! Limits of the system are in `limits`, `missing` and `refused`, what a process is told that cannot become a worker in `way_in`, and
//! statuses that other code has collected in `death`.

use crate::program::{PATIENCE, PROBE, Running, probe};

/// Who has it: a pool, a process, or either.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Pool,
    Process,
    Either,
}
use By::{Either, Pool, Process};

/// How it is started: by Spawn, by ForkServer, or by either.
const SPAWN: &[&str] = &["spawn"];
const SERVER: &[&str] = &["forkserver"];
const BOTH: &[&str] = &["spawn", "forkserver"];

/// A row: who, by which methods, what ends and how, what the error is and how often the task was begun, and what it says.
type Row = (By, &'static [&'static str], &'static str, &'static str, &'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    let mut wrong = Vec::new();
    for &(by, methods, what, how, is, words) in rows {
        for &method in methods {
            for (holder, other) in [("pool", Process), ("process", Pool)] {
                if by == other {
                    continue;
                }
                let mut command = probe(PROBE, &["cause", holder, method, what, how]);
                command.env_remove("PROCESSION_START_METHOD");
                match what {
                    "host" => command.env("PROCESSION_TRANSPORT", "socket"),
                    _ => command.env_remove("PROCESSION_TRANSPORT"),
                };
                let ended = Running::start(&mut command).end(PATIENCE);
                let said = ended.stdout.trim_end();
                println!("{holder} {method} {what} {how}: {said}");
                let is_so = said.starts_with(is) && words.iter().all(|words| said.contains(words));
                if !is_so || !ended.status.success() {
                    wrong.push(format!("{holder} {method} {what} {how}: {is} {words:?}\n  {ended:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn for_every_way_in_which_a_start_can_end_the_error_says_why() {
    check(&[
        (
            Pool,
            SPAWN,
            "constructor",
            "exit",
            "lost, begun 0",
            &["no worker could be started: worker 0", "ended with exit code 42 as it started"],
        ),
        (Pool, SPAWN, "constructor", "abort", "lost, begun 0", &["ended with SIGABRT as it started"]),
        (Pool, SPAWN, "constructor", "panic", "lost, begun 0", &["ended with SIGABRT as it started"]),
        (Pool, SPAWN, "constructor", "hang", "lost, begun 0", &["did not shake hands in time"]),
        (
            Process,
            SPAWN,
            "constructor",
            "exit",
            "lost, begun 0",
            &["could not be started: it ended with exit code 42 as it started"],
        ),
        (Process, SPAWN, "constructor", "abort", "crash, begun 0", &["killed as it started (SIGABRT)"]),
        (Process, SPAWN, "constructor", "hang", "lost, begun 0", &["did not shake hands in time"]),
        (
            Pool,
            SERVER,
            "constructor",
            "exit",
            "lost, begun 0",
            &["the template that workers are forked from ended with exit code 42"],
        ),
        (
            Pool,
            SERVER,
            "constructor",
            "abort",
            "lost, begun 0",
            &["the template that workers are forked from ended with SIGABRT"],
        ),
        (Pool, SERVER, "constructor", "hang", "lost, begun 0", &["its template was not ready within 300ms"]),
        (
            Process,
            SERVER,
            "constructor",
            "exit",
            "not spawned",
            &["`p`", "the template that workers are forked from ended with exit code 42"],
        ),
        (Process, SERVER, "constructor", "abort", "not spawned", &["`p`", "ended with SIGABRT"]),
        (
            Process,
            SERVER,
            "constructor",
            "hang",
            "not spawned",
            &["`p`", "its template was not ready within 300ms"],
        ),
        (
            Pool,
            SPAWN,
            "constructor",
            "files",
            "lost, begun 0",
            &[
                "its connection failed",
                "RLIMIT_NOFILE (`ulimit -n`) is 4",
                "given up after ",
                " attempts in 3",
            ],
        ),
        (
            Pool,
            SPAWN,
            "constructor",
            "space",
            "lost, begun 0",
            &["the memory that it shares cannot be mapped", "RLIMIT_AS", "given up after ", " attempts in 3"],
        ),
        // The exit status, which other code collects, is not what tells that the system is short of something.
        (
            Pool,
            SPAWN,
            "uncollected constructor",
            "files",
            "lost, begun 0",
            &["RLIMIT_NOFILE (`ulimit -n`) is 4", "given up after ", " attempts in 3"],
        ),
        (Process, SPAWN, "constructor", "files", "lost, begun 0", &["RLIMIT_NOFILE (`ulimit -n`) is 4"]),
        (Pool, SERVER, "constructor", "files", "lost, begun 0", &["RLIMIT_NOFILE (`ulimit -n`) is 4"]),
        (Process, SERVER, "constructor", "files", "not spawned", &["RLIMIT_NOFILE (`ulimit -n`) is 4"]),
        (Pool, BOTH, "folder", "", "lost, begun 0", &["procession-causes-", "No such file or directory"]),
        (Process, BOTH, "folder", "", "not spawned", &["/nowhere/at/all"]),
        (Pool, BOTH, "initializer", "error", "lost, begun 0", &["the initializer `", "out of corn"]),
        (
            Pool,
            BOTH,
            "initializer",
            "panic",
            "lost and panic, begun 0",
            &["the initializer `", "panicked", "as it was told"],
        ),
        (
            Pool,
            BOTH,
            "initializer",
            "exit",
            "lost and crash, begun 0",
            &["the initializer `", "crashed", "exit code 7"],
        ),
        (
            Pool,
            BOTH,
            "initializer",
            "abort",
            "lost and crash, begun 0",
            &["the initializer `", "crashed", "SIGABRT"],
        ),
        (
            Pool,
            BOTH,
            "initializer",
            "SIGKILL",
            "lost and crash, begun 0",
            &["the initializer `", "crashed", "SIGKILL"],
        ),
        (
            Pool,
            BOTH,
            "initializer",
            "overflow",
            "lost and crash, begun 0",
            &["the initializer `", "stack overflow"],
        ),
        (
            Pool,
            BOTH,
            "initializer",
            "memory",
            "lost and memory, begun 0",
            &["the initializer `", "ran out of memory"],
        ),
        (
            Pool,
            BOTH,
            "initializer",
            "connection",
            "lost and crash, begun 0",
            &["the initializer `", "connection"],
        ),
        (Pool, SERVER, "preload", "error", "lost, begun 0", &["the preload `", "out of corn"]),
        (Pool, SERVER, "preload", "panic", "lost, begun 0", &["the preload `", "panicked", "as it was told"]),
        (Pool, SERVER, "preload", "exit", "lost, begun 0", &["runs the preload, ended with exit code 7"]),
        (Pool, SERVER, "preload", "abort", "lost, begun 0", &["runs the preload, ended with SIGABRT"]),
        (Pool, SERVER, "preload", "SIGKILL", "lost, begun 0", &["runs the preload, ended with SIGKILL"]),
        (Pool, SERVER, "preload", "overflow", "lost, begun 0", &["the preload `", "overflowed its stack"]),
        (Pool, SERVER, "preload", "memory", "lost, begun 0", &["the preload `", "ran out of memory"]),
        (Pool, SERVER, "preload", "wait", "lost, begun 0", &["its template was not ready within 300ms"]),
        (
            Process,
            SPAWN,
            "host",
            "",
            "lost, begun 0",
            &["could not be started: it could not read what it was sent"],
        ),
        (Process, SPAWN, "kill", "", "crash, begun ", &["SIGKILL"]),
    ]);
}

#[test]
fn for_every_way_in_which_a_task_can_end_the_error_says_why() {
    check(&[
        (Pool, SPAWN, "task", "argument", "codec, begun 0", &["`std::time::SystemTime` cannot be encoded"]),
        (Process, SPAWN, "task", "argument", "not spawned", &["`std::time::SystemTime` cannot be encoded"]),
        (Either, BOTH, "task", "result", "codec, begun 1", &["`std::time::SystemTime` cannot be encoded"]),
        (Either, BOTH, "task", "panic", "panic, begun 1", &["panicked", "as it was told"]),
        (Either, BOTH, "task", "exit", "crash, begun 1", &["exit code 7"]),
        (Either, BOTH, "task", "exit 89", "crash, begun 1", &["the process left with exit code 89"]),
        (Either, BOTH, "task", "abort", "crash, begun 1", &["killed by SIGABRT"]),
        (Either, BOTH, "task", "SIGKILL", "crash, begun 1", &["killed by SIGKILL"]),
        (Either, BOTH, "task", "SIGSEGV", "crash, begun 1", &["killed by SIGSEGV"]),
        (Either, BOTH, "task", "SIGTERM", "crash, begun 1", &["killed by SIGTERM"]),
        (Either, BOTH, "task", "SIGXCPU", "crash, begun 1", &["killed by SIGXCPU"]),
        (Either, BOTH, "task", "SIGXFSZ", "crash, begun 1", &["killed by SIGXFSZ"]),
        (Either, BOTH, "task", "real-time", "crash, begun 1", &["killed by signal 40"]),
        (Either, BOTH, "task", "overflow", "crash, begun 1", &["stack overflow (SIGABRT)"]),
        (Either, BOTH, "task", "memory", "memory, begun 1", &["ran out of memory", "(SIGABRT)"]),
        (
            Either,
            BOTH,
            "task",
            "connection",
            "crash, begun 1",
            &["connection to this one ended while it ran"],
        ),
        (Either, BOTH, "task", "nonsense", "lost, begun 1", &["killed: what it sent cannot be read"]),
        (Pool, BOTH, "timeout", "wait", "timeout, begun 1", &["timed out", "limit of 300ms"]),
        (Pool, BOTH, "cancel", "", "cancelled, begun ", &["was cancelled"]),
        (Pool, BOTH, "drop", "", "cancelled, begun ", &["its pool has ended"]),
    ]);
}
