//! Measures what starts cost: a pool to its first result, one more worker, and 200 workers, beside bare processes to their first byte.
//!
//! `cargo bench -p procession-benches --bench start` measures; with `-- --test` it runs each once, small, as a test. Everything takes
//! turns in each of the rounds, and each figure is the median of the rounds' medians, with their range.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use procession::{Pool, Result, delayed};
use procession_benches::{
    act_as_bare_child, add_one, bare_start, bare_starts, first_result, is_test, leave, median, minimal_start,
    pid, repeat, time,
};

/// The size of the measurements.
struct Size {
    rounds: usize,
    starts: usize,
    crowd: usize,
    ballast_bytes: usize,
}

const FULL: Size = Size { rounds: 5, starts: 30, crowd: 200, ballast_bytes: 4 << 30 };
const SMALL: Size = Size { rounds: 1, starts: 2, crowd: 3, ballast_bytes: 1 << 20 };

/// What is measured by itself, in the order in which it takes turns.
const NAMES: [&str; 4] = [
    "a minimal program by posix_spawn, to its first byte",
    "this executable by posix_spawn, to its first byte",
    "a pool of one worker, to its first result",
    "one more worker, to its first result",
];

fn main() -> Result<()> {
    act_as_bare_child();
    let size = if is_test() { &SMALL } else { &FULL };
    single("0 bytes", size)?;
    crowd(size)?;
    let ballast = vec![1u8; size.ballast_bytes];
    single(&format!("{} MiB", size.ballast_bytes >> 20), size)?;
    assert_eq!(black_box(&ballast)[size.ballast_bytes - 1], 1);
    println!("3 passed, 0 failed");
    Ok(())
}

fn single(touched: &str, size: &Size) -> Result<()> {
    let pool = Pool::new(1)?;
    pool.submit(delayed!(add_one(1))).join()?;
    let further = || {
        // When the error is returned, its end has been handled, and no other worker has been requested yet.
        assert!(pool.submit(delayed!(leave())).join().is_err());
        time(|| assert_eq!(pool.submit(delayed!(add_one(1))).join().ok(), Some(2)))
    };
    let mut rounds: [Vec<Duration>; NAMES.len()] = Default::default();
    for _ in 0..size.rounds {
        let all = repeat_in_turn(size.starts, [&minimal_start, &bare_start, &first_result, &further]);
        rounds.iter_mut().zip(all).for_each(|(medians, times)| medians.push(median(times)));
    }
    let bare = [0, 1].map(|index| rounds[index].clone());
    for (name, medians) in NAMES.iter().zip(rounds) {
        let [minimal, same] = [&bare[0], &bare[1]].map(|bare| ratio(&medians, bare));
        println!(
            "{name:<52} {touched:>8}   {}   {minimal:.2} x the minimal program, {same:.2} x this one",
            range(medians)
        );
    }
    Ok(())
}

fn repeat_in_turn<const N: usize>(times: usize, measures: [&dyn Fn() -> Duration; N]) -> [Vec<Duration>; N] {
    let mut all = [(); N].map(|()| Vec::new());
    for _ in 0..times {
        all.iter_mut().zip(measures).for_each(|(times, measure)| times.push(measure()));
    }
    all
}

fn crowd(size: &Size) -> Result<()> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        bare.extend(repeat(1, || bare_starts(size.crowd)));
        let start = Instant::now();
        let pool = Pool::new(size.crowd)?;
        assert_eq!(pool.broadcast(delayed!(pid()))?.len(), size.crowd);
        ours.push(start.elapsed());
    }
    let by = ratio(&ours, &bare);
    println!("{} workers, until each has run a task   {}   {by:.2} x bare", size.crowd, range(ours));
    println!("{} bare processes, to the first byte of each   {}", size.crowd, range(bare));
    Ok(())
}

/// The median of the ratios of the rounds.
fn ratio(ours: &[Duration], bare: &[Duration]) -> f64 {
    let mut ratios: Vec<_> =
        ours.iter().zip(bare).map(|(ours, bare)| ours.as_secs_f64() / bare.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The median, the least and the most.
fn range(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("{:.2?} ({:.2?} to {:.2?})", times[times.len() / 2], times[0], times[times.len() - 1])
}
