//! Measures how long a further worker takes from the request to its first result, under each of the three start methods.
//!
//! `start_methods --method spawn|forkserver|fork [--workers 20]` measures one method, or all three without `--method`.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::time::{Duration, Instant};

use procession::{Pool, RemoteError, StartMethod, delayed, worker};

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// Ends the only worker of the pool.
#[worker]
#[expect(clippy::exit, reason = "that the process ends is what it is for")]
fn leave() {
    std::process::exit(0);
}

/// Measures the time from the request to the first result, of the first worker and of each further one.
fn measure(method: StartMethod, workers: usize) -> Result<(Duration, Vec<Duration>), RemoteError> {
    let start = Instant::now();
    let pool = Pool::builder().jobs(1).start_method(method).build()?;
    let mut pids = vec![pool.submit(delayed!(pid())).join()?];
    let first = start.elapsed();
    let mut times = Vec::new();
    for _ in 0..workers {
        // The error is returned after the worker was reaped, and no further worker was requested yet.
        assert!(pool.submit(delayed!(leave())).join().is_err_and(|error| error.is_crash()));
        let start = Instant::now();
        pids.push(pool.submit(delayed!(pid())).join()?);
        times.push(start.elapsed());
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), workers + 1, "each task had a worker of its own");
    Ok((first, times))
}

fn main() -> Result<(), RemoteError> {
    let (mut methods, mut workers) = (Vec::new(), 20);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--method", Some(method)) => methods.push(method.parse::<StartMethod>()?),
            ("--workers", Some(n)) => workers = n.parse()?,
            _ => {
                return Err(RemoteError::msg(
                    "usage: start_methods [--method spawn|forkserver|fork] [--workers N]",
                ));
            }
        }
    }
    if methods.is_empty() {
        methods = vec![StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork];
    }
    for method in methods {
        let (first, mut times) = measure(method, workers)?;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let average = millis(times.iter().sum::<Duration>()) / workers.max(1) as f64;
        times.sort_unstable();
        let median = times.get(workers / 2).copied().map_or(0.0, millis);
        println!(
            "{method}: a further worker gives its first result after {average:.3} ms on average, {median:.3} ms at the median of \
             {workers}; the first took {:.3} ms",
            millis(first)
        );
    }
    Ok(())
}
