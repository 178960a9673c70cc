//! What honest ends give each other, over memory of this process.
#![expect(unsafe_code, reason = "lends memory")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
    sync::Arc,
    thread,
};

use super::{Broken, Consumer, HEADER_BYTES, Memory, Producer};

/// Memory of this process, all zero, which its last holder frees.
#[derive(Clone, Debug)]
pub(super) struct Lent {
    base: NonNull<u8>,
    len_bytes: usize,
    _block: Arc<Block>,
}

// SAFETY: as for the block.
unsafe impl Send for Lent {}

#[derive(Debug)]
struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is plain memory, tied to no thread.
unsafe impl Send for Block {}
// SAFETY: `&Block` gives out an address only.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody holds it any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl Lent {
    pub(super) fn new(len_bytes: usize) -> Self {
        let layout = Layout::from_size_align(len_bytes, 64).unwrap();
        // SAFETY: no test asks for no memory at all.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).expect("there is memory");
        Self { base, len_bytes, _block: Arc::new(Block { base, layout }) }
    }
}

// SAFETY: the block is aligned to 64 and valid for its length, and it stays where it is as long as somebody holds it; tests attach
// one end of each kind.
unsafe impl Memory for Lent {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

pub(super) fn ring(capacity: usize) -> (Producer<Lent>, Consumer<Lent>) {
    let memory = Lent::new(HEADER_BYTES + capacity);
    (Producer::attach(memory.clone()).unwrap(), Consumer::attach(memory).unwrap())
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + salt) as u8).collect()
}

#[test]
fn what_is_written_is_read_whichever_end_comes_first() {
    let memory = Lent::new(HEADER_BYTES + 16);
    let mut consumer = Consumer::attach(memory.clone()).unwrap();
    let mut producer = Producer::attach(memory).unwrap();
    assert!(consumer.is_empty());
    assert_eq!(producer.write(&[b"ab", b"", b"cde"]), Ok(5));
    assert!(!consumer.is_empty());
    assert_eq!(consumer.len_bytes(), Ok(5));
    let mut out = b">".to_vec();
    assert_eq!(consumer.read(&mut out, 4), Ok(4));
    assert_eq!(consumer.read(&mut out, 4), Ok(1));
    assert_eq!(consumer.read(&mut out, 4), Ok(0));
    assert_eq!(out, b">abcde");
}

#[test]
fn pieces_of_every_length_arrive_whole_at_every_place() {
    let (mut producer, mut consumer) = ring(256);
    for len in 0..=256 {
        let sent = pattern(len, len);
        let (one, two) = sent.split_at(len / 3);
        assert_eq!(producer.write(&[one, two]), Ok(len));
        let mut out = Vec::new();
        assert_eq!(consumer.read(&mut out, usize::MAX), Ok(len));
        assert_eq!(out, sent);
    }
}

#[test]
fn a_write_takes_what_there_is_room_for() {
    let (mut producer, mut consumer) = ring(8);
    assert_eq!(producer.write(&[b"abcde", b"fghij", b"klm"]), Ok(8));
    assert_eq!(producer.write(&[b"x"]), Ok(0));
    let mut out = Vec::new();
    assert_eq!(consumer.read(&mut out, 3), Ok(3));
    assert_eq!(producer.room(), Ok(3));
    assert_eq!(producer.write(&[b"1234"]), Ok(3));
    assert_eq!(consumer.read(&mut out, 100), Ok(8));
    assert_eq!(out, b"abcdefgh123");
}

#[test]
fn more_than_the_ring_holds_goes_through_in_pieces() {
    let (mut producer, mut consumer) = ring(64);
    let sent = pattern(100_000, 3);
    let expected = sent.clone();
    let writer = thread::spawn(move || {
        let mut gone = 0;
        while gone < sent.len() {
            match producer.write(&[&sent[gone..]]).unwrap() {
                0 => thread::yield_now(),
                len => gone += len,
            }
        }
        producer.close();
    });
    let mut out = Vec::new();
    loop {
        let closed = consumer.is_closed();
        if consumer.read(&mut out, usize::MAX).unwrap() == 0 {
            if closed {
                break;
            }
            thread::yield_now();
        }
    }
    writer.join().unwrap();
    assert!(out == expected);
}

#[test]
fn an_end_is_woken_once_and_only_if_it_announced_that_it_sleeps() {
    let (mut producer, mut consumer) = ring(4);
    assert!(!producer.take_bell());
    assert!(consumer.park());
    assert_eq!(consumer.bell().load(crate::sync::Ordering::Relaxed), 1);
    assert_eq!(producer.write(&[b"abcd"]), Ok(4));
    assert!(producer.take_bell());
    assert_eq!(consumer.bell().load(crate::sync::Ordering::Relaxed), 0);
    assert!(!producer.take_bell());
    assert!(!consumer.park(), "there is something to read");
    assert!(!producer.take_bell(), "and it does not sleep");

    assert!(producer.park());
    assert_eq!(consumer.read(&mut Vec::new(), 1), Ok(1));
    assert!(consumer.take_bell() && !consumer.take_bell());
    assert!(!producer.park(), "there is room");

    assert_eq!(consumer.read(&mut Vec::new(), 9), Ok(3));
    assert!(consumer.park());
    consumer.unpark();
    assert!(!producer.take_bell());
    producer.close();
    assert!(!consumer.park(), "no more will come");
}

#[test]
fn unfit_memory_is_refused() {
    for len_bytes in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3, HEADER_BYTES + 4095] {
        assert_eq!(Producer::attach(Lent::new(len_bytes)).err(), Some(Broken::Unfit), "{len_bytes}");
        assert_eq!(Consumer::attach(Lent::new(len_bytes)).err(), Some(Broken::Unfit), "{len_bytes}");
    }
}

#[test]
fn a_ring_that_was_used_is_refused() {
    let memory = Lent::new(HEADER_BYTES + 8);
    let mut producer = Producer::attach(memory.clone()).unwrap();
    assert_eq!(producer.write(&[b"a"]), Ok(1));
    drop(producer);
    assert_eq!(Producer::attach(memory.clone()).err(), Some(Broken::Used));
    let mut consumer = Consumer::attach(memory.clone()).unwrap();
    assert_eq!(consumer.read(&mut Vec::new(), 1), Ok(1));
    drop(consumer);
    assert_eq!(Consumer::attach(memory).err(), Some(Broken::Used));
}
