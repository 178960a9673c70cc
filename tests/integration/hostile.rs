//! Functions and loggers that misbehave. The pool continues to work, and other tasks are not affected.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use log::{LevelFilter, Log, Metadata, Record};
use nix::sys::signal::{Signal, raise};
use procession::{Pool, delayed, is_worker, worker};
use serde::{Deserialize, Serialize};

use crate::{
    alone::{alone, alone_with_warm_pool},
    event::{block_on, is_there, take_time, until},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn say(n: u64) -> u64 {
    log::info!("{n}");
    n
}

#[worker]
fn scribble_on_low_descriptors() -> usize {
    let mut written = 0;
    for fd in 3..20 {
        if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}")) {
            written += file.write(b"garbage, garbage, garbage, garbage").unwrap_or(0);
        }
        let _ = nix::unistd::close(fd);
    }
    written
}

#[test]
fn a_pool_runs_tasks_after_one_that_writes_to_and_closes_low_descriptors() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(scribble_on_low_descriptors())).join().unwrap();
        assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
    });
}

#[worker]
#[expect(clippy::zombie_processes, reason = "a worker that leaves a process behind is what is tested")]
fn start_something_that_stays() -> u32 {
    let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    child.id()
}

#[test]
fn the_children_of_a_worker_end_with_an_idle_pool() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let child = pool.submit(delayed!(start_something_that_stays())).join().unwrap();
        assert!(is_there(child));
        drop(pool);
        until("the worker's own child has ended", || !is_there(child));
    });
}

#[worker]
fn raise_real_time_signal() {
    let _ = Command::new("kill").args(["-s", "40", &std::process::id().to_string()]).status();
    take_time(Duration::from_secs(60));
}

#[test]
fn a_real_time_signal_is_reported_by_its_number() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(raise_real_time_signal())).join().unwrap_err();
        assert_eq!(error.exit().and_then(|exit| exit.signal()), Some(40), "{error}");
    });
}

#[worker]
fn stop_as_the_terminal_would() -> u32 {
    raise(Signal::SIGTTOU).unwrap();
    std::process::id()
}

#[test]
fn a_worker_that_prints_in_the_background_of_its_terminal_is_not_stopped() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        assert!(pool.submit(delayed!(stop_as_the_terminal_would())).join().is_ok());
    });
}

/// Decodes in a worker and panics in the parent.
#[derive(Debug, Serialize)]
struct Brittle(u64);

impl<'de> Deserialize<'de> for Brittle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = u64::deserialize(deserializer)?;
        assert!(is_worker() || n != 2, "brittle");
        Ok(Self(n))
    }
}

#[worker]
fn brittle(n: u64) -> Brittle {
    Brittle(n)
}

#[test]
fn a_result_that_panics_as_it_is_decoded_fails_its_task_alone() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let results: Vec<_> = pool.imap((0..4).map(|n| delayed!(brittle(n)))).collect();
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(Brittle(value)) => assert_eq!(value, n),
                Err(error) => assert!(n == 2 && error.is_codec(), "{error}"),
            }
        }
    });
}

/// The action of this process's logger on each record.
static ON_RECORD: OnceLock<fn()> = OnceLock::new();

struct Busy;

impl Log for Busy {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &Record<'_>) {
        if let Some(on_record) = ON_RECORD.get() {
            on_record();
        }
    }

    fn flush(&self) {}
}

/// From now on. Pools are built before: a worker that is a copy of a process that has a logger keeps it.
fn on_each_record(act: fn()) {
    ON_RECORD.set(act).unwrap();
    log::set_logger(&Busy).unwrap();
    log::set_max_level(LevelFilter::Info);
}

#[test]
fn results_behind_the_record_of_a_slow_logger_are_not_forgotten() {
    alone(|| {
        let pool = Pool::builder().jobs(2).chunk_size(2).build().unwrap();
        on_each_record(|| take_time(Duration::from_millis(3)));
        for round in 0..100 {
            let handles: Vec<_> = (0..4)
                .map(|n| pool.submit(if n == 2 { delayed!(echo(n)) } else { delayed!(say(n)) }))
                .collect();
            for (n, handle) in (0..).zip(handles) {
                assert_eq!(handle.join().unwrap(), n, "round {round}");
            }
            let tasks = (0..4).map(|n| if n == 2 { delayed!(echo(n)) } else { delayed!(say(n)) });
            assert_eq!(pool.map(tasks).unwrap(), [0, 1, 2, 3]);
        }
    });
}

#[test]
fn a_logger_that_panics_costs_no_result() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        on_each_record(|| panic!("this logger always panics"));
        for n in 0..3 {
            assert_eq!(block_on(pool.submit(delayed!(say(n)))).unwrap(), n);
            assert_eq!(pool.submit(delayed!(say(n))).join().unwrap(), n);
        }
    });
}

#[test]
fn a_logger_may_use_the_pool_whose_records_it_is_given() {
    static POOL: OnceLock<Pool> = OnceLock::new();
    alone_with_warm_pool(|| {
        let pool = POOL.get_or_init(|| Pool::new(2).unwrap());
        on_each_record(|| {
            let pool = POOL.get().unwrap();
            assert_eq!(pool.submit(delayed!(echo(5))).join().unwrap(), 5);
        });
        for n in 0..20 {
            assert_eq!(pool.submit(delayed!(say(n))).join().unwrap(), n);
            assert_eq!(block_on(pool.submit(delayed!(say(n)))).unwrap(), n);
        }
    });
}
