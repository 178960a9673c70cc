//! The table of causes: for every way in which a start or a task can end, what its error says and what it is.
//!
//! Limits of the system are in `limits`, `missing` and `refused`, the errors of a process that cannot become a worker in `way_in`, and
//! statuses that other code has collected in `death`.

use std::{fs, path::Path, process::Command};

use crate::program::{PATIENCE, PROBE, PROBE_AT_MAIN, Running, probe, unique};

/// The owner of the worker: a pool, a process, or either.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Pool,
    Process,
    Either,
}
use By::{Either, Pool, Process};

/// The ways in which it is started: by Spawn, by ForkServer, by either that forks, or by any.
const SPAWN: &[&str] = &["spawn"];
const SERVER: &[&str] = &["forkserver"];
const FORKED: &[&str] = &["forkserver", "fork"];
const ALL: &[&str] = &["spawn", "forkserver", "fork"];

/// A row: the owner, the methods, what ends and how, the kind of the error, the number of attempts, and the message.
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

/// The ways in which a start can end.
const STARTS: &[Row] = &[
    (
        Pool,
        SPAWN,
        "constructor",
        "exit",
        "lost, begun 0",
        &["no worker could be started: worker 0", "ended with exit code 42 while starting"],
    ),
    (Pool, SPAWN, "constructor", "abort", "lost, begun 0", &["ended with SIGABRT while starting"]),
    (Pool, SPAWN, "constructor", "panic", "lost, begun 0", &["ended with SIGABRT while starting"]),
    (Pool, SPAWN, "constructor", "hang", "lost, begun 0", &["did not complete the handshake in time"]),
    (
        Process,
        SPAWN,
        "constructor",
        "exit",
        "lost, begun 0",
        &["could not be started: it ended with exit code 42 while starting"],
    ),
    (Process, SPAWN, "constructor", "abort", "crash, begun 0", &["killed while starting (SIGABRT)"]),
    (Process, SPAWN, "constructor", "hang", "lost, begun 0", &["did not complete the handshake in time"]),
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
        &["its connection failed", "RLIMIT_NOFILE (`ulimit -n`) is 4", "gave up after ", " attempts in 3"],
    ),
    (
        Pool,
        SPAWN,
        "constructor",
        "space",
        "lost, begun 0",
        &["the memory that it shares cannot be mapped", "RLIMIT_AS", "gave up after ", " attempts in 3"],
    ),
    // A lack of resources is not recognised by the exit status, which other code collects.
    (
        Pool,
        SPAWN,
        "uncollected constructor",
        "files",
        "lost, begun 0",
        &["RLIMIT_NOFILE (`ulimit -n`) is 4", "gave up after ", " attempts in 3"],
    ),
    (Process, SPAWN, "constructor", "files", "lost, begun 0", &["RLIMIT_NOFILE (`ulimit -n`) is 4"]),
    (Pool, SERVER, "constructor", "files", "lost, begun 0", &["RLIMIT_NOFILE (`ulimit -n`) is 4"]),
    (Process, SERVER, "constructor", "files", "not spawned", &["RLIMIT_NOFILE (`ulimit -n`) is 4"]),
    (
        Pool,
        SPAWN,
        "constructor",
        "other build",
        "lost, begun 0",
        &["the host is build", "this worker", "replaced?"],
    ),
    (Process, SPAWN, "constructor", "other build", "lost, begun 0", &["the host is build", "replaced?"]),
    (
        Pool,
        SERVER,
        "constructor",
        "other build",
        "lost, begun 0",
        &["the host is build", "the template", "replaced?"],
    ),
    (
        Process,
        SERVER,
        "constructor",
        "other build",
        "not spawned",
        &["the host is build", "the template", "replaced?"],
    ),
    (Pool, ALL, "folder", "", "lost, begun 0", &["procession-causes-", "No such file or directory"]),
    (Process, ALL, "folder", "", "not spawned", &["/nowhere/at/all"]),
    (Pool, ALL, "initializer", "error", "lost, begun 0", &["the initializer `", "out of corn"]),
    (
        Pool,
        ALL,
        "initializer",
        "panic",
        "lost and panic, begun 0",
        &["the initializer `", "panicked", "as it was told"],
    ),
    (
        Pool,
        ALL,
        "initializer",
        "exit",
        "lost and crash, begun 0",
        &["the initializer `", "crashed", "exit code 7"],
    ),
    (
        Pool,
        ALL,
        "initializer",
        "abort",
        "lost and crash, begun 0",
        &["the initializer `", "crashed", "SIGABRT"],
    ),
    (
        Pool,
        ALL,
        "initializer",
        "SIGKILL",
        "lost and crash, begun 0",
        &["the initializer `", "crashed", "SIGKILL"],
    ),
    (
        Pool,
        ALL,
        "initializer",
        "overflow",
        "lost and crash, begun 0",
        &["the initializer `", "stack overflow"],
    ),
    (
        Pool,
        ALL,
        "initializer",
        "memory",
        "lost and memory, begun 0",
        &["the initializer `", "ran out of memory"],
    ),
    (Pool, ALL, "initializer", "connection", "lost and crash, begun 0", &["the initializer `", "connection"]),
    (
        Pool,
        ALL,
        "initializer",
        "descriptors",
        "lost and crash, begun 0",
        &["the initializer `", "descriptors that procession uses were closed in its process"],
    ),
    (
        Pool,
        FORKED,
        "preload",
        "descriptors",
        "lost, begun 0",
        &["the preload `", "descriptors that procession uses were closed in its process"],
    ),
    (Pool, FORKED, "preload", "error", "lost, begun 0", &["the preload `", "out of corn"]),
    (Pool, FORKED, "preload", "panic", "lost, begun 0", &["the preload `", "panicked", "as it was told"]),
    (Pool, FORKED, "preload", "exit", "lost, begun 0", &["the preload `", "ended with exit code 7"]),
    (Pool, FORKED, "preload", "abort", "lost, begun 0", &["the preload `", "ended with SIGABRT"]),
    (Pool, FORKED, "preload", "SIGKILL", "lost, begun 0", &["the preload `", "ended with SIGKILL"]),
    (Pool, FORKED, "preload", "overflow", "lost, begun 0", &["the preload `", "overflowed its stack"]),
    (Pool, FORKED, "preload", "memory", "lost, begun 0", &["the preload `", "ran out of memory"]),
    (Pool, FORKED, "preload", "wait", "lost, begun 0", &["the preload `", "not ready within 300ms"]),
    (Process, SPAWN, "host", "", "lost, begun 0", &["could not be started: it could not read its messages"]),
    (Process, SPAWN, "kill", "", "crash, begun ", &["SIGKILL"]),
];

