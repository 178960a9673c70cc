//! Pools and processes of a program that loses the right to send signals, such as one that enters a sandbox after its start.

use std::time::Duration;

use nix::{libc, sys::signal};
use procession::{Pool, Process, StartMethod, TaskError, delayed, parallel, worker};

#[worker]
fn double(n: u64) -> u64 {
    n * 2
}

/// Runs forever in the manner of `how`. A stopped process does not even end with its connection.
#[worker]
fn stay(how: &str) {
    if how == "stopped" {
        signal::raise(signal::Signal::SIGSTOP).unwrap();
    }
    loop {
        std::thread::park();
    }
}

/// Has tasks run for too long, a process killed, and a pool dropped whose worker is busy.
pub(crate) fn play(method: &str, how: &str) {
    let method = match method {
        "forkserver" => StartMethod::ForkServer,
        "fork" => StartMethod::Fork,
        _ => StartMethod::Spawn,
    };
    let pool = Pool::builder().jobs(2).start_method(method).build().unwrap();
    assert_eq!(pool.map((0..8).map(|n| delayed!(double(n)))).unwrap().iter().sum::<u64>(), 56);
    let mut process = Process::spawn(delayed!(stay(how))).unwrap();
    super::refuse(libc::SYS_pidfd_send_signal, None);

    let late = parallel!(pool = &pool, timeout = Duration::from_millis(100); stay(how) for _ in 0..1);
    println!("timed out: {}", late.unwrap_err().as_task_error().is_some_and(TaskError::is_timeout));
    println!("another runs: {}", pool.submit(delayed!(double(4))).join().unwrap());
    println!("the process was killed: {}", process.kill().is_ok());
    println!("it has no result: {}", process.join().is_err());
    let handle = pool.submit(delayed!(stay(how)));
    drop(pool);
    println!("dropped: {}", handle.join().unwrap_err().is_cancelled());
}
