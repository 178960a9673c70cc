//! Help for debugging: workers wait for a debugger if they are asked to.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use procession::{Pool, delayed, worker};

use crate::alone::alone_with_warm_pool;

const WAIT: &str = "PROCESSION_WAIT_FOR_DEBUGGER";

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[test]
fn a_worker_waits_for_a_debugger_however_long_that_takes_and_goes_on_by_itself() {
    alone_with_warm_pool(|| {
        if std::env::var_os(WAIT).is_some() {
            // The start timeout does not count for those who wait for a person.
            let pool = Pool::builder().jobs(1).start_timeout(Duration::from_millis(1)).build().unwrap();
            println!("result {}", pool.submit(delayed!(pid())).join().unwrap());
            return;
        }
        let test = "debugging::a_worker_waits_for_a_debugger_however_long_that_takes_and_goes_on_by_itself";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(WAIT, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let words = stderr.find(|line| line.contains("waits for a debugger")).unwrap();
        assert!(words.starts_with("procession: worker 0 (pid "), "{words}");
        let pid: i32 = words.rsplit_once("gdb -p ").unwrap().1.parse().unwrap();
        let worker = Pid::from_raw(pid);
        if ptrace::seize(worker, ptrace::Options::empty()) == Err(Errno::EPERM) {
            println!("no process may be traced here: that a worker goes on is not tested");
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        let result = stdout.find_map(|line| Some(line.split_once("result ")?.1.to_owned()));
        assert_eq!(result.unwrap(), pid.to_string());
        // Until it is released, only this process can reap it.
        let _ = ptrace::interrupt(worker);
        // It may have ended since: then this has collected it.
        if !matches!(waitpid(worker, Some(WaitPidFlag::__WALL)), Ok(WaitStatus::Exited(..))) {
            let _ = ptrace::detach(worker, None);
        }
        // A process that still writes needs a reader.
        let rest = stdout.chain(stderr).collect::<Vec<_>>();
        assert!(child.wait().unwrap().success(), "{rest:?}");
    });
}