#[test]
fn for_every_way_in_which_a_start_can_end_the_error_says_why() {
    check(STARTS);
}

/// The ways in which a task can end.
const TASKS: &[Row] = &[
    (Pool, SPAWN, "task", "argument", "codec, begun 0", &["`std::time::SystemTime` cannot be encoded"]),
    (Process, SPAWN, "task", "argument", "not spawned", &["`std::time::SystemTime` cannot be encoded"]),
    (Either, ALL, "task", "result", "codec, begun 1", &["`std::time::SystemTime` cannot be encoded"]),
    (
        Either,
        ALL,
        "task",
        "decode argument",
        "codec, begun 1",
        &[
            "`probe::scenes::causes::take_only` could not be transferred",
            "`_only`",
            "its Deserialize implementation failed",
        ],
    ),
    (
        Either,
        ALL,
        "task",
        "decode result",
        "codec, begun 1",
        &[
            "`probe::scenes::causes::give_only` could not be transferred",
            "the result",
            "its Deserialize implementation failed",
        ],
    ),
    (Either, ALL, "task", "scribble", "lost, begun 1", &["its messages cannot be read"]),
    (Either, ALL, "task", "panic", "panic, begun 1", &["panicked", "as it was told"]),
    (Either, ALL, "task", "exit", "crash, begun 1", &["exit code 7"]),
    (Either, ALL, "task", "exit 89", "crash, begun 1", &["the process exited with exit code 89"]),
    (Either, ALL, "task", "abort", "crash, begun 1", &["killed by SIGABRT"]),
    (Either, ALL, "task", "SIGKILL", "crash, begun 1", &["killed by SIGKILL"]),
    (Either, ALL, "task", "SIGSEGV", "crash, begun 1", &["killed by SIGSEGV"]),
    (Either, ALL, "task", "SIGTERM", "crash, begun 1", &["killed by SIGTERM"]),
    (Either, ALL, "task", "SIGXCPU", "crash, begun 1", &["killed by SIGXCPU"]),
    (Either, ALL, "task", "SIGXFSZ", "crash, begun 1", &["killed by SIGXFSZ"]),
    (Either, ALL, "task", "real-time", "crash, begun 1", &["killed by signal 40"]),
    (Either, ALL, "task", "overflow", "crash, begun 1", &["stack overflow (SIGABRT)"]),
    (Either, ALL, "task", "memory", "memory, begun 1", &["ran out of memory", "(SIGABRT)"]),
    (Either, ALL, "task", "connection", "crash, begun 1", &["closed its connection while it ran"]),
    (Either, ALL, "task", "nonsense", "lost, begun 1", &["killed: its messages cannot be read"]),
    (Pool, ALL, "timeout", "wait", "timeout, begun 1", &["timed out", "limit of 300ms"]),
    (Pool, ALL, "cancel", "", "cancelled, begun ", &["was cancelled"]),
    (Pool, ALL, "drop", "", "cancelled, begun ", &["its pool has ended"]),
];

