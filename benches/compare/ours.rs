//! procession itself. Where a figure is asked for beside a bare one of the machine, both are taken here, in turn.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use procession::{Builder, Pool, delayed, parallel, worker};
use procession_benches::{bare_start, resident_kib, time};

use crate::{
    futex::{Manner, Peer},
    timing::{self, LARGE_BYTES, Outcome, REST, Size, gain, hot, median_time, rate, throughput},
};

#[worker]
fn add_one(n: u64) -> u64 {
    n + 1
}

#[worker]
fn spin(rounds: u64) -> u64 {
    timing::spin(rounds)
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[worker]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[worker]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn pool(workers: usize) -> Result<Pool, String> {
    Pool::new(workers).map_err(words)
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `add_one` through the pool's `map`.
fn map_rate(size: &Size, pool: &Pool, tasks: u64) -> f64 {
    rate(size, size.tasks(tasks), |tasks| {
        let start = Instant::now();
        let results = pool.map((0..tasks).map(|n| delayed!(add_one(n)))).expect("every task succeeds");
        let took = start.elapsed();
        assert!(results.into_iter().eq(1..=tasks), "every result is right and in its place");
        took
    })
}

pub(crate) fn map(size: &Size) -> Outcome {
    Ok(vec![("rate", map_rate(size, &pool(2)?, 2_000_000))])
}

fn imap_rate(size: &Size, pool: &Pool, tasks: u64) -> f64 {
    rate(size, size.tasks(tasks), |tasks| {
        time(|| {
            let mut count = 0;
            for result in pool.imap((0..tasks).map(|n| delayed!(add_one(n)))) {
                count += 1;
                assert_eq!(result.expect("every task succeeds"), count);
            }
            assert_eq!(count, tasks);
        })
    })
}

pub(crate) fn imap(size: &Size) -> Outcome {
    Ok(vec![("rate", imap_rate(size, &pool(2)?, 2_000_000))])
}

/// Every task a message.
pub(crate) fn imap_single(size: &Size) -> Outcome {
    let pool = Pool::builder().jobs(2).chunk_size(1).build().map_err(words)?;
    Ok(vec![("rate", imap_rate(size, &pool, 200_000))])
}

pub(crate) fn parallel(size: &Size) -> Outcome {
    let rate = rate(size, size.tasks(2_000_000), |tasks| {
        let start = Instant::now();
        let results: Vec<u64> =
            parallel!(jobs = 2; add_one(n) for n in 0..tasks).expect("every task succeeds");
        let took = start.elapsed();
        assert!(results.into_iter().eq(1..=tasks));
        took
    });
    Ok(vec![("rate", rate)])
}

/// Many handles at once, then all of them joined.
pub(crate) fn submit(size: &Size) -> Outcome {
    let pool = pool(2)?;
    let rate = rate(size, size.tasks(500_000), |tasks| {
        let start = Instant::now();
        let handles: Vec<_> = (0..tasks).map(|n| pool.submit(delayed!(add_one(n)))).collect();
        for (n, handle) in (0..).zip(handles) {
            assert_eq!(handle.join().ok(), Some(n + 1));
        }
        start.elapsed()
    });
    Ok(vec![("rate", rate)])
}

fn call(pool: &Pool) {
    assert_eq!(pool.submit(delayed!(add_one(1))).join().ok(), Some(2));
}

/// One call at a time, of a pool of one worker and of a pool of two.
pub(crate) fn latency(size: &Size) -> Outcome {
    let (one, two) = (pool(1)?, pool(2)?);
    Ok(vec![("one", hot(size, 20_000, || call(&one))), ("two", hot(size, 20_000, || call(&two)))])
}

/// One call after a rest, and in turn with it a bare round trip between two processes that sleep in a futex, after a rest as well.
pub(crate) fn rested(size: &Size) -> Outcome {
    let pool = pool(1)?;
    let mut bare = Peer::start(Manner::Sleep);
    call(&pool);
    bare.ping();
    let (mut calls, mut pings) = (Vec::new(), Vec::new());
    for _ in 0..size.samples(150) {
        std::thread::sleep(REST);
        calls.push(time(|| call(&pool)));
        std::thread::sleep(REST);
        pings.push(time(|| bare.ping()));
    }
    Ok(vec![("call", median_time(calls)), ("futex", median_time(pings))])
}

/// From no pool to the first result, and in turn with it a bare start of this executable.
fn start(size: &Size, samples: usize) -> Outcome {
    let first = || {
        let start = Instant::now();
        let pool = Pool::new(1).expect("a pool");
        call(&pool);
        // What ends the pool is not its start.
        start.elapsed()
    };
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..size.samples(samples) {
        ours.push(first());
        bare.push(bare_start());
    }
    Ok(vec![("first", median_time(ours)), ("bare", median_time(bare))])
}

pub(crate) fn start_small(size: &Size) -> Outcome {
    start(size, 50)
}

pub(crate) fn start_large(size: &Size) -> Outcome {
    let ballast = timing::ballast(size)?;
    let figures = start(size, 30);
    assert_eq!(std::hint::black_box(&ballast).last(), Some(&1));
    figures
}

/// Workers that come to a pool which runs: each is there when all the others are busy, and its first result is timed.
fn further(size: &Size, builder: Builder) -> Outcome {
    let pool = builder.jobs(17).build().map_err(words)?;
    let submit = || pool.submit(delayed!(pid())).join();
    let mut known = HashSet::from([submit().map_err(words)?]);
    let mut times = Vec::new();
    let mut busy = Vec::new();
    for _ in 0..size.samples(16) {
        busy.push(pool.submit(delayed!(sleep(60_000))));
        // The sleeping task has reached its worker.
        std::thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        let pid = submit().map_err(words)?;
        times.push(start.elapsed());
        if !known.insert(pid) {
            return Err("the pool had the task wait for a worker that it had".to_owned());
        }
    }
    Ok(vec![("first", median_time(times))])
}

pub(crate) fn further_spawn(size: &Size) -> Outcome {
    further(size, Pool::builder())
}

/// One more worker of a pool whose workers a template forks.
pub(crate) fn further_fork_server(size: &Size) -> Outcome {
    further(size, Pool::builder().start_method(procession::StartMethod::ForkServer))
}

/// A large slice lent, and a large vector there and back.
pub(crate) fn large(size: &Size) -> Outcome {
    let pool = pool(1)?;
    let bytes = vec![7u8; size.bytes(LARGE_BYTES)];
    let lent = throughput(size, bytes.len(), || {
        assert_eq!(pool.submit(delayed!(length(&bytes))).join().ok(), Some(bytes.len()));
    });
    // The vector is given, so it is made first, which the time has not.
    let mut given: Vec<Vec<u8>> = (0..=size.samples(timing::LONG_SAMPLES)).map(|_| bytes.clone()).collect();
    let echoed = throughput(size, bytes.len(), || {
        let given = given.pop().expect("one for each run");
        let back = pool.submit(delayed!(echo(given))).join();
        assert_eq!(back.map(|back| back.len()).ok(), Some(bytes.len()));
    });
    Ok(vec![("lent", lent), ("echoed", echoed)])
}

/// Two workers against one, on work for the CPU.
pub(crate) fn two(size: &Size) -> Outcome {
    let (one, two) = (pool(1)?, pool(2)?);
    let rounds = timing::spin_rounds(size);
    let run = |pool: &Pool| {
        let results = pool.map((0..timing::SPINS).map(|_| delayed!(spin(rounds))));
        assert_eq!(results.map(|results| results.len() as u64).ok(), Some(timing::SPINS));
    };
    Ok(vec![("gain", gain(size, || run(&one), || run(&two)))])
}

/// A very long `imap`: memory and throughput at its start and at its end.
pub(crate) fn flat(size: &Size) -> Outcome {
    let pool = pool(2)?;
    let pids = pool.broadcast(delayed!(pid())).map_err(words)?;
    let resident = || {
        let pids = pids.iter().copied().chain([std::process::id()]);
        (pids.map(|pid| resident_kib(pid).0).sum::<u64>() << 10) as f64
    };
    // The start is not to be what warming up takes.
    imap_rate(&Size { test: true }, &pool, 2_000_000);
    let tasks: u64 = if size.test { 20_000 } else { 100_000_000 };
    let tenth = tasks / 10;
    let (mut sizes, mut rates) = (Vec::new(), Vec::new());
    let mut start = Instant::now();
    for (n, result) in (1..).zip(pool.imap((0..tasks).map(|n| delayed!(add_one(n))))) {
        assert_eq!(result.map_err(words)?, n);
        if n % tenth == 0 {
            rates.push(tenth as f64 / start.elapsed().as_secs_f64());
            sizes.push(resident());
            start = Instant::now();
        }
    }
    let [first_rate, .., last_rate] = rates[..] else { return Err("there are no tenths".to_owned()) };
    let [first_size, .., last_size] = sizes[..] else { return Err("there are no tenths".to_owned()) };
    Ok(vec![
        ("first_rate", first_rate),
        ("last_rate", last_rate),
        ("first_size", first_size),
        ("last_size", last_size),
        ("growth", last_size - first_size),
    ])
}

/// Measures what an idle worker keeps in memory: its own pages and those of its executable and libraries, and the memory that it shares
/// with its host, once, whichever of the two has touched a page.
pub(crate) fn rest(size: &Size) -> Outcome {
    let pool = pool(1)?;
    let pid = pool.submit(delayed!(pid())).join().map_err(words)?;
    pool.map((0..size.tasks(1_000_000)).map(|n| delayed!(add_one(n)))).map_err(words)?;
    (0..size.tasks(2_000)).for_each(|_| call(&pool));
    std::thread::sleep(Duration::from_millis(100));
    let (theirs, ours) = (memory_of(pid), memory_of(std::process::id()));
    let shared: u64 = theirs
        .shared
        .iter()
        .map(|(inode, &bytes)| bytes.max(ours.shared.get(inode).copied().unwrap_or(0)))
        .sum();
    Ok(vec![("resident", (theirs.private + shared) as f64), ("anonymous", theirs.anonymous as f64)])
}

/// A process's resident memory, in bytes.
struct Memory {
    /// All but shared memory: anonymous pages, and files'.
    private: u64,
    anonymous: u64,
    /// Shared memory, by inode.
    shared: HashMap<String, u64>,
}

fn memory_of(pid: u32) -> Memory {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process lives");
    let mut memory = Memory { private: 0, anonymous: 0, shared: HashMap::new() };
    let mut shared = None;
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kib = || words.get(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) << 10;
        match words[..] {
            ["Rss:", ..] => match &shared {
                Some(inode) => *memory.shared.entry(String::clone(inode)).or_default() += kib(),
                None => memory.private += kib(),
            },
            ["Anonymous:", ..] => memory.anonymous += kib(),
            // A mapping's first line: addresses, permissions, offset, device, inode, name.
            [range, permissions, _, _, inode, ..] if range.contains('-') => {
                let file = words.get(5).copied().unwrap_or_default();
                let is_shared = permissions.ends_with('s') && !file.starts_with("anon_inode:");
                shared = is_shared.then(|| inode.to_owned());
            }
            _ => {}
        }
    }
    memory
}

/// More workers than cores.
const CROWDS: [(usize, &str); 5] = [(2, "2"), (4, "4"), (8, "8"), (32, "32"), (200, "200")];

fn crowd(size: &Size, tasks: u64, task: impl Fn(u64) -> procession::Task<u64>) -> Outcome {
    let mut figures = Vec::new();
    for (workers, name) in CROWDS {
        let pool = pool(if size.test { workers.min(8) } else { workers })?;
        // All are there before the clock runs.
        let pids = pool.broadcast(delayed!(pid())).map_err(words)?;
        assert_eq!(pids.iter().collect::<HashSet<_>>().len(), pool.jobs());
        let rate = rate(size, size.tasks(tasks), |tasks| {
            time(|| {
                let results = pool.map((0..tasks).map(&task));
                assert_eq!(results.expect("every task succeeds").len() as u64, tasks);
            })
        });
        figures.push((name, rate));
    }
    Ok(figures)
}

/// No-ops on ever more workers.
pub(crate) fn crowd_no_op(size: &Size) -> Outcome {
    crowd(size, 1_000_000, |n| delayed!(add_one(n)))
}

/// Tasks of ten microseconds of CPU time each (not of waiting for a clock, which goes on while another worker has the core).
pub(crate) fn crowd_short(size: &Size) -> Outcome {
    let calibration = 1_000_000;
    let took = procession_benches::median(procession_benches::repeat(9, || {
        time(|| assert_ne!(timing::spin(calibration), 0))
    }));
    let rounds = (calibration as f64 * 10e-6 / took.as_secs_f64()) as u64;
    crowd(size, 50_000, |_| delayed!(spin(rounds)))
}
