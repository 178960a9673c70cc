//! Loads a gigabyte once, in the template that workers are forked from, and shows that they share it.
//!
//! `preload [MIB]` loads that much, by default 1024.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{sync::OnceLock, time::Instant};

use procession::{Pool, RemoteError, StartMethod, delayed, worker};

const WORKERS: usize = 4;

/// A stand-in for an index, a model or a corpus.
static TABLE: OnceLock<Vec<u64>> = OnceLock::new();

#[worker]
fn load(mib: usize) {
    TABLE.get_or_init(|| (0..(mib << 20) as u64 / 8).collect());
}

/// Reads every page of the table.
#[worker]
fn checksum() -> Option<u64> {
    Some(TABLE.get()?.iter().step_by(4096 / 8).sum())
}

/// Returns the resident memory of this process, and its proportional share of it, in MiB.
#[worker]
fn memory() -> Result<(u64, u64), RemoteError> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let mib = |name: &str| {
        let value = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        value.trim().trim_end_matches(" kB").parse::<u64>().map(|kib| kib >> 10)
    };
    Ok((mib("Rss:")?, mib("Pss:")?))
}

fn main() -> Result<(), RemoteError> {
    let mib: usize = std::env::args().nth(1).map_or(Ok(1024), |mib| mib.parse())?;
    let start = Instant::now();
    let pool = Pool::builder()
        .jobs(WORKERS)
        .start_method(StartMethod::ForkServer)
        .preload(delayed!(load(mib)))
        .build()?;
    let sums = pool.broadcast(delayed!(checksum()))?;
    println!(
        "{WORKERS} workers have read {mib} MiB, loaded once, {:.2} s after the start",
        start.elapsed().as_secs_f64()
    );
    assert!(sums.iter().all(|sum| sum.is_some() && *sum == sums[0]), "every worker sees the whole table");

    let mut all = 0;
    for (worker, memory) in pool.broadcast(delayed!(memory()))?.into_iter().enumerate() {
        let (mapped, share) = memory?;
        println!("worker {worker}: {mapped} MiB mapped, {share} MiB its share");
        assert!(mapped >= mib as u64, "it is all there");
        all += share;
    }
    println!("together they account for {all} MiB, and not for {} MiB", mib * WORKERS);
    assert!(all < (mib + 64) as u64, "it is there once");
    Ok(())
}