#[test]
fn for_every_way_in_which_a_task_can_end_the_error_says_why() {
    check(TASKS);
}

#[test]
fn output_of_a_constructor_before_a_worker_has_connected_does_no_harm() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for method in ["spawn", "forkserver"] {
            for transport in ["memory", "socket"] {
                let mut command = probe(program, &["squares"]);
                command.env("PROBE_START", "print").env("PROCESSION_START_METHOD", method);
                let ended = Running::start(command.env("PROCESSION_TRANSPORT", transport)).end(PATIENCE);
                let case = format!("{program} {method} {transport}: {ended:?}");
                assert!(ended.status.success(), "{case}");
                assert!(ended.stdout.contains("a constructor says this\n"), "{case}");
                assert!(ended.stderr.contains("a constructor says that\n"), "{case}");
                assert!(ended.stdout.ends_with("the squares' sum is 328350\n"), "{case}");
            }
        }
    }
}

/// The command as the first in a PID namespace that its own children go to.
fn apart(script: &str) -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--pid");
        command
    };
    let is_possible = unshare().arg("true").output().is_ok_and(|output| output.status.success());
    is_possible.then(|| {
        let mut command = unshare();
        command.args(["sh", "-c", script, PROBE, "try"]);
        command
    })
}

#[test]
fn the_error_names_a_pid_namespace_without_room() {
    // The first process of the namespace has ended; or there has been none, and threads cannot be there.
    for (script, method, words) in [
        ("/bin/true; exec \"$0\" \"$@\"", "fork", "this process cannot be copied: Cannot allocate memory"),
        ("/bin/true; exec \"$0\" \"$@\"", "spawn", "a pool's thread cannot be started: Invalid argument"),
        ("exec \"$0\" \"$@\"", "spawn", "a pool's thread cannot be started: Invalid argument"),
    ] {
        let Some(mut command) = apart(script) else {
            return println!("not run: `causes::namespace`: no PID namespace may be made here");
        };
        let ended = Running::start(command.env("PROCESSION_START_METHOD", method)).end(PATIENCE);
        let said = ended.stdout.contains(words) && ended.stdout.contains("another PID namespace");
        assert!(said && ended.stdout.contains("`unshare --pid` without `--fork`"), "{method}: {ended:?}");
    }
}

#[test]
fn a_task_that_the_kernel_kills_for_lack_of_memory_fails_as_out_of_memory() {
    let folders = [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup/unified", "memory.max"),
        ("/sys/fs/cgroup", "memory.max"),
    ];
    let mut why = String::new();
    let made = folders.into_iter().find_map(|(root, limit)| {
        let group = Path::new(root).join(unique());
        let made = fs::create_dir(&group).and_then(|()| match group.join(limit).exists() {
            true => fs::write(group.join(limit), "128M"),
            false => Err(std::io::Error::other("it has no limit of memory")),
        });
        match made {
            Ok(()) => Some(group),
            Err(error) => {
                why += &format!("{}: {error}; ", group.display());
                let _ = fs::remove_dir(&group);
                None
            }
        }
    });
    let Some(group) = made else {
        assert!(!why.is_empty(), "what is not run has a reason");
        return println!("not run: `causes::group of memory`: no control group can be made here: {why}");
    };
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.display());
    for method in ALL {
        for holder in ["pool", "process"] {
            let mut command = Command::new("sh");
            command.args(["-c", &script, PROBE, "cause", holder, method, "task", "fill"]);
            command.env_remove("PROCESSION_START_METHOD");
            let ended = Running::start(&mut command).end(PATIENCE);
            let words = "the kernel killed its process because memory ran out (SIGKILL)";
            assert!(ended.stdout.starts_with("memory, begun 1"), "{method} {holder}: {ended:?}");
            assert!(ended.stdout.contains(words), "{method} {holder}: {ended:?}");
        }
    }
    fs::remove_dir(&group).unwrap();
}
