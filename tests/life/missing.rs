//! If something is missing that workers need, the error names it immediately.

use std::{path::Path, process::Command};

use crate::program::{PATIENCE, PROBE, Running};

/// Returns what a program prints that tries to start a worker.
fn said(command: &mut Command) -> String {
    let ended = Running::start(command.env_remove("PROCESSION_START_METHOD")).end(PATIENCE);
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout
}

#[track_caller]
fn check(command: &mut Command, words: &[&str]) {
    let said = said(command);
    println!("{said}");
    for words in words {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    assert!(!said.contains("gave up after"), "nothing would have come of another attempt: {said}");
}

fn refused(call: &str) -> Command {
    let mut command = Command::new(PROBE);
    command.args(["refused", call]);
    command
}

/// The probe in a mount namespace of its own, in which something else is mounted there.
fn hidden(folder: &str) -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none \"$0\" && exec \"$@\"", folder]);
        command
    };
    let is_possible = unshare().arg("true").output().is_ok_and(|output| output.status.success());
    is_possible.then(|| {
        let mut command = unshare();
        command.args([PROBE, "try"]);
        command
    })
}

#[test]
fn a_pool_whose_workers_cannot_be_held_names_pidfd_open() {
    check(
        &mut refused("pidfd_open"),
        &["pidfd_open: Operation not permitted", "Linux 5.4", "seccomp", "PROCESSION_IN_PROCESS=1"],
    );
    check(&mut refused("pidfd_send_signal"), &["pidfd_send_signal: Operation not permitted", "seccomp"]);
}

#[test]
fn a_pool_whose_workers_cannot_lead_a_group_names_setpgid() {
    check(
        &mut refused("setpgid"),
        &["no worker could be started", "setpgid: Operation not permitted", "seccomp"],
    );
}

#[test]
fn a_pool_without_dev_null_names_it() {
    match hidden("/dev") {
        Some(mut command) => {
            check(&mut command, &["no worker could be started: /dev/null", "No such file or directory"])
        }
        None => println!("not run: `missing::/dev/null`: nothing may be mounted here"),
    }
}

#[test]
fn a_pool_without_proc_names_it() {
    match hidden("/proc") {
        Some(mut command) => check(&mut command, &["/proc is not mounted", "Pool::in_process()"]),
        None => println!("not run: `missing::/proc`: nothing may be mounted here"),
    }
}

#[test]
fn a_program_that_another_loader_has_started_gets_an_error_that_names_it() {
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let Some(loader) = loaders.into_iter().find(|loader| Path::new(loader).exists()) else {
        return println!("not run: `missing::loader`: there is none of {loaders:?}");
    };
    check(
        Command::new(loader).args([PROBE, "try"]),
        &["was started through", "ld-linux", "execute ", "probe itself"],
    );
}

#[test]
fn a_program_under_a_valgrind_without_pidfd_open_gets_an_error_that_names_it_and_works_in_process() {
    let valgrind = || {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=none", PROBE, "try"]);
        command
    };
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return println!("not run: `missing::valgrind`: valgrind is not installed");
    }
    let said = said(&mut valgrind());
    println!("{said}");
    let is_told =
        said.contains("valgrind") && said.contains("pidfd_open") && said.contains("PROCESSION_IN_PROCESS=1");
    assert!(is_told || said == "9\n", "{said}");
    assert_eq!(self::said(valgrind().env("PROCESSION_IN_PROCESS", "1")), "9\n");
}
