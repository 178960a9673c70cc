//! If the system refuses what shared memory needs, a pool talks to its workers over sockets, and logs why. If memory is short, tasks
//! fail as out of memory.

use crate::program::{PATIENCE, PROBE, PROBE_AT_MAIN, Running, probe};

/// Checks what the scene prints besides its log records. The task that ends its process can be distinguished from those queued behind it
/// only where a page can be shared.
fn check(refused: &str, why: Option<&str>, blame: &str) {
    for method in ["spawn", "forkserver"] {
        let mut command = probe(PROBE, &["without", refused]);
        command.env("PROCESSION_START_METHOD", method).env_remove("PROCESSION_TRANSPORT");
        let ended = Running::start(&mut command).end(PATIENCE);
        let mut expected = String::new();
        if let Some(why) = why {
            expected +=
                &format!("logged: workers are connected by sockets instead of shared memory: {why}\n");
        }
        expected += &format!(
            "the squares' sum is 2664667000\nfailed: 1\ntask 20: {blame}\n3145728\nforked: 328350\na task was \
             told\ntimed out: true, 9\n"
        );
        assert_eq!(ended.stdout, expected, "{method}: {}", ended.stderr);
        assert!(ended.status.success(), "{method}: {}", ended.stderr);
    }
}

#[test]
fn a_pool_works_over_sockets_and_without_a_board_where_memfd_is_refused() {
    let why = "memory cannot be shared: memfd_create: Operation not permitted (os error 1)";
    check("memfd", Some(why), "crash false, lost true");
}

#[test]
fn a_pool_works_over_sockets_where_futexes_between_processes_are_refused() {
    check("futex", Some("futexes may not be used here"), "crash true, lost false");
}

#[test]
fn a_task_may_fork_where_the_kernel_does_not_wipe_a_page_in_copies() {
    check("madvise", None, "crash true, lost false");
}

#[test]
fn nothing_is_logged_if_nothing_is_refused() {
    check("nothing", None, "crash true, lost false");
}

/// A pool works under a limit of the shell that the kernel reports by a signal.
#[test]
fn a_pool_works_over_sockets_where_files_may_not_be_as_large_as_its_memory() {
    for (limit, blame) in [("100", "crash true, lost false"), ("0", "crash false, lost true")] {
        for method in ["spawn", "forkserver", "fork"] {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &format!("ulimit -f {limit}; exec \"$0\" without nothing"), PROBE]);
            command.env("PROCESSION_START_METHOD", method).env_remove("PROCESSION_TRANSPORT");
            let ended = Running::start(&mut command).end(PATIENCE);
            let why = "memory cannot be shared: the file size limit is too low (ulimit -f)";
            let logged =
                format!("logged: workers are connected by sockets instead of shared memory: {why}\n");
            assert!(ended.stdout.starts_with(&logged), "{limit} {method}: {ended:?}");
            assert!(ended.stdout.contains(&format!("task 20: {blame}\n")), "{limit} {method}: {ended:?}");
            assert!(ended.stdout.ends_with("timed out: true, 9\n"), "{limit} {method}: {ended:?}");
            assert!(ended.status.success() && ended.stderr.is_empty(), "{limit} {method}: {ended:?}");
        }
    }
}

/// Under each limit of the shell a pool works, or its error says what is missing. Nothing hangs, and no process is killed.
#[test]
fn under_each_limit_a_pool_works_or_reports_what_is_missing() {
    for (limit, words) in [
        ("-n 24", None),
        ("-s 128", None),
        ("-s unlimited", None),
        ("-c 0", None),
        ("-d 5000", Some("no thread to serve on")),
    ] {
        for method in ["spawn", "forkserver"] {
            if words.is_some() && method == "forkserver" {
                // A worker that is forked serves on the thread that it has.
                continue;
            }
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &format!("ulimit {limit}; exec \"$0\" sum"), PROBE]);
            let ended = Running::start(command.env("PROCESSION_START_METHOD", method)).end(PATIENCE);
            match words {
                None => assert_eq!(ended.quietly(), "285\n", "{limit} {method}"),
                Some(words) => {
                    assert!(ended.stdout.contains(words), "{limit} {method}: {ended:?}");
                    assert_eq!(ended.stderr, "", "{limit} {method}: the host was told");
                }
            }
        }
    }
}

