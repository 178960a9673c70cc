//! Measures calls with large arguments: given to one task, to tasks one after the other, to the tasks of one call, and a new one to each task.
//!
//! `cargo bench -p procession-benches --bench arguments` prints the times, shared automatically. With `PROCESSION_SHARE_BYTES=never` they are
//! those of arguments that are sent. Then it measures one large argument, beside one copy of it. With `-- --test` the arguments are small.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has nothing to say")]

use std::time::{Duration, Instant};

use procession::{Pool, SharedSlice, delayed, parallel, worker};
use procession_benches::{is_test, time};

/// The number of times that each measurement is repeated. The median counts.
const TIMES: usize = 9;

/// The number of tasks of a call.
const TASKS: u8 = 8;

#[worker]
fn sum(bytes: &[u8], _n: u8) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_ne_bytes(*word)).fold(0, u64::wrapping_add)
}

#[worker]
fn first(bytes: &[u8]) -> u8 {
    bytes[0]
}

#[worker]
fn first_of_own(bytes: Vec<u8>) -> u8 {
    bytes[0]
}

#[worker]
fn sum_numbers(numbers: &[f64]) -> f64 {
    numbers.iter().sum()
}

/// Returns the median time of what is measured after each preparation.
fn median<T>(mut prepare: impl FnMut() -> T, mut measure: impl FnMut(&T)) -> Duration {
    let time = || {
        let prepared = prepare();
        let start = Instant::now();
        measure(&prepared);
        start.elapsed()
    };
    let mut times: Vec<_> = std::iter::repeat_with(time).take(TIMES).collect();
    times.sort();
    times[TIMES / 2]
}

fn main() {
    let is_bench = !is_test();
    let pool = Pool::new(2).unwrap();
    let sizes: &[usize] = if is_bench { &[256 << 10, 1 << 20, 4 << 20, 64 << 20] } else { &[1 << 20] };
    let mut seed = 0;
    let mut new = |size: usize| {
        seed += 1;
        vec![seed; size]
    };
    for &size in sizes {
        let once = median(|| new(size), |bytes| _ = pool.submit(delayed!(sum(bytes, 1))).join().unwrap());
        let same = new(size);
        let again = median(|| (), |()| _ = pool.submit(delayed!(sum(&same, 1))).join().unwrap());
        let all = median(
            || new(size),
            |bytes| _ = parallel!(pool = &pool; sum(bytes, n) for n in 0..TASKS).unwrap(),
        );
        let each = median(
            || (0..TASKS).map(|_| new(size)).collect::<Vec<_>>(),
            |each| _ = parallel!(pool = &pool; sum(bytes, 1) for bytes in each).unwrap(),
        );
        let numbers = median(
            || vec![f64::from(new(1)[0]); size / 8],
            |numbers| _ = pool.submit(delayed!(sum_numbers(numbers))).join().unwrap(),
        );
        println!(
            "{:5} KiB: one task {once:9.2?}, the same again {again:9.2?}, {TASKS} tasks with the same {all:9.2?}, {TASKS} with one each {each:9.2?}, \
             one task with f64 {numbers:9.2?}",
            size >> 10
        );
    }
    one_argument(if is_bench { 64 << 20 } else { 1 << 20 });
}

/// Measures one argument of this size in several ways that take turns. Each time it is a new one, in memory that was touched.
fn one_argument(size: usize) {
    const NAMES: [&str; 8] = [
        "a copy to touched memory",
        "the sum here",
        "lent, one byte read",
        "lent, the sum",
        "moved, one byte read",
        "copied to a SharedSlice, one byte read",
        "a SharedSlice that is there, one byte read",
        "a SharedSlice that is there, the sum",
    ];
    let pool = Pool::new(1).unwrap();
    let mut copy = vec![1; size];
    let mut times: [Vec<Duration>; NAMES.len()] = Default::default();
    for round in 0..=TIMES as u8 {
        let new = || vec![round; size];
        let (bytes, summed, moved) = (new(), new(), new());
        let there = SharedSlice::from_slice(&bytes).unwrap();
        let check = |task| assert_eq!(pool.submit(task).join().unwrap(), round);
        let sums = |task| _ = pool.submit(task).join().unwrap();
        let these = [
            time(|| copy.copy_from_slice(&bytes)),
            time(|| _ = std::hint::black_box(sum(&copy, 1))),
            time(|| check(delayed!(first(&bytes)))),
            time(|| sums(delayed!(sum(&summed, 1)))),
            time(|| check(delayed!(first_of_own(moved)))),
            time(|| check(delayed!(first(&SharedSlice::from_slice(&bytes).unwrap())))),
            time(|| check(delayed!(first(&there)))),
            time(|| sums(delayed!(sum(&there, 1)))),
        ];
        // The first round warms up.
        if round > 0 {
            times.iter_mut().zip(these).for_each(|(times, time)| times.push(time));
        }
    }
    for times in &mut times {
        times.sort();
    }
    let copied = times[0][TIMES / 2];
    for (name, times) in NAMES.iter().zip(times) {
        let median = times[TIMES / 2];
        let ratio = copied.as_secs_f64() / median.as_secs_f64();
        let rate = size as f64 / median.as_secs_f64() / 1e9;
        println!(
            "{:5} KiB, {name:<42} {median:9.2?} ({:.2?} to {:.2?}), {rate:7.2} GB/s, {ratio:.2} of the copy's rate",
            size >> 10,
            times[0],
            times[TIMES - 1]
        );
    }
}
