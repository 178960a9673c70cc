//! Where the system refuses what shared memory needs, a pool talks to its workers over sockets, and says why.

use crate::program::{PATIENCE, PROBE, Running, probe};

/// What the scene prints besides its logger's words. The task that ends its process is told apart from those that were ready behind it
/// only where a page can be shared.
fn check(refused: &str, why: Option<&str>, blame: &str) {
    for method in ["spawn", "forkserver"] {
        if refused == "memfd" && method == "forkserver" {
            // What a template is to do comes to it in a memfd.
            continue;
        }
        let mut command = probe(PROBE, &["without", refused]);
        command.env("PROCESSION_START_METHOD", method).env_remove("PROCESSION_TRANSPORT");
        let ended = Running::start(&mut command).end(PATIENCE);
        let mut expected = String::new();
        if let Some(why) = why {
            expected += &format!("logged: workers are talked to over sockets, not shared memory: {why}\n");
        }
        expected += &format!(
            "the squares' sum is 2664667000\nfailed: 1\ntask 20: {blame}\n3145728\nforked: 328350\na task was told\ntimed out: true, 9\n"
        );
        assert_eq!(ended.stdout, expected, "{method}: {}", ended.stderr);
        assert!(ended.status.success(), "{method}: {}", ended.stderr);
    }
}

#[test]
fn a_pool_works_over_sockets_and_without_a_board_where_memfd_is_refused() {
    let why = "memory cannot be shared: Operation not permitted (os error 1)";
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
fn nothing_is_said_where_nothing_is_refused() {
    check("nothing", None, "crash true, lost false");
}
