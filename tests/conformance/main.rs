//! The promises of every launcher, checked with real processes by each start method, over shared memory and over sockets.
//!
//! The promises are in `program.rs`. `README.md` says what to write for a new launcher or transport.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

/// Runs the program, which keeps a promise or reports why not.
fn check(method: &str, transport: &str, promise: &str) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_conformance"));
    program.args([method, promise]).env("PROCESSION_TRANSPORT", transport);
    for variable in ["PROCESSION_START_METHOD", "PROCESSION_IN_PROCESS", "PROCESSION_JOBS"] {
        program.env_remove(variable);
    }
    let output = program.output().unwrap();
    assert!(
        output.status.success() && output.stdout.ends_with(b"kept\n"),
        "{method} over {transport}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs the suite for one launcher and transport.
macro_rules! conformance {
    ($($suite:ident: $method:literal over $transport:literal)*) => {
        $(mod $suite {
            super::conformance! {
                @ $method, $transport:
                a_worker_starts_within_the_timeout
                a_worker_that_does_not_start_reports_why
                a_worker_ends_when_its_connection_ends
                a_worker_that_was_killed_is_reported
                kill_and_terminate_end_a_process
                the_exit_status_is_reported
                output_is_delivered_completely
                memory_use_is_reported
                a_running_task_can_be_asked_to_end
                tasks_that_have_not_begun_survive_their_worker
                workers_end_with_their_host
            }
        })*
    };
    (@ $method:literal, $transport:literal: $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::check($method, $transport, stringify!($promise));
        })*
    };
}
use conformance;

conformance! {
    spawn_over_memory: "spawn" over "memory"
    spawn_over_sockets: "spawn" over "socket"
    fork_server_over_memory: "forkserver" over "memory"
    fork_server_over_sockets: "forkserver" over "socket"
    fork_over_memory: "fork" over "memory"
    fork_over_sockets: "fork" over "socket"
}
