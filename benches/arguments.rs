//! Measures calls with large arguments: given to one task, to tasks one after the other, to the tasks of one call, and a new one to each task.
//!
//! `cargo bench -p procession-benches --bench arguments` prints the times, shared automatically. With `PROCESSION_SHARE_BYTES=never` they are
//! those of arguments that are sent. With `-- --test` the arguments are small.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has nothing to say")]

use std::time::{Duration, Instant};

use procession::{Pool, delayed, parallel, worker};
use procession_benches::is_test;

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
}
