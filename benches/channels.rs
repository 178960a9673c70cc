//! Channels between processes, beside std's between threads, in one run.
//!
//! `cargo bench -p procession-benches --bench channels` measures; with `-- --test` it runs each once, small, as a test.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use procession::{Process, Receiver, Result, Sender, channel, delayed, worker};
use procession_benches::{is_test, median, repeat, time};

/// The room of each channel.
const CAPACITY: usize = 1024;

#[worker]
fn produce(count: u64, to: Sender<u64>) {
    (0..count).for_each(|n| to.send(n).expect("the caller receives"));
}

#[worker]
fn echo(from: Receiver<u64>, to: Sender<u64>) {
    from.into_iter().for_each(|n| to.send(n).expect("the caller receives"));
}

#[worker]
fn produce_bytes(count: u64, len: usize, to: Sender<Vec<u8>>) {
    (0..count).for_each(|_| to.send(vec![7; len]).expect("the caller receives"));
}

/// The time from the first message to the last one.
fn receive<T>(count: u64, mut next: impl FnMut() -> T) -> Duration {
    next();
    time(|| (1..count).for_each(|_| drop(next())))
}

fn between_processes(count: u64) -> Result<Duration> {
    let (tx, rx) = channel(CAPACITY)?;
    let mut process = Process::spawn(delayed!(produce(count, tx)))?;
    let took = receive(count, || rx.recv().expect("the producer sends as many"));
    process.join()?;
    Ok(took)
}

fn between_threads(count: u64) -> Duration {
    let (tx, rx) = mpsc::sync_channel(CAPACITY);
    let producer = thread::spawn(move || (0..count).for_each(|n| tx.send(n).expect("main receives")));
    let took = receive(count, || rx.recv().expect("the producer sends as many"));
    producer.join().expect("it does not panic");
    took
}

fn round_trips(count: u64) -> Result<Vec<Duration>> {
    let ((tx, inputs), (outputs, rx)) = (channel(CAPACITY)?, channel(CAPACITY)?);
    let mut process = Process::spawn(delayed!(echo(inputs, outputs)))?;
    let times = repeat(count as usize, || {
        let start = Instant::now();
        tx.send(7).expect("the process receives");
        rx.recv().expect("it answers");
        start.elapsed()
    });
    drop(tx);
    process.join()?;
    Ok(times)
}

fn bytes(count: u64, len: usize) -> Result<Duration> {
    let (tx, rx) = channel(64)?;
    let mut process = Process::spawn(delayed!(produce_bytes(count, len, tx)))?;
    let took = receive(count, || rx.recv().expect("the producer sends as many"));
    process.join()?;
    Ok(took)
}

fn main() -> Result<()> {
    let (rounds, messages, trips) = if is_test() { (1, 1000, 100) } else { (5, 5_000_000, 200_000) };
    let each = |took: Duration, count: u64| took.as_nanos() as f64 / count as f64;
    let print = |what: &str, nanos: f64| println!("{what:<60} {nanos:>10.1} ns");
    let mut ours = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..rounds {
        ours.push(between_processes(messages)?);
        threads.push(between_threads(messages));
    }
    print("channel of u64, 1 producer, 1 consumer, two processes", each(median(ours), messages));
    print("std's sync_channel of u64, two threads", each(median(threads), messages));
    print("round trip of a u64 between two processes, hot, median", each(median(round_trips(trips)?), 1));
    for len in [1 << 10, 16 << 10, 1 << 20] {
        let count = messages / (len as u64 + 5000) + 10;
        print(&format!("channel of Vec<u8>, {len} bytes"), each(bytes(count, len)?, count));
    }
    Ok(())
}
