//! Plays any sequence of actions of two ends and of writes of a hostile peer, and checks everything that must hold.
//!
//! Property tests and the fuzz target `hostile_ring` generate the sequences.

use std::collections::VecDeque;

use super::{Broken, Consumer, HEADER_BYTES, Producer, heap::Heap, memory::RingMemory};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Writes parts of these lengths.
    Write([u8; 3]),
    /// Reads at most this many bytes.
    Read(u16),
    Room,
    Len,
    Close,
    /// Either end rings for the other.
    Ring(Side),
    Park(Side),
    Unpark(Side),
    /// Another end replaces this one.
    Attach(Side),
    /// The peer writes a shared word.
    Store(Word, u64),
    /// The peer changes a shared word by a little.
    Nudge(Word, i8),
    /// The peer writes a byte of the data.
    Scribble(u16, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Producer,
    Consumer,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Producer => Self::Consumer,
            Self::Consumer => Self::Producer,
        }
    }
}

/// A word of the header.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    Mark,
    ProducerParked,
    ConsumerParked,
    Tail,
    Closed,
    Head,
}

/// Plays steps on a ring of 2^`log` bytes.
///
/// # Panics
///
/// Panics if a check fails.
pub(super) fn play(log: u32, steps: impl IntoIterator<Item = Step>) {
    let capacity = 1 << log;
    let memory = Heap::new(HEADER_BYTES + capacity);
    let mut play = Play {
        capacity,
        producer: Producer::attach(memory.clone()).expect("the memory is fresh"),
        consumer: Consumer::attach(memory.clone()).expect("the memory is fresh"),
        memory,
        honest: Some(Honest::default()),
        next: 0,
        out: Vec::new(),
    };
    for step in steps {
        play.step(step);
    }
}

struct Play {
    capacity: usize,
    memory: Heap,
    producer: Producer<Heap>,
    consumer: Consumer<Heap>,
    /// The expected contents of the ring, until the peer has written something.
    honest: Option<Honest>,
    /// The next byte to write.
    next: u8,
    out: Vec<u8>,
}

/// The contents of an honest ring.
#[derive(Default)]
struct Honest {
    bytes: VecDeque<u8>,
    closed: bool,
    producer_parked: bool,
    consumer_parked: bool,
    written: bool,
    read: bool,
}

impl Honest {
    fn parked(&mut self, end: Side) -> &mut bool {
        match end {
            Side::Producer => &mut self.producer_parked,
            Side::Consumer => &mut self.consumer_parked,
        }
    }
}

impl Play {
    fn step(&mut self, step: Step) {
        match step {
            Step::Write(lens) => self.write(lens),
            Step::Read(most) => self.read(most.into()),
            Step::Room => {
                let room = self.producer.room();
                self.check(room, |honest, capacity| capacity - honest.bytes.len());
            }
            Step::Len => {
                let len = self.consumer.len_bytes();
                self.check(len, |honest, _| honest.bytes.len());
            }
            Step::Close => {
                self.producer.close();
                assert!(self.consumer.is_closed());
                self.honest.iter_mut().for_each(|honest| honest.closed = true);
            }
            Step::Ring(end) => self.ring(end),
            Step::Park(end) => self.park(end),
            Step::Unpark(end) => self.unpark(end),
            Step::Attach(end) => self.attach(end),
            Step::Store(word, value) => self.change(word, |_| value),
            Step::Nudge(word, by) => self.change(word, |value| value.wrapping_add_signed(by.into())),
            Step::Scribble(at, byte) => {
                self.honest = None;
                self.memory.put(usize::from(at) & (self.capacity - 1), &[&[byte]]);
            }
        }
    }

    fn ring(&mut self, by: Side) {
        let rings = match by {
            Side::Producer => {
                [self.producer.take_bell(), self.producer.take_bell()].map(|bell| bell.is_some())
            }
            Side::Consumer => {
                [self.consumer.take_bell(), self.consumer.take_bell()].map(|bell| bell.is_some())
            }
        };
        if let Some(honest) = &mut self.honest {
            assert_eq!(rings[0], std::mem::take(honest.parked(by.other())));
        }
        assert!(!rings[1]);
    }

    fn park(&mut self, end: Side) {
        let sleeps = match end {
            Side::Producer => self.producer.park(),
            Side::Consumer => self.consumer.park(),
        };
        let bell = match end {
            Side::Producer => self.producer.bell(),
            Side::Consumer => self.consumer.bell(),
        };
        assert_eq!(bell.load(Ordering::Relaxed), u32::from(sleeps));
        if let Some(honest) = &mut self.honest {
            let must_sleep = match end {
                Side::Producer => honest.bytes.len() == self.capacity,
                Side::Consumer => honest.bytes.is_empty() && !honest.closed,
            };
            assert_eq!(sleeps, must_sleep);
            *honest.parked(end) = sleeps;
        }
    }

    fn unpark(&mut self, end: Side) {
        match end {
            Side::Producer => self.producer.unpark(),
            Side::Consumer => self.consumer.unpark(),
        }
        self.honest.iter_mut().for_each(|honest| *honest.parked(end) = false);
    }

