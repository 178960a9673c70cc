//! Other code of the host collects a worker, or the kernel does, and its number is given to another process before the pool has seen
//! the end of it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{self, Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{self, SigHandler, Signal},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use procession::{Pool, Process, StartMethod, delayed, worker};

/// The process that has the number of the last worker.
static OTHER: Mutex<Option<process::Child>> = Mutex::new(None);

/// Says its number and ends.
#[worker]
fn say_and_end() {
    log::info!("{}", process::id());
    process::abort();
}

/// Whoever drives the pool calls this, and sees the worker's end no sooner than it has returned.
struct Stall;

impl log::Log for Stall {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let number = record.args().to_string().parse().unwrap();
        let pid = Pid::from_raw(number);
        while signal::kill(pid, None) != Err(Errno::ESRCH) {
            thread::yield_now();
        }
        *OTHER.lock().unwrap() = Some(namesake(number));
    }

    fn flush(&self) {}
}

fn namesake(number: i32) -> process::Child {
    for _ in 0..1000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let mut other = Command::new("cat");
        let mut other = other.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        if other.id().cast_signed() == number {
            return other;
        }
        let _ = (other.kill(), other.wait());
    }
    panic!("the number {number} is not given away again");
}

/// Asserts that the other process has got no signal: it would not come to its next line.
fn assert_other_lives() {
    let mut other = OTHER.lock().unwrap().take().unwrap();
    other.stdin.as_mut().unwrap().write_all(b"still here\n").unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "still here\n", "process {} was killed, which is not the pool's", other.id());
    let _ = (other.kill(), other.wait());
}

pub(super) fn play(how: &str) {
    match how {
        // SAFETY: to ignore a signal installs no handler.
        "ignored" => drop(unsafe { signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap()),
        "waited" => drop(thread::spawn(|| {
            loop {
                if waitid(Id::All, WaitPidFlag::WEXITED).is_err() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
        })),
        other => panic!("nobody collects in the manner of {other:?}"),
    }
    log::set_logger(&Stall).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let pool = Pool::builder().jobs(1).start_method(method).build().unwrap();
        println!("{method}: {}", pool.submit(delayed!(say_and_end())).join().unwrap_err());
        assert_other_lives();
        drop(pool);
        let mut process =
            Process::builder().name("p").start_method(method).spawn(delayed!(say_and_end())).unwrap();
        println!("{method}: {}", process.join().unwrap_err());
        process.kill().unwrap();
        process.terminate().unwrap();
        drop(process);
        assert_other_lives();
    }
}
