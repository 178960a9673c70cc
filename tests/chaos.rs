//! The chaos program, for a moment, so that it is known to work; `ci/chaos.sh` runs it for longer.

use std::process::Command;

fn check(method: &str, transport: &str, work: &str) {
    let seed = std::process::id().to_string();
    let args =
        ["--seed", &seed, "--seconds", "2", "--method", method, "--transport", transport, "--work", work];
    let output = Command::new(env!("CARGO_BIN_EXE_chaos")).args(args).output().expect("it can be run");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("outcomes: {") && stdout.contains("signals: {"), "{stdout}");
}

#[test]
fn spawned_workers_are_killed_at_random_and_nothing_is_lost() {
    check("spawn", "rings", "calls");
}

#[test]
fn workers_of_a_fork_server_are_killed_at_random_and_nothing_is_lost() {
    check("forkserver", "socket", "calls");
}

#[test]
fn copies_of_the_host_are_killed_at_random_and_nothing_is_lost() {
    check("fork", "rings", "calls");
}

#[test]
fn processes_that_share_channels_and_locks_are_killed_at_random_and_nothing_is_lost() {
    check("spawn", "rings", "state");
}
