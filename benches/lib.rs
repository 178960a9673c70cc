//! The common parts of the measurements: medians, figures from `/proc`, and the bare ping-pong and start that they are compared with.
//!
//! A measured program starts itself again for the bare comparisons; [`act_as_bare_child`] is the first thing in its `main`.

use std::{
    hint::black_box,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use procession::{Pool, delayed, worker};

mod bare_ring;

pub use bare_ring::bare_map;

/// The variable that says which bare child a process is to be.
const ROLE: &str = "BENCH_BARE_CHILD";

/// Returns whether every measurement is to be made once, and small, as a test (`cargo bench -- --test`).
#[must_use]
pub fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Returns whether a measurement is asked for: its name has the word after `--`, or there is none.
#[must_use]
pub fn is_wanted(name: &str) -> bool {
    std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
        .is_none_or(|word| name.contains(&word))
}

/// The rounds of [`spin`] that take about this many nanoseconds, without other work on the machine.
#[must_use]
pub fn rounds_of(nanos: f64) -> u64 {
    const MANY: u64 = 1_000_000;
    let best = (0..20).map(|_| {
        let start = own_cpu();
        black_box(spin(black_box(MANY)));
        own_cpu() - start
    });
    (nanos / best.min().unwrap_or_default().as_nanos() as f64 * MANY as f64) as u64
}

/// Computes for a time that is proportional to the rounds.
#[worker]
#[must_use]
pub fn spin(rounds: u64) -> u64 {
    (0..rounds).fold(1u64, |x, n| black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n)))
}

/// The process that runs it.
#[worker]
#[must_use]
pub fn pid() -> u32 {
    std::process::id()
}

/// A no-op.
#[worker]
#[must_use]
pub fn add_one(n: u64) -> u64 {
    n + 1
}

/// Leaves its pool without its worker.
#[worker]
#[expect(clippy::exit, reason = "that the process ends is what it is for")]
pub fn leave() {
    std::process::exit(0);
}

/// Returns how long it takes from no pool to the first result.
///
/// # Panics
///
/// The pool cannot be built, or its result is wrong.
#[must_use]
pub fn first_result() -> Duration {
    let start = Instant::now();
    let pool = Pool::new(1).expect("a pool");
    let first = pool.submit(delayed!(add_one(1))).join();
    let took = start.elapsed();
    assert_eq!(first.ok(), Some(2));
    took
}

/// The median of some measurements.
///
/// # Panics
///
/// There are none.
#[must_use]
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs `measure` this many times.
pub fn repeat(times: usize, mut measure: impl FnMut() -> Duration) -> Vec<Duration> {
    (0..times).map(|_| measure()).collect()
}

/// Returns how long one run takes.
pub fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// A process's resident memory in KiB: all of it, and what is its own.
///
/// # Panics
///
/// The process is gone, or `/proc` is missing.
#[must_use]
pub fn resident_kib(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux names it");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("it is a number")
    };
    (field("VmRSS:"), field("RssAnon:") + field("RssShmem:"))
}

/// The CPU time of a process so far, with that of its threads.
///
/// # Panics
///
/// The process is gone.
#[must_use]
pub fn cpu_of(pid: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).expect("the process lives");
    clock_gettime(clock).expect("its clock can be read").into()
}

/// The CPU time of this process so far.
///
/// # Panics
///
/// There are none on Linux.
#[must_use]
pub fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every process has this clock").into()
}

/// The number of times that threads of this process have slept.
///
/// # Panics
///
/// There are none on Linux.
#[must_use]
pub fn sleeps() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).expect("it is known").voluntary_context_switches()
}

/// The number of times that threads of a process have left their core, of threads that still run.
///
/// # Panics
///
/// The process is gone, or `/proc` is missing.
#[must_use]
pub fn switches_of(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    // A thread may end meanwhile.
    let of_thread =
        |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
    let count = |status: String| -> u64 {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    threads.flatten().map(of_thread).map(count).sum()
}

/// The number of times that threads of this process have left their core, with those that have ended.
///
/// # Panics
///
/// There are none on Linux.
#[must_use]
pub fn own_switches() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is known");
    (usage.voluntary_context_switches() + usage.involuntary_context_switches()).cast_unsigned()
}

/// The CPU time of a process and its threads, in clock ticks of a hundredth of a second.
///
/// # Panics
///
/// The process is gone, or `/proc` is missing.
#[must_use]
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

/// If this process was started to be a bare child, it is one, and ends.
#[expect(clippy::exit, reason = "a child that is compared with does nothing else")]
pub fn act_as_bare_child() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("stdin is the socket");
    let mut socket = UnixStream::from(socket);
    if role == "start" {
        let _ = socket.write_all(&[1]);
    } else {
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = socket.read(&mut bytes) {
            let _ = socket.write_all(&bytes[..n]);
        }
    }
    std::process::exit(0);
}

/// A bare child and the socket to it.
#[derive(Debug)]
pub struct BareChild {
    child: Child,
    socket: UnixStream,
}

impl BareChild {
    fn spawn(role: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let child = Command::new("/proc/self/exe")
            .env(ROLE, role)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("this executable starts again");
        Self { child, socket: ours }
    }

    /// A child that sends back what it is sent.
    #[must_use]
    pub fn echo() -> Self {
        Self::spawn("echo")
    }

    /// One message there and back.
    ///
    /// # Panics
    ///
    /// The child is gone.
    pub fn ping(&mut self, bytes: &mut [u8]) {
        self.socket.write_all(bytes).expect("the child reads");
        self.socket.read_exact(bytes).expect("the child answers");
    }
}

impl Drop for BareChild {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// Starts this executable by posix_spawn, waits for the first byte of its `main`, and says how long that took.
///
/// # Panics
///
/// The child does not start.
#[must_use]
pub fn bare_start() -> Duration {
    bare_starts(1)
}

/// Starts this executable this many times, waits for the first byte of each, and says how long that took.
///
/// # Panics
///
/// A child does not start.
#[must_use]
pub fn bare_starts(count: usize) -> Duration {
    let start = Instant::now();
    let mut children: Vec<_> = (0..count).map(|_| BareChild::spawn("start")).collect();
    for child in &mut children {
        child.socket.read_exact(&mut [0]).expect("the child writes a byte");
    }
    start.elapsed()
}

/// Starts a small program of the system by posix_spawn, waits for its first byte, and says how long that took.
///
/// # Panics
///
/// The program does not start.
#[must_use]
pub fn minimal_start() -> Duration {
    let start = Instant::now();
    let mut child = Command::new("/bin/echo").stdout(Stdio::piped()).spawn().expect("echo is there");
    child.stdout.as_mut().expect("its end of the pipe").read_exact(&mut [0]).expect("echo writes a byte");
    let took = start.elapsed();
    child.wait().expect("it ends");
    took
}
