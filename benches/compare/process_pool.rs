//! The peer that is nearest: procspawn's pool of processes.

use std::time::Instant;

use procession_benches::time;
use procspawn::{Pool, SpawnError};

use crate::timing::{
    self, LARGE_BYTES, Outcome, Size, add_one, gain, hot, median_time, rate, rested, throughput,
};

/// A call that waits holds four descriptors, of which a process has a limited number.
const OUTSTANDING: u64 = 1_000;

fn pool(workers: usize) -> Pool {
    Pool::new(workers).expect("a pool of processes")
}

fn call(pool: &Pool, n: u64) -> Result<u64, SpawnError> {
    pool.spawn(n, add_one).join()
}

/// Calls at once, as many as descriptors allow.
pub(crate) fn calls(size: &Size) -> Outcome {
    let pool = pool(2);
    let rate = rate(size, size.tasks(4_000), |tasks| {
        let start = Instant::now();
        for first in (0..tasks).step_by(OUTSTANDING as usize) {
            let last = tasks.min(first + OUTSTANDING);
            let handles: Vec<_> = (first..last).map(|n| pool.spawn(n, add_one)).collect();
            for (n, handle) in (first..).zip(handles) {
                assert_eq!(handle.join().ok(), Some(n + 1));
            }
        }
        start.elapsed()
    });
    Ok(vec![("rate", rate)])
}

/// One call at a time.
pub(crate) fn latency(size: &Size) -> Outcome {
    let pool = pool(1);
    let one = || assert_eq!(call(&pool, 1).ok(), Some(2));
    Ok(vec![("hot", hot(size, 3_000, one)), ("rested", rested(size, one))])
}

/// From nothing to the first result.
pub(crate) fn start(size: &Size) -> Outcome {
    let first = || {
        let start = Instant::now();
        let pool = pool(1);
        assert_eq!(call(&pool, 1).ok(), Some(2));
        start.elapsed()
    };
    let times = |samples| median_time(procession_benches::repeat(size.samples(samples), first));
    let small = times(20);
    let Ok(ballast) = timing::ballast(size) else { return Ok(vec![("small", small)]) };
    let large = times(10);
    assert_eq!(std::hint::black_box(&ballast).last(), Some(&1));
    Ok(vec![("small", small), ("large", large)])
}

fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// A large slice there, and there and back. It is given by value, so it is copied first, which the time has not.
pub(crate) fn large(size: &Size) -> Outcome {
    let pool = pool(1);
    let bytes = vec![7u8; size.bytes(LARGE_BYTES)];
    let mut given: Vec<Vec<u8>> = (0..=size.samples(timing::LONG_SAMPLES)).map(|_| bytes.clone()).collect();
    let lent = throughput(size, bytes.len(), || {
        let given = given.pop().expect("one for each run");
        assert_eq!(pool.spawn(given, length).join().ok(), Some(bytes.len()));
    });
    let mut given: Vec<Vec<u8>> = (0..=size.samples(timing::LONG_SAMPLES)).map(|_| bytes.clone()).collect();
    let echoed = throughput(size, bytes.len(), || {
        let given = given.pop().expect("one for each run");
        assert_eq!(pool.spawn(given, echo).join().map(|back| back.len()).ok(), Some(bytes.len()));
    });
    Ok(vec![("there", lent), ("echoed", echoed)])
}

/// Two workers against one, on work for the CPU.
pub(crate) fn two(size: &Size) -> Outcome {
    let (one, two) = (pool(1), pool(2));
    let rounds = timing::spin_rounds(size);
    let run = |pool: &Pool| {
        let handles: Vec<_> = (0..timing::SPINS).map(|_| pool.spawn(rounds, timing::spin)).collect();
        assert!(handles.into_iter().all(|handle| handle.join().is_ok()));
    };
    Ok(vec![("gain", gain(size, || run(&one), || run(&two)))])
}

/// Measures what an idle worker keeps in memory.
pub(crate) fn rest(size: &Size) -> Outcome {
    let pool = pool(1);
    let pid = pool.spawn((), |()| std::process::id()).join().map_err(|error| error.to_string())?;
    for n in 0..size.tasks(2_000) {
        assert_eq!(call(&pool, n).ok(), Some(n + 1));
    }
    assert!(time(|| std::thread::sleep(timing::REST)) >= timing::REST);
    Ok(vec![("resident", (procession_benches::resident_kib(pid).0 << 10) as f64)])
}
