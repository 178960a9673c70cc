//! A process that closes every descriptor from 3 upwards, as daemons do.
//!
//! If it is a host, its pools and processes return an error that says so. If it is a worker or a template, another one takes its place.
//! The files that get the numbers are not changed.

use std::time::Duration;

use crate::program::{PATIENCE, PROBE, Running, probe};

/// The time limit of a program. One that hangs takes longer.
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

#[test]
fn calls_fail_once_each_time_descriptors_are_closed_even_before_a_task_was_noticed() {
    for call in ["future", "process", "parallel"] {
        let ended = Running::start(&mut probe(PROBE, &["closed at once", call])).end(WITHIN);
        assert!(ended.status.success(), "{call}: {ended:?}");
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let is_told = |line: &&str| line.contains("were closed by other code in this process (`closefrom`");
        let errors = if call == "parallel" { 0 } else { 4 };
        assert!(lines.len() == errors && lines.iter().all(is_told), "{call}: {ended:?}");
    }
}

/// Plays a scene of a worker or template that loses its descriptors, in every way in which it can be started and spoken to, and passes
/// what it printed to `is_right`, with whether its answers need a descriptor.
fn check_closing(what: &str, methods: &[&str], is_right: impl Fn(&[&str], bool) -> bool) {
    let mut wrong = Vec::new();
    for then in ["free", "reused"] {
        for &method in methods {
            for transport in ["memory", "socket"] {
                let mut command = probe(PROBE, &["closing", what, method, then]);
                command.env_remove("PROCESSION_START_METHOD").env("PROCESSION_TRANSPORT", transport);
                let ended = Running::start(&mut command).end(PATIENCE);
                let lines: Vec<&str> = ended.stdout.lines().collect();
                if !ended.status.success() || !is_right(&lines, transport == "socket") {
                    wrong.push(format!("{what} {then} {method} {transport}: {ended:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const ALL: &[&str] = &["spawn", "forkserver", "fork"];

/// Returns whether an error says why, and what to do.
fn names_the_cause(error: &str) -> bool {
    error.contains("descriptors that procession uses") && error.contains("`closefrom`")
}

/// Returns whether `outcome` is the result, if it can be delivered, or an error that says why not. Over memory the host may see the end
/// of the connection before the result, if the worker did not wait for its host's end yet.
fn is_told(outcome: &str, result: &str, needs_one: bool) -> bool {
    (outcome == result && !needs_one) || (outcome.starts_with("Err") && names_the_cause(outcome))
}

#[test]
fn a_task_that_closes_descriptors_has_its_result_or_an_error_that_names_the_cause() {
    for what in ["first", "no memory"] {
        check_closing(
            what,
            ALL,
            |lines, needs_one| matches!(lines, [one] if is_told(one, "Ok(17)", needs_one)),
        );
    }
    // A worker that is at rest has everything in place.
    check_closing("later", ALL, |lines, needs_one| match lines {
        ["Ok(17)"] => !needs_one,
        [error] => needs_one && error.contains("close_all") && names_the_cause(error),
        _ => false,
    });
}

#[test]
fn a_worker_whose_descriptors_were_closed_takes_no_other_task_with_it() {
    check_closing("among", ALL, |lines, needs_one| match lines {
        [one] => one.strip_prefix("50 ").is_some_and(|one| is_told(one, "Ok(17)", needs_one)),
        _ => false,
    });
}

#[test]
fn a_panic_after_descriptors_were_closed_is_reported_or_the_error_says_why_not() {
    check_closing("panic", ALL, |lines, needs_one| match lines {
        [error] => (!needs_one && error.contains("panicked")) || names_the_cause(error),
        _ => false,
    });
}

#[test]
fn captured_output_of_a_task_that_closes_descriptors_goes_to_no_other_file() {
    check_closing("print", ALL, |lines, needs_one| match lines {
        [.., one] => is_told(one, "Ok(17)", needs_one),
        _ => false,
    });
}

#[test]
fn a_signal_after_descriptors_were_closed_is_not_taken_for_the_end_of_the_host() {
    check_closing("signal", ALL, |lines, needs_one| match lines {
        [one] => is_told(one, "Ok(17)", needs_one),
        _ => false,
    });
}

#[test]
fn an_initializer_that_closes_descriptors_is_named() {
    check_closing("initializer", ALL, |lines, _| match lines {
        [error] => error.contains("the initializer `") && names_the_cause(error),
        _ => false,
    });
}

#[test]
fn a_finalizer_that_closes_descriptors_has_its_result_or_an_error_that_names_the_cause() {
    check_closing("finalizer", ALL, |lines, needs_one| match lines {
        ["Ok([17])"] => !needs_one,
        [error] => needs_one && names_the_cause(error),
        _ => false,
    });
}

#[test]
fn a_preload_that_closes_descriptors_is_named() {
    check_closing("preload", &["forkserver", "fork"], |lines, _| match lines {
        [error] => error.contains("the preload `") && names_the_cause(error),
        _ => false,
    });
}

#[test]
fn a_process_whose_function_closes_descriptors_has_its_result_or_an_error_that_names_the_cause() {
    check_closing(
        "process",
        ALL,
        |lines, needs_one| matches!(lines, [one] if is_told(one, "Ok(17)", needs_one)),
    );
}

/// Plays a host that loses each of its descriptors in turn, whose number is then given to `then`.
fn check_one(then: &str) {
    for method in ["spawn", "forkserver"] {
        for transport in ["memory", "socket"] {
            let mut index = 0;
            loop {
                let mut command = probe(PROBE, &["closed one", then, &index.to_string()]);
                command.env("PROCESSION_START_METHOD", method).env("PROCESSION_TRANSPORT", transport);
                let ended = Running::start(&mut command).end(WITHIN);
                if ended.status.success() && ended.stdout == "no more\n" {
                    break;
                }
                let is_told = match ended.stdout.lines().collect::<Vec<_>>()[..] {
                    ["ended"] => true,
                    [error, "ended"] => {
                        error.contains("were closed by other code") || error.contains("crashed")
                    }
                    _ => false,
                };
                assert!(ended.status.success() && is_told, "{then} {method} {transport} {index}: {ended:?}");
                index += 1;
            }
            assert!(index >= 8, "a pool of two workers has more descriptors than {index}");
        }
    }
}

#[test]
fn a_host_that_loses_any_one_of_its_descriptors_neither_hangs_nor_spins() {
    check_one("free");
}

#[test]
fn a_file_of_the_host_that_gets_the_number_of_a_lost_descriptor_stays_open() {
    check_one("pipe");
    check_one("null");
}