    fn attach(&mut self, end: Side) {
        let refused = match end {
            Side::Producer => {
                Producer::attach(self.memory.clone()).map(|producer| self.producer = producer).err()
            }
            Side::Consumer => {
                Consumer::attach(self.memory.clone()).map(|consumer| self.consumer = consumer).err()
            }
        };
        if let Some(honest) = &self.honest {
            let used = if end == Side::Producer { honest.written } else { honest.read };
            assert_eq!(refused, used.then_some(Broken::Used));
        }
    }

    fn write(&mut self, lens: [u8; 3]) {
        let bytes: Vec<u8> = (0..lens.iter().map(|&len| usize::from(len)).sum())
            .map(|i| self.next.wrapping_add(i as u8))
            .collect();
        let (one, rest) = bytes.split_at(lens[0].into());
        let (two, three) = rest.split_at(lens[1].into());
        let written = self.producer.write(&[one, two, three]);
        let len = self.check(written, |honest, capacity| bytes.len().min(capacity - honest.bytes.len()));
        assert!(len <= bytes.len());
        self.next = self.next.wrapping_add(len as u8);
        if let Some(honest) = &mut self.honest {
            honest.bytes.extend(&bytes[..len]);
            honest.written |= len > 0;
            assert_eq!(self.consumer.is_empty(), honest.bytes.is_empty());
        }
    }

    fn read(&mut self, most: usize) {
        // What was in the vector stays there.
        let before = self.out.len();
        let read = self.consumer.read(&mut self.out, most);
        let len = self.check(read, |honest, _| honest.bytes.len().min(most));
        assert!(len <= most);
        assert_eq!(self.out.len(), before + len);
        if let Some(honest) = &mut self.honest {
            assert!(honest.bytes.drain(..len).eq(self.out[before..].iter().copied()));
            honest.read |= len > 0;
            assert_eq!(self.consumer.is_empty(), honest.bytes.is_empty());
        }
        if self.out.len() > self.capacity {
            self.out.clear();
        }
    }

    /// Checks a length that an end reports: it is at most the capacity, and as expected for an honest ring. Returns the length.
    fn check(&self, said: Result<usize, Broken>, expected: impl Fn(&Honest, usize) -> usize) -> usize {
        if let Some(honest) = &self.honest {
            assert_eq!(said, Ok(expected(honest, self.capacity)));
        }
        assert!(matches!(said, Ok(0..) | Err(Broken::Cursor)), "{said:?}");
        let len = said.unwrap_or(0);
        assert!(len <= self.capacity);
        len
    }

    fn change(&mut self, word: Word, change: impl Fn(u64) -> u64) {
        self.honest = None;
        let header = self.memory.header();
        let small = |word: &AtomicU32| {
            word.store(change(word.load(Ordering::Relaxed).into()) as u32, Ordering::Relaxed);
        };
        let large = |word: &AtomicU64| {
            word.store(change(word.load(Ordering::Relaxed)), Ordering::Relaxed);
        };
        match word {
            Word::Mark => large(&header.mark),
            Word::ProducerParked => small(&header.producer_parked),
            Word::ConsumerParked => small(&header.consumer_parked),
            Word::Tail => large(&header.tail),
            Word::Closed => small(&header.closed),
            Word::Head => large(&header.head),
        }
    }
}

/// Plays a script of bytes. The first one gives the size of the ring, and each step is a byte and its arguments.
///
/// # Panics
///
/// Panics if a check fails.
pub(crate) fn play_script(script: &[u8]) {
    let mut script = Script(script.iter());
    let log = script.byte() % 9;
    play(log.into(), script);
}

struct Script<'a>(std::slice::Iter<'a, u8>);

impl Script<'_> {
    /// Returns the next byte, or 0 after the end.
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn word(&mut self) -> Word {
        match self.byte() % 6 {
            0 => Word::Mark,
            1 => Word::ProducerParked,
            2 => Word::ConsumerParked,
            3 => Word::Tail,
            4 => Word::Closed,
            _ => Word::Head,
        }
    }
}

impl Iterator for Script<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(match self.0.next()? % 16 {
            0 => Step::Write(self.bytes()),
            1 => Step::Write([self.byte(), 0, 0]),
            2 => Step::Read(u16::from_le_bytes(self.bytes())),
            3 => Step::Room,
            4 => Step::Len,
            5 => Step::Close,
            6 => Step::Ring(Side::Producer),
            7 => Step::Ring(Side::Consumer),
            8 => Step::Park(Side::Producer),
            9 => Step::Park(Side::Consumer),
            10 => Step::Unpark(if self.byte() & 1 == 0 { Side::Producer } else { Side::Consumer }),
            11 => Step::Attach(if self.byte() & 1 == 0 { Side::Producer } else { Side::Consumer }),
            12 => Step::Store(self.word(), u64::from_le_bytes(self.bytes())),
            13 | 14 => Step::Nudge(self.word(), self.byte() as i8),
            _ => Step::Scribble(u16::from_le_bytes(self.bytes()), self.byte()),
        })
    }
}
