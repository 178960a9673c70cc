//! Scenes in which a program is ended from outside while its workers are busy.

use std::{
    fs::{self},
    process::{self, Command},
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{libc, sys::signal, unistd};
use procession::{Pool, Process, delayed, parallel, worker};

use super::{count_bytes, square, whoami};

pub(super) fn start_failing_process(how: &str) {
    let builder =
        Process::builder().name("late").env("PROBE_START", how).start_timeout(Duration::from_millis(300));
    let error = builder.spawn(delayed!(square(1))).unwrap().join().unwrap_err();
    println!("{} {} {error}", error.is_lost(), error.attempts());
}

pub(super) fn start_failing(how: &str) {
    let pool = Pool::builder()
        .jobs(2)
        .env("PROBE_START", how)
        .start_timeout(Duration::from_millis(300))
        .max_restarts(4, Duration::from_secs(30))
        .build()
        .unwrap();
    let start = Instant::now();
    let error = pool.map((0..10).map(|n| delayed!(square(n)))).unwrap_err();
    println!("{error}");
    // The pool stays as it is: nothing is tried again.
    assert_eq!(
        pool.submit(delayed!(square(1))).join().unwrap_err().is_lost(),
        error.as_task_error().unwrap().is_lost()
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Is stopped while a worker starts, for longer than a worker may take to start.
pub(super) fn stop() {
    let pool = Pool::builder().jobs(1).start_timeout(Duration::from_millis(500)).build().unwrap();
    let first = pool.submit(delayed!(whoami()));
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", unistd::gettid())).unwrap();
    signal::raise(signal::Signal::SIGSTOP).unwrap();
    let second = pool.submit(delayed!(whoami()));
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!(first, second);
    assert_eq!(
        children.trim(),
        first.to_string(),
        "the worker that was started at first is the one that serves"
    );
    println!("the worker is still the first");
}

/// Ends, and runs nothing of what programs run at their end, so long after it has asked for four workers.
pub(super) fn leave_while_workers_start(micros: u64) {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let end = Instant::now() + Duration::from_micros(micros);
    let pool = POOL.get_or_init(|| Pool::new(4).unwrap());
    let handles: Vec<_> = (0..4).map(|_| pool.submit(delayed!(whoami()))).collect();
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    drop(handles);
    // SAFETY: _exit ends the process and runs nothing of it.
    unsafe { libc::_exit(0) }
}

/// Reports that it runs, and never returns.
#[worker]
fn say_and_stay() {
    println!("up");
    loop {
        std::thread::park();
    }
}

/// Reports that it runs, and returns more than fits into the ring.
#[worker]
fn say_and_give() -> Vec<u8> {
    println!("up");
    vec![1; 64 << 20]
}

/// Stops itself once a worker is stuck in this step of its life.
pub(super) fn wait_for_a_stuck(step: &str) {
    let builder = Pool::builder().jobs(1);
    let builder = match step {
        "initializer" => builder.initializer(delayed!(say_and_stay())),
        "preload" => {
            builder.start_method(procession::StartMethod::ForkServer).preload(delayed!(say_and_stay()))
        }
        _ => builder,
    };
    let pool = builder.build().unwrap();
    let handle = match step {
        "result" => pool.submit(delayed!(count_bytes(Vec::new()))),
        _ => pool.submit(delayed!(say_and_give())),
    };
    if step == "result" {
        handle.join().unwrap();
        drop(pool.submit(delayed!(say_and_give())));
        // No process reads what it sends.
        signal::raise(signal::Signal::SIGSTOP).unwrap();
    }
    loop {
        std::thread::park();
    }
}

/// Reports that it runs, and stays busy in the manner of `load`.
#[worker]
pub(super) fn stay(load: &str) {
    let child = ["stubborn", "left"].contains(&load).then(|| {
        // SAFETY: to ignore a signal installs no handler.
        unsafe { signal::signal(signal::Signal::SIGTERM, signal::SigHandler::SigIgn) }.unwrap();
        Command::new(std::env::current_exe().unwrap()).arg("child").spawn().unwrap()
    });
    println!("up");
    match load {
        "idle" | "left" => {}
        "sleep" => loop {
            std::thread::park();
        },
        "spin" => loop {
            std::hint::spin_loop();
        },
        "stubborn" => drop(child.unwrap().wait()),
        other => panic!("no load {other:?}"),
    }
}

/// Keeps two workers under load, in a pool that is owned at `place`. Then does what `end` says for each line on stdin.
pub(super) fn stay_there(place: &str, load: &str, end: &str) {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let load = load.to_owned();
    let begin = {
        let load = load.clone();
        move || {
            let pool = Pool::new(2).unwrap();
            occupy(&pool, &load);
            pool
        }
    };
    let (mut local, mut processes) = (None, Vec::new());
    let spawn = || Process::spawn(delayed!(stay(&load))).unwrap();
    match place {
        "process" => processes.extend([spawn(), spawn()]),
        "detached" => [spawn(), spawn()].into_iter().for_each(Process::detach),
        "local" => local = Some(begin()),
        "static" => assert!(POOL.set(begin()).is_ok()),
        "thread" => local = Some(std::thread::spawn(begin).join().unwrap()),
        "parallel" => {
            std::thread::spawn(move || parallel!(jobs = 2; stay(&load) for _ in 0..2));
        }
        other => panic!("no place {other:?}"),
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match end {
        "return" => {}
        "exit" => process::exit(0),
        "panic" => panic!("as it was told"),
        "drop" => {
            drop((local.take(), std::mem::take(&mut processes)));
            println!("dropped");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        other => panic!("no end {other:?}"),
    }
}

/// Gives every worker of the pool its load.
pub(super) fn occupy(pool: &Pool, load: &str) {
    if ["idle", "left"].contains(&load) {
        pool.broadcast(delayed!(stay(load))).unwrap();
    } else {
        for _ in 0..2 {
            drop(pool.submit(delayed!(stay(load))));
        }
    }
}
