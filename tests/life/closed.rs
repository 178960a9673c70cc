//! A host that closes every descriptor from 3 upwards, as daemons do: its pools and processes come to an error that says so, and whatever
//! gets the numbers stays as it is.

use std::time::Duration;

use crate::program::{PROBE, Running, probe};

/// What hangs takes longer.
const WITHIN: Duration = Duration::from_secs(30);

fn check(call: &str, when: &str) {
    for then in ["free", "reused"] {
        for method in ["spawn", "forkserver"] {
            for transport in ["memory", "socket"] {
                let mut command = probe(PROBE, &["closed", call, when, then]);
                command.env("PROCESSION_START_METHOD", method).env("PROCESSION_TRANSPORT", transport);
                let ended = Running::start(&mut command).end(WITHIN);
                let which = format!("{call} {when} {then} {method} {transport}: {ended:?}");
                assert!(ended.status.success() && ended.stderr.is_empty(), "{which}");
                let lines: Vec<&str> = ended.stdout.lines().collect();
                let (errors, after) = lines.split_at(lines.len() - 3);
                assert_eq!(after, ["Ok([1, 4, 9])", "Ok([1, 4, 9])", "Ok(25)"], "{which}");
                assert_eq!(errors.len(), if call == "process" { 1 } else { 2 }, "{which}");
                for error in errors {
                    assert!(
                        error.contains("were closed by other code in this process (`closefrom`"),
                        "{which}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_map_fails_when_the_descriptors_of_its_idle_pool_were_closed() {
    check("map", "before");
}

#[test]
fn a_map_fails_when_descriptors_are_closed_while_it_runs() {
    check("map", "running");
}

#[test]
fn a_join_fails_when_descriptors_were_closed() {
    check("submit", "before");
    check("submit", "running");
}

#[test]
fn an_imap_fails_when_descriptors_were_closed() {
    check("imap", "before");
    check("imap", "running");
}

#[test]
fn a_future_fails_when_descriptors_were_closed() {
    check("future", "before");
    check("future", "running");
}

#[test]
fn a_process_fails_when_its_descriptors_were_closed() {
    check("process", "before");
    check("process", "running");
}
