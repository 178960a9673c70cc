//! Compares the speed of several processes with that of one, for tasks of different sizes.
//!
//! `compare_single_and_multi [--n-iters 1000 10000] [--n-tasks 1 2 3 4] [--jobs N]` prints, for each number of iterations per task and each
//! number of tasks, the time in this process alone and in worker processes.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use procession::{Jobs, Pool, RemoteError, parallel, worker};

/// Returns the mean of the square roots of that many thousand numbers.
#[worker]
fn work(thousands: u64) -> f64 {
    let n = thousands * 1000;
    (1..=n).map(|i| black_box(i as f64).sqrt()).sum::<f64>() / n as f64
}

struct Options {
    n_iters: Vec<u64>,
    n_tasks: Vec<usize>,
    jobs: Jobs,
}

const USAGE: &str = "usage: compare_single_and_multi [--n-iters N...] [--n-tasks N...] [--jobs N]";

fn options() -> Result<Options, RemoteError> {
    let mut options = Options { n_iters: vec![1000, 10_000], n_tasks: vec![1, 2, 3, 4], jobs: Jobs::All };
    let mut args = std::env::args().skip(1).peekable();
    while let Some(name) = args.next() {
        let mut values = Vec::new();
        while let Some(value) = args.next_if(|arg| !arg.starts_with("--")) {
            values.push(value.parse::<u64>()?);
        }
        match (name.as_str(), &values[..]) {
            ("--n-iters", [_, ..]) if !values.contains(&0) => options.n_iters = values,
            ("--n-tasks", [_, ..]) => options.n_tasks = values.into_iter().map(|n| n as usize).collect(),
            ("--jobs", [n]) => options.jobs = Jobs::Exactly(*n as usize),
            _ => return Err(RemoteError::msg(USAGE)),
        }
    }
    Ok(options)
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = run();
    (value, start.elapsed())
}

fn main() -> Result<(), RemoteError> {
    let options = options()?;
    let pool = Pool::builder().jobs(options.jobs).build()?;
    // A pool starts its workers when they are needed. The first call starts them and is not measured.
    parallel!(pool = &pool; work(1) for _ in 0..pool.jobs() * 4)?;
    println!("{} workers; a task sums up so many thousand square roots\n", pool.jobs());
    println!("{:>8}{:>8}{:>14}{:>14}{:>10}", "n_iters", "n_tasks", "one process", "workers", "quicker");
    for &n_iters in &options.n_iters {
        for &n_tasks in &options.n_tasks {
            // The same function, called directly and in a worker.
            let (single, alone) = timed(|| (0..n_tasks).map(|_| work(n_iters)).collect::<Vec<f64>>());
            let (multi, together) =
                timed(|| parallel!(pool = &pool, batch = 1; work(n_iters) for _ in 0..n_tasks));
            assert_eq!(single, multi?, "they come to the same");
            let quicker = alone.as_secs_f64() / together.as_secs_f64().max(1e-9);
            println!("{n_iters:>8}{n_tasks:>8}{alone:>14.2?}{together:>14.2?}{quicker:>8.2} x");
        }
    }
    Ok(())
}
