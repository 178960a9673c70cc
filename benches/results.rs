//! Measures memory that moves between the caller and a worker: 256 MiB as a result, and 1 GiB as an argument.
//!
//! `cargo bench -p procession-benches --bench results` prints the shortest time of each result with its speed as a multiple of that of a
//! `Vec<u8>`, and what an argument costs beside a task without one. With `-- --test` it moves little, and shows that it works.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has nothing to say")]

use std::{
    ops::Deref,
    time::{Duration, Instant},
};

use procession::{Pool, RemoteError, SharedSlice, SharedSliceMut, delayed, worker};
use procession_benches::is_test;

/// The number of times that each result is made. The shortest counts.
const TIMES: usize = 7;

#[worker]
fn vector(len: usize, with: u8) -> Vec<u8> {
    vec![with; len]
}

#[worker]
fn iterated(len: usize, with: u8) -> Result<SharedSlice<u8>, RemoteError> {
    Ok(SharedSlice::from_iter(len, std::iter::repeat(with))?)
}

#[worker]
fn frozen(len: usize, with: u8) -> Result<SharedSlice<u8>, RemoteError> {
    Ok(made(len, with)?.freeze())
}

#[worker]
fn made(len: usize, with: u8) -> Result<SharedSliceMut<u8>, RemoteError> {
    let mut made = SharedSliceMut::zeroed(len)?;
    made.fill(with);
    Ok(made)
}

#[worker]
fn filled(mut slice: SharedSliceMut<u8>, with: u8) -> SharedSliceMut<u8> {
    slice.fill(with);
    slice
}

#[worker]
fn plain(n: usize) -> usize {
    n
}

#[worker]
fn look_at(data: &[u64], at: usize) -> u64 {
    data[at]
}

/// Returns the shortest time in which a result is made of the last one.
fn least<R: Deref<Target = [u8]>>(times: usize, mut make: impl FnMut(u8, Option<R>) -> R) -> Duration {
    let mut last = None;
    let mut once = |with| {
        let start = Instant::now();
        let result = make(with, last.take());
        let time = start.elapsed();
        assert!(result.first() == Some(&with) && result.last() == Some(&with), "it has what was written");
        last = Some(result);
        time
    };
    (1..=times as u8).map(&mut once).min().unwrap()
}

fn results(pool: &Pool, len: usize, times: usize) {
    let vector = least(times, |with, _| pool.submit(delayed!(vector(len, with))).join().unwrap());
    for (what, time) in [
        ("Vec<u8>", vector),
        (
            "SharedSlice, from an iterator",
            least(times, |with, _| pool.submit(delayed!(iterated(len, with))).join().unwrap().unwrap()),
        ),
        (
            "SharedSlice, frozen",
            least(times, |with, _| pool.submit(delayed!(frozen(len, with))).join().unwrap().unwrap()),
        ),
        (
            "SharedSliceMut",
            least(times, |with, _| pool.submit(delayed!(made(len, with))).join().unwrap().unwrap()),
        ),
        (
            "SharedSliceMut, the last one again",
            least(times, |with, last| match last {
                None => pool.submit(delayed!(made(len, with))).join().unwrap().unwrap(),
                Some(last) => pool.submit(delayed!(filled(last, with))).join().unwrap(),
            }),
        ),
    ] {
        println!("{what:34}  {time:10.2?}  speed {:5.2}", vector.as_secs_f64() / time.as_secs_f64());
    }
}

/// Prints what tasks take, as the time that a tenth of them does not exceed: other programs only add to it.
fn arguments(pool: &Pool, len: usize, times: usize) {
    let mut took: [Vec<Duration>; 3] = Default::default();
    for n in 0..times {
        let data = SharedSlice::<u64>::zeroed(len / size_of::<u64>()).unwrap();
        let mut measure = |to: usize, call: &dyn Fn()| {
            let start = Instant::now();
            call();
            took[to].push(start.elapsed());
        };
        measure(0, &|| assert_eq!(pool.submit(delayed!(plain(n))).join().unwrap(), n));
        measure(1, &|| assert_eq!(pool.submit(delayed!(look_at(&data, n))).join().unwrap(), 0));
        for _ in 0..10 {
            measure(0, &|| assert_eq!(pool.submit(delayed!(plain(n))).join().unwrap(), n));
            measure(2, &|| assert_eq!(pool.submit(delayed!(look_at(&data, n))).join().unwrap(), 0));
        }
    }
    let [plain, first, later] = took.map(|mut all| {
        all.sort_unstable();
        all[all.len() / 10]
    });
    println!(
        "plain task {plain:.2?}; with {} MiB, the first task {first:.2?}, each later one {later:.2?}",
        len >> 20
    );
}

fn main() {
    let is_bench = !is_test();
    let pool = Pool::new(1).unwrap();
    results(&pool, if is_bench { 256 << 20 } else { 1 << 20 }, if is_bench { TIMES } else { 2 });
    arguments(&pool, if is_bench { 1 << 30 } else { 1 << 20 }, if is_bench { 1000 } else { 10 });
}
