//! What a map of no-ops costs at least: a ring there and a ring back for each worker, and postcard at each of the four ends.
//!
//! The workers are threads, because memory that is shared by processes is not quicker. They have what any pool must have: the bytes
//! of each task and result, their length, and a cursor that is published for many of them together. They have no claims, clocks, batches, sleeps, or
//! order of results beyond the rings' own.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{scope, yield_now},
    time::{Duration, Instant},
};

/// The number of records in a ring: 256 KiB.
const RECORDS: u64 = 1 << 14;

/// The number of records that are written before they are published.
const TURN: u64 = 1 << 8;

/// How often an end looks before it yields its core.
const SPINS: u32 = 1_000;

/// A cursor on its own cache line.
#[repr(align(128))]
struct Cursor(AtomicU64);

/// A ring of records of at most eight bytes.
struct Ring {
    /// A length and eight bytes for each record.
    words: Box<[[AtomicU64; 2]]>,
    head: Cursor,
    tail: Cursor,
}

impl Ring {
    fn new() -> Self {
        let words = (0..RECORDS).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        Self { words, head: Cursor(AtomicU64::new(0)), tail: Cursor(AtomicU64::new(0)) }
    }
}

/// The writing end of a ring.
struct Producer<'a> {
    ring: &'a Ring,
    tail: u64,
    head: u64,
}

impl Producer<'_> {
    /// Publishes what was written.
    fn publish(&self) {
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }

    /// Encodes a value, if there is room.
    fn write(&mut self, value: u64) -> bool {
        if self.tail - self.head == RECORDS {
            self.head = self.ring.head.0.load(Ordering::Acquire);
            if self.tail - self.head == RECORDS {
                return false;
            }
        }
        let mut bytes = [0; 16];
        let len = postcard::to_slice(&value, &mut bytes).expect("ten bytes are enough").len();
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        let [len_word, word] = &self.ring.words[(self.tail % RECORDS) as usize];
        len_word.store(len as u64, Ordering::Relaxed);
        word.store(u64::from_le_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed);
        self.tail += 1;
        true
    }
}

/// The reading end of a ring.
struct Consumer<'a> {
    ring: &'a Ring,
    tail: u64,
    head: u64,
}

impl Consumer<'_> {
    /// Reads what is there, at most `most` records.
    fn read(&mut self, most: u64, mut on: impl FnMut(u64)) -> u64 {
        if self.tail == self.head {
            self.tail = self.ring.tail.0.load(Ordering::Acquire);
        }
        let n = (self.tail - self.head).min(most);
        for at in self.head..self.head + n {
            let [len, word] = &self.ring.words[(at % RECORDS) as usize];
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            let len = len.load(Ordering::Relaxed) as usize;
            on(postcard::from_bytes(&bytes[..len]).expect("it was encoded"));
        }
        self.head += n;
        if n > 0 {
            self.ring.head.0.store(self.head, Ordering::Release);
        }
        n
    }
}

fn work(requests: &Ring, replies: &Ring, is_over: &AtomicBool) {
    let mut requests = Consumer { ring: requests, tail: 0, head: 0 };
    let mut replies = Producer { ring: replies, tail: 0, head: 0 };
    let mut spins = 0;
    while !is_over.load(Ordering::Relaxed) {
        let n = requests.read(TURN, |value| {
            while !replies.write(add_one(value)) {
                replies.publish();
                yield_now();
            }
        });
        replies.publish();
        spins = if n == 0 { spins + 1 } else { 0 };
        if spins > SPINS {
            yield_now();
        }
    }
}

#[inline(never)]
fn add_one(n: u64) -> u64 {
    n + 1
}

/// Returns how long this many no-ops take on this many threads.
///
/// # Panics
///
/// A result is wrong.
#[must_use]
pub fn bare_map(workers: usize, tasks: u64) -> Duration {
    let rings: Vec<_> = (0..workers).map(|_| (Ring::new(), Ring::new())).collect();
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        for (requests, replies) in &rings {
            scope.spawn(|| work(requests, replies, &is_over));
        }
        let mut ends: Vec<_> = rings
            .iter()
            .map(|(requests, replies)| {
                (
                    Producer { ring: requests, tail: 0, head: 0 },
                    Consumer { ring: replies, tail: 0, head: 0 },
                    Vec::with_capacity(tasks as usize / workers + TURN as usize),
                )
            })
            .collect();
        let start = Instant::now();
        let (mut next, mut received, mut spins) = (0, 0, 0);
        while received < tasks {
            let before = (next, received);
            for (requests, replies, results) in &mut ends {
                let end = tasks.min(next + TURN);
                while next < end && requests.write(next) {
                    next += 1;
                }
                requests.publish();
                received += replies.read(RECORDS, |value| results.push(value));
            }
            spins = if before == (next, received) { spins + 1 } else { 0 };
            if spins > SPINS {
                yield_now();
            }
        }
        let took = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let sum: u64 = ends.iter().flat_map(|(.., results)| results).sum();
        assert_eq!(sum, tasks * (tasks + 1) / 2, "every result is right");
        took
    })
}
