//! Other code of the host collects a worker, or the kernel does, and its number is given to another process before the pool has seen
//! the end of it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{self, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{self, SigHandler, Signal},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Pid, getppid},
};
use procession::{Pool, Process, StartMethod, delayed, worker};

/// The process that has the number of the last worker.
static OTHER: Mutex<Option<process::Child>> = Mutex::new(None);

/// Prints its pid and its parent's, and ends.
#[worker]
fn say_and_end() {
    log::info!("{} {}", process::id(), getppid());
    process::abort();
}

/// The thread that drives the pool calls this, and sees the worker's end only after it has returned.
struct Stall;

impl log::Log for Stall {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let said = record.args().to_string();
        let (number, parent) = said.split_once(' ').unwrap();
        let [number, parent] = [number, parent].map(|number| Pid::from_raw(number.parse().unwrap()));
        while signal::kill(number, None) != Err(Errno::ESRCH) {
            thread::yield_now();
        }
        // A template forks its next worker ahead of time, and a worker starts threads. None of them may get the number.
        let others = if parent == Pid::this() { Vec::new() } else { stop_others() };
        *OTHER.lock().unwrap() = Some(namesake(number.as_raw()));
        for other in others {
            let _ = signal::kill(other, Signal::SIGCONT);
        }
    }

    fn flush(&self) {}
}

/// Stops all other processes of this PID namespace. Returns them.
fn stop_others() -> Vec<Pid> {
    let mut stopped = Vec::new();
    loop {
        let numbers = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let numbers = numbers.filter_map(|name| name.to_str()?.parse().ok()).map(Pid::from_raw);
        let new: Vec<_> = numbers.filter(|pid| *pid != Pid::this() && !stopped.contains(pid)).collect();
        if new.is_empty() {
            return stopped;
        }
        for pid in new {
            // It may have ended since.
            let _ = signal::kill(pid, Signal::SIGSTOP);
            while !is_still(pid) {
                thread::yield_now();
            }
            stopped.push(pid);
        }
    }
}

/// Returns whether a process is stopped or has ended.
fn is_still(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z', 'X']))
}

/// Starts a process with this number. No other process may be started meanwhile. The kernel frees a number shortly after signals no
/// longer find the process that had it.
fn namesake(number: i32) -> process::Child {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
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

/// Asserts that the other process has received no signal, which would have ended it before its next line.
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
        other => panic!("no way of collecting is called {other:?}"),
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