#[test]
fn a_task_that_uses_up_its_processor_time_fails_with_that_cause() {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -S -t 1; exec \"$0\" spin", PROBE]);
    let ended = Running::start(&mut command).end(PATIENCE);
    assert!(ended.stdout.contains("SIGXCPU"), "{ended:?}");
}

/// A task that needs more memory than a limit of the shell allows, however it needs it, runs out of memory, by name, and soon. `may_do`:
/// it depends on the build whether there is enough.
fn check_short_of_memory(program: &str, limit: &str, what: &str, may_do: bool) {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\" short {what}"), program]);
    let ended = Running::start(&mut command).end(PATIENCE);
    let (said, rest) = ended.stdout.split_once('\n').unwrap_or_default();
    if may_do && said == "out of memory: false, soon: true" {
        assert!(rest.contains("panicked") && rest.contains("as it was told"), "{limit} {what}: {ended:?}");
    } else {
        assert_eq!(said, "out of memory: true, soon: true", "{limit} {what}: {ended:?}");
        assert!(rest.contains("ran out of memory"), "{limit} {what}: {ended:?}");
    }
    assert!(ended.status.success(), "{limit} {what}: {ended:?}");
}

#[test]
fn a_panic_whose_backtrace_runs_out_of_memory_fails_as_out_of_memory_and_does_not_hang() {
    for (limit, may_do) in [("-d 10000", false), ("-d 15000", true), ("-v 60000", true), ("-v 80000", true)] {
        for (program, what) in [(PROBE, "panic"), (PROBE, "thread"), (PROBE_AT_MAIN, "thread")] {
            check_short_of_memory(program, limit, what, may_do);
        }
    }
}

#[test]
fn a_task_that_runs_out_of_memory_under_a_limit_of_the_shell_fails_as_out_of_memory() {
    for limit in ["-v 80000", "-d 15000"] {
        check_short_of_memory(PROBE, limit, "fill", false);
    }
}

/// In a process that has entered `main`, std gives each thread a small stack for signals.
#[test]
fn a_process_that_a_thread_of_a_task_ends_is_reported_with_its_cause_at_both_entries() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for (what, start, end) in [
            ("abort", "out of memory: false; ", "killed by SIGABRT"),
            ("allocation", "out of memory: true; ", "ran out of memory"),
            ("look", "it lives", ""),
        ] {
            let ended = Running::start(&mut probe(program, &["thread", what])).end(PATIENCE);
            assert!(
                ended.stdout.starts_with(start) && ended.stdout.contains(end),
                "{program} {what}: {ended:?}"
            );
        }
    }
}

/// To resolve a backtrace takes tens of MiB.
#[test]
fn the_first_panic_of_a_worker_takes_little_memory_where_no_backtrace_is_requested() {
    const MOST_BYTES: u64 = 10 << 20;
    for program in [PROBE, PROBE_AT_MAIN] {
        for method in ["spawn", "forkserver", "fork"] {
            let mut command = probe(program, &["first panic"]);
            command.env("PROCESSION_START_METHOD", method).env_remove("RUST_LIB_BACKTRACE");
            let said = Running::start(&mut command).end(PATIENCE).quietly();
            let (bytes, is_empty) = said.trim_end().split_once(' ').unwrap();
            println!("{program} {method}: {bytes} bytes");
            assert!(bytes.parse::<u64>().unwrap() < MOST_BYTES, "{program} {method}: {said}");
            assert_eq!(is_empty, "true", "{program} {method}: {said}");
        }
    }
}
