//! Compares writing 256 MiB through the parts of a `SharedSliceMut`, on two workers, with two threads in memory of the same age.
//!
//! `cargo bench -p procession-benches --bench parts` prints the times and, as a share of the threads' speed, the ratios: for memory that was never
//! touched, for the second time, and for later ones. The second time, about half of the parts go to another worker than the first time, and a page
//! is entered into the mapping of each process when that process first touches it. Threads have one mapping. With `-- --test` it writes little, and shows that it works.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has nothing to say")]

use std::time::{Duration, Instant};

use procession::{Pool, SharedSliceMut, parallel, worker};
use procession_benches::is_test;

/// The elements of a part: 8 MiB.
const PART: usize = (8 << 20) / size_of::<u64>();

/// The number of times that each measurement is repeated. The shortest counts.
const TIMES: usize = 7;

/// How often each memory is written.
const AGES: usize = 8;

#[worker]
fn write(from: u64, target: &mut [u64]) {
    for (n, to) in target.iter_mut().enumerate() {
        *to = (from + n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

fn on_workers(pool: &Pool, out: &mut SharedSliceMut<u64>) -> Duration {
    let start = Instant::now();
    parallel!(pool = pool; write(n as u64, part) for (n, part) in out.chunks_mut(PART).enumerate()).unwrap();
    start.elapsed()
}

fn on_threads(out: &mut [u64]) -> Duration {
    let start = Instant::now();
    let parts = std::sync::Mutex::new(out.chunks_mut(PART).enumerate());
    let next = || parts.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((n, part)) = next() {
                    write(n as u64, part);
                }
            });
        }
    });
    start.elapsed()
}

fn main() {
    let is_bench = !is_test();
    let len = if is_bench { 32 } else { 2 } * PART;
    let pool = Pool::new(2).unwrap();
    let mut least = [[Duration::MAX; 2]; AGES];
    for _ in 0..if is_bench { TIMES } else { 1 } {
        let mut shared = SharedSliceMut::zeroed(len).unwrap();
        let mut own = vec![0_u64; len];
        for least in &mut least {
            let times = [on_workers(&pool, &mut shared), on_threads(&mut own)];
            assert!(*shared == *own, "both have written the same");
            *least = [0, 1].map(|who| times[who].min(least[who]));
        }
    }
    let [first, second, later @ ..] = least;
    let later = later.into_iter().reduce(|a, b| [0, 1].map(|who| a[who].min(b[who]))).unwrap();
    for (age, [workers, threads]) in [("first", first), ("second", second), ("later", later)] {
        let ratio = threads.as_secs_f64() / workers.as_secs_f64();
        println!("{age:6}  workers {workers:10.2?}  threads {threads:10.2?}  ratio {ratio:.2}");
    }
}
