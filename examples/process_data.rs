//! Sends gigabytes through a pool in bounded memory: the input is created as it is read and has no known length, workers are replaced after a
//! number of tasks, and a set number of tasks travel together.
//!
//! `process_data [--mib 2048] [--jobs N] [--chunk-size 1] [--max-tasks-per-worker 100]`
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{collections::BTreeMap, time::Instant};

use procession::{Jobs, Pool, RemoteError, delayed, worker};

/// The size of a block of the input.
const BLOCK_BYTES: usize = 1 << 20;
/// The memory that parent and worker may need in addition to what they started with, however much data passes through.
const OVERHEAD_KIB: u64 = 160 << 10;

/// The result for a block: how often each byte occurs in it, and which process counted.
#[worker]
fn count_bytes(block: &[u8]) -> (Vec<u64>, u32) {
    let mut counts = vec![0; 256];
    for byte in block {
        counts[usize::from(*byte)] += 1;
    }
    // Memory that a library leaks in each call is freed with the worker.
    std::mem::forget(block[..4096.min(block.len())].to_vec());
    (counts, std::process::id())
}

/// Returns blocks as a database or a decompressor does: one after the other, until there are no more.
fn blocks(bytes: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 1u64;
    let mut left = bytes;
    std::iter::from_fn(move || {
        let len = left.min(BLOCK_BYTES as u64) as usize;
        left -= len as u64;
        let mut block = vec![0; len];
        for word in block.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state >> 7).to_le_bytes()[..word.len()]);
        }
        (len > 0).then_some(block)
    })
}

struct Options {
    mib: u64,
    jobs: Jobs,
    chunk_size: usize,
    max_tasks_per_worker: u64,
}

fn options() -> Result<Options, RemoteError> {
    let mut options = Options { mib: 2048, jobs: Jobs::All, chunk_size: 1, max_tasks_per_worker: 100 };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match (name.as_str(), args.next()) {
            ("--mib", Some(n)) => options.mib = n.parse()?,
            ("--jobs", Some(n)) => options.jobs = n.parse::<i32>()?.into(),
            ("--chunk-size", Some(n)) => options.chunk_size = n.parse()?,
            ("--max-tasks-per-worker", Some(n)) => options.max_tasks_per_worker = n.parse()?,
            _ => {
                return Err(RemoteError::msg(
                    "usage: process_data [--mib N] [--jobs N] [--chunk-size N] [--max-tasks-per-worker N]",
                ));
            }
        }
    }
    Ok(options)
}

/// Returns the peak memory of this process.
fn peak_kib() -> Result<u64, RemoteError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}

fn main() -> Result<(), RemoteError> {
    let options = options()?;
    let pool = Pool::builder()
        .jobs(options.jobs)
        .chunk_size(options.chunk_size)
        .max_tasks_per_worker(options.max_tasks_per_worker)
        .build()?;
    let bytes = options.mib << 20;
    let before_kib = peak_kib()?;
    let start = Instant::now();

    let mut totals = vec![0u64; 256];
    let mut tasks_of = BTreeMap::<u32, u64>::new();
    for result in pool.imap(blocks(bytes).map(|block| delayed!(count_bytes(&block)))) {
        let (counts, pid) = result?;
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        *tasks_of.entry(pid).or_default() += 1;
    }

    let took = start.elapsed();
    assert_eq!(totals.iter().sum::<u64>(), bytes, "every byte was counted once");
    let most_tasks = tasks_of.values().max().copied().unwrap_or_default();
    assert!(most_tasks <= options.max_tasks_per_worker, "{most_tasks} tasks in one worker");
    let grown_kib = peak_kib()? - before_kib;
    assert!(grown_kib <= OVERHEAD_KIB, "the parent has grown by {grown_kib} KiB");
    let rate = options.mib as f64 / 1024.0 / took.as_secs_f64();
    println!(
        "{} MiB in {took:.2?}: {rate:.2} GiB/s, through {} workers one after the other",
        options.mib,
        tasks_of.len()
    );
    println!(
        "at most {most_tasks} tasks a worker; the parent needed {:.1} MiB for it",
        grown_kib as f64 / 1024.0
    );
    Ok(())
}
