//! Numbers of processes are given away again: no process but a worker gets a signal that was meant for one.

use std::process::Command;

use crate::program::{PATIENCE, PROBE, Running};

/// A command that runs another as the first process of a PID namespace; `None` where that is not allowed.
pub(crate) fn in_namespace() -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    let tried = unshare().args(["test", "-w", "/proc/sys/kernel/ns_last_pid"]).output();
    tried.is_ok_and(|output| output.status.success()).then(unshare)
}

fn check(how: &str) {
    let Some(mut command) = in_namespace() else {
        return println!(
            "not run: `numbers::{how}`: no PID namespace in which numbers can be chosen may be made"
        );
    };
    let ended = Running::start(command.args([PROBE, "collected", how])).end(PATIENCE);
    assert!(ended.status.success(), "{ended:?}");
    println!("{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 4, "{ended:?}");
    for line in ended.stdout.lines() {
        // Ended processes are reaped without their status, or by the thread that is quicker.
        let collected = line.contains(
            ") disappeared: other code in this process collected its exit status (SIGCHLD is ignored, or",
        );
        assert!(collected || line.ends_with("killed by SIGABRT"), "{line}");
        assert!(collected || how == "waited" || line.starts_with("forkserver"), "{line}");
    }
}

#[test]
fn a_process_that_has_the_number_of_a_worker_lives_where_the_host_ignores_sigchld() {
    check("ignored");
}

#[test]
fn a_process_that_has_the_number_of_a_worker_lives_where_other_code_waits_for_any_child() {
    check("waited");
}
