//! A program that may not signal its workers ends them by closing their connections, and ends itself even if they do not end.

use std::process::Command;

use crate::program::{PATIENCE, PROBE, Running, probe};

const SAID: &str =
    "timed out: true\nanother runs: 8\nthe process was killed: true\nit has no result: true\ndropped: true\n";

fn unsignalled(method: &str, how: &str, transport: &str) -> Command {
    let mut command = probe(PROBE, &["unsignalled", method, how]);
    command.env("PROCESSION_TRANSPORT", transport).env_remove("PROCESSION_START_METHOD");
    command
}

#[test]
fn workers_that_cannot_be_signalled_end_with_their_connection() {
    for (method, transport) in [
        ("spawn", "memory"),
        ("forkserver", "memory"),
        ("fork", "memory"),
        ("spawn", "socket"),
        ("forkserver", "socket"),
    ] {
        let ended = Running::start(&mut unsignalled(method, "busy", transport)).end(PATIENCE);
        assert_eq!(ended.quietly(), SAID, "{method} {transport}");
    }
}

#[test]
fn a_program_whose_workers_cannot_be_ended_ends_and_reports_them_once() {
    for method in ["spawn", "forkserver"] {
        // Once the program has ended, the kernel sends SIGHUP and SIGCONT to stopped processes in orphaned groups, which ends them.
        let ended = Running::start(&mut unsignalled(method, "stopped", "memory")).end(PATIENCE);
        assert!(ended.status.success(), "{method}: {ended:?}");
        assert_eq!(ended.stdout, SAID, "{method}: {}", ended.stderr);
        let reports = ended.stderr.matches("could not be ended").count();
        assert_eq!(reports, 1, "{method}: {}", ended.stderr);
        assert!(ended.stderr.contains("pidfd_send_signal"), "{method}: {}", ended.stderr);
    }
}
