//! The costs that a change of procession may affect: calls one at a time, concurrent calls, batches of every size, large values.
//!
//! `cargo bench -p procession-benches --bench calls` measures; with `-- --test` it runs each once, as a test. A word after `--` picks
//! the benches whose name has it. `limits` and `compare/` compare the figures with those of the machine and of other libraries.

use std::time::Duration;

use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use procession::{Pool, delayed, parallel, worker};
use procession_benches::add_one;

#[worker]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[worker]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn main() {
    // Long benches are cut short, unless the command line says otherwise.
    divan::Divan::default().max_time(Duration::from_secs(3)).config_with_args().main();
}

/// Tasks of a bench of throughput.
const TASKS: u64 = 100_000;
/// The sizes of a batch: automatic, and fixed.
const BATCHES: [Option<usize>; 5] = [None, Some(1), Some(16), Some(64), Some(1024)];
/// Sizes of values.
const SIZES: [usize; 4] = [64, 64 << 10, 1 << 20, 64 << 20];

/// A pool whose workers have started.
fn pool(workers: usize, batch: Option<usize>) -> Pool {
    let builder = Pool::builder().jobs(workers);
    let pool =
        batch.into_iter().fold(builder, |builder, batch| builder.chunk_size(batch)).build().expect("a pool");
    pool.broadcast(delayed!(add_one(0))).expect("its workers start");
    pool
}

#[divan::bench(args = [1, 2])]
fn submit_join(bencher: Bencher<'_, '_>, workers: usize) {
    let pool = pool(workers, None);
    bencher.bench_local(|| assert_eq!(pool.submit(delayed!(add_one(1))).join().ok(), Some(2)));
}

#[divan::bench(args = [10, 1_000, 100_000])]
fn submit_many_then_join(bencher: Bencher<'_, '_>, calls: u64) {
    let pool = pool(2, None);
    bencher.counter(ItemsCount::new(calls)).bench_local(|| {
        let handles: Vec<_> = (0..calls).map(|n| pool.submit(delayed!(add_one(n)))).collect();
        for (n, handle) in (1..).zip(handles) {
            assert_eq!(handle.join().ok(), Some(n));
        }
    });
}

#[divan::bench]
fn start_to_first_result(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| {
        let pool = Pool::new(1).expect("a pool");
        assert_eq!(pool.submit(delayed!(add_one(1))).join().ok(), Some(2));
        // Returned, so that its end is not in the time.
        pool
    });
}

#[divan::bench(args = BATCHES)]
fn map(bencher: Bencher<'_, '_>, batch: Option<usize>) {
    let pool = pool(2, batch);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        let results = pool.map((0..TASKS).map(|n| delayed!(add_one(n)))).expect("every task succeeds");
        assert_eq!(results.last(), Some(&TASKS));
        results
    });
}

#[divan::bench(args = BATCHES)]
fn imap(bencher: Bencher<'_, '_>, batch: Option<usize>) {
    let pool = pool(2, batch);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        let results = pool.imap((0..TASKS).map(|n| delayed!(add_one(n))));
        assert!((1..=TASKS).eq(results.map(|result| result.expect("every task succeeds"))));
    });
}

#[divan::bench(args = BATCHES)]
fn imap_unordered(bencher: Bencher<'_, '_>, batch: Option<usize>) {
    let pool = pool(2, batch);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        let results = pool.imap_unordered((0..TASKS).map(|n| delayed!(add_one(n))));
        assert_eq!(results.filter(|(_, result)| result.is_ok()).count() as u64, TASKS);
    });
}

#[divan::bench(args = BATCHES)]
fn comprehension(bencher: Bencher<'_, '_>, batch: Option<usize>) {
    let pool = pool(2, batch);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        let results: Vec<u64> =
            parallel!(pool = &pool; add_one(n) for n in 0..TASKS).expect("every task succeeds");
        assert_eq!(results.last(), Some(&TASKS));
        results
    });
}

#[divan::bench(args = SIZES)]
fn lend_bytes(bencher: Bencher<'_, '_>, size: usize) {
    let pool = pool(1, None);
    let bytes = vec![7u8; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        assert_eq!(pool.submit(delayed!(length(&bytes))).join().ok(), Some(size));
    });
}

#[divan::bench(args = SIZES)]
fn echo_bytes(bencher: Bencher<'_, '_>, size: usize) {
    let pool = pool(1, None);
    bencher.counter(BytesCount::new(size)).with_inputs(|| vec![7u8; size]).bench_local_values(|bytes| {
        let back = pool.submit(delayed!(echo(bytes))).join().expect("the task succeeds");
        assert_eq!(back.len(), size);
        back
    });
}
