//! Workers that overwrite the memory that they share with the host. Only they are affected.

use std::{fs::File, os::unix::fs::FileExt, time::Duration};

use procession::{Pool, TaskError, delayed, worker};
use serde::{Deserialize, Serialize};

use crate::{alone::alone, event::take_time};

/// The place that is overwritten. The places are those of `docs/protocol.md`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Spot {
    /// The last task begun, and the first that may begin.
    Begun,
    Floor,
    /// A word of the header of the ring to the worker, or to the host.
    ToWorker(Word),
    ToHost(Word),
    /// The bytes that travel.
    DataToWorker,
    DataToHost,
    /// All of it.
    Everything,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Word {
    Mark,
    ProducerParked,
    ConsumerParked,
    Tail,
    Closed,
    Head,
}

const PAGE_BYTES: u64 = 4 << 10;
const HEADER_BYTES: u64 = 384;
const RING_BYTES: u64 = 256 << 10;
const RING_STRIDE: u64 = (HEADER_BYTES + RING_BYTES).next_multiple_of(PAGE_BYTES);

impl Word {
    fn offset(self) -> u64 {
        match self {
            Self::Mark => 0,
            Self::ProducerParked => 8,
            Self::ConsumerParked => 12,
            Self::Tail => 128,
            Self::Closed => 136,
            Self::Head => 256,
        }
    }

    fn len_bytes(self) -> u64 {
        match self {
            Self::Mark | Self::Tail | Self::Head => 8,
            Self::ProducerParked | Self::ConsumerParked | Self::Closed => 4,
        }
    }
}

const WORDS: [Word; 6] =
    [Word::Mark, Word::ProducerParked, Word::ConsumerParked, Word::Tail, Word::Closed, Word::Head];

impl Spot {
    /// Returns where it begins, and how long it is.
    fn place(self) -> (u64, u64) {
        let to_host = PAGE_BYTES + RING_STRIDE;
        match self {
            Self::Begun => (0, 4),
            Self::Floor => (4, 4),
            Self::ToWorker(word) => (PAGE_BYTES + word.offset(), word.len_bytes()),
            Self::ToHost(word) => (to_host + word.offset(), word.len_bytes()),
            Self::DataToWorker => (PAGE_BYTES + HEADER_BYTES, RING_BYTES),
            Self::DataToHost => (to_host + HEADER_BYTES, RING_BYTES),
            Self::Everything => (0, to_host + RING_STRIDE),
        }
    }
}

fn spots() -> impl Iterator<Item = Spot> {
    let words = WORDS.into_iter().flat_map(|word| [Spot::ToWorker(word), Spot::ToHost(word)]);
    [Spot::Begun, Spot::Floor].into_iter().chain(words).chain([
        Spot::DataToWorker,
        Spot::DataToHost,
        Spot::Everything,
    ])
}

/// The bytes that are written there.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Ink {
    Zeros,
    Ones,
    /// A number that is a little larger than the one that was there.
    More(u8),
    Noise(u64),
}

impl Ink {
    fn write(self, old: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Zeros => out.resize(old.len(), 0),
            Self::Ones => out.resize(old.len(), 0xff),
            Self::More(more) => {
                out.extend_from_slice(old);
                if let Some(first) = out.first_mut() {
                    *first = first.wrapping_add(more);
                }
            }
            Self::Noise(seed) => {
                let mut random = seed | 1;
                out.extend(old.iter().map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random as u8
                }));
            }
        }
    }
}

/// Writes over this process's own mapping of what it shares with the host.
#[worker]
fn scribble(spot: Spot, ink: Ink, times: u32) -> u32 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    let memory = File::options().read(true).write(true).open("/proc/self/mem").expect("our own memory");
    for line in maps.lines().filter(|line| line.contains("/memfd:procession ")) {
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split(' ').next().expect("its end");
        let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).expect("an address"));
        let (at, len) = spot.place();
        let (at, end) = (start + at, (start + at + len).min(end));
        for _ in 0..times {
            if at < end {
                let mut old = vec![0; (end - at) as usize];
                memory.read_exact_at(&mut old, at).expect("it is mapped");
                let mut new = Vec::new();
                ink.write(&old, &mut new);
                memory.write_all_at(&new, at).expect("it is mapped");
            }
        }
    }
    times
}

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn echo_slowly(n: u64) -> u64 {
    take_time(Duration::from_millis(2));
    n
}

/// The task has an outcome of any kind in time.
fn settle<T: serde::de::DeserializeOwned + 'static>(
    what: &dyn std::fmt::Debug,
    mut handle: procession::Handle<T>,
) -> Result<T, TaskError> {
    let outcome = handle.join_timeout(Duration::from_secs(20));
    outcome.unwrap_or_else(|| panic!("{what:?}: a task has no outcome"))
}

fn check(spot: Spot, ink: Ink, times: u32) {
    let what = (spot, ink, times);
    let pool = Pool::builder().jobs(2).retries(0).build().unwrap();
    assert_eq!(pool.map((0..50).map(|n| delayed!(echo(n)))).unwrap().len(), 50);
    // By itself, at a worker that has nothing else to do.
    let _ = settle(&what, pool.submit(delayed!(scribble(spot, ink, times))));
    // Before and behind others in one worker, while another has work of its own.
    let mut handles: Vec<_> = (0..20).map(|n| pool.submit(delayed!(echo(n)))).collect();
    let hostile = pool.submit(delayed!(scribble(spot, ink, times)));
    handles.extend((20..60).map(|n| pool.submit(delayed!(echo(n)))));
    let slow: Vec<_> = (0..5).map(|n| pool.submit(delayed!(echo_slowly(n)))).collect();
    let _ = settle(&what, hostile);
    let outcomes: Vec<_> = handles.into_iter().chain(slow).map(|handle| settle(&what, handle)).collect();
    // What the hostile one has not spoilt is right; and the pool is whole.
    let lost = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(lost < outcomes.len(), "{what:?}: {lost} lost");
    for round in 0..3 {
        let handles: Vec<_> = (0..30).map(|n| (n, pool.submit(delayed!(echo(n))))).collect();
        for (n, handle) in handles {
            match settle(&what, handle) {
                Ok(value) if round > 0 => assert_eq!(value, n, "{what:?}"),
                Ok(_) => {}
                Err(error) => assert!(round == 0, "{what:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_worker_that_writes_zeros_over_shared_memory_harms_itself_alone() {
    alone(|| spots().for_each(|spot| check(spot, Ink::Zeros, 1)));
}

#[test]
fn a_worker_that_writes_ones_over_shared_memory_harms_itself_alone() {
    alone(|| spots().for_each(|spot| check(spot, Ink::Ones, 1)));
}

#[test]
fn a_worker_that_nudges_what_it_shares_harms_itself_alone() {
    alone(|| spots().for_each(|spot| check(spot, Ink::More(7), 1)));
}

#[test]
fn a_worker_that_writes_noise_over_shared_memory_harms_itself_alone() {
    alone(|| spots().zip(1..).for_each(|(spot, seed)| check(spot, Ink::Noise(seed * 0x9e37_79b9), 40)));
}
