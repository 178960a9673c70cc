//! Tests of two honest ends in the memory of this process, and of an end with a hostile peer.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::{
    Broken, Consumer, HEADER_BYTES, Producer,
    heap::Heap,
    memory::RingMemory,
    scenario::{Side, Step, Word, play, play_script},
};
use crate::sys::futex;

fn ring(capacity: usize) -> (Producer<Heap>, Consumer<Heap>) {
    let memory = Heap::new(HEADER_BYTES + capacity);
    (Producer::attach(memory.clone()).unwrap(), Consumer::attach(memory).unwrap())
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + salt) as u8).collect()
}

#[test]
fn written_bytes_are_read_in_either_order_of_attachment() {
    let memory = Heap::new(HEADER_BYTES + 16);
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
fn a_stream_arrives_whole_while_both_ends_sleep_whenever_they_can() {
    let (mut producer, mut consumer) = ring(16);
    let sent = pattern(20_000, 5);
    let expected = sent.clone();
    let sleep = |bell: &_| {
        assert!(futex::wait(bell, 1, Some(Duration::from_secs(20))).unwrap(), "the bell is not rung")
    };
    let writer = thread::spawn(move || {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let len = producer.write(&[&rest[..rest.len().min(7)]]).unwrap();
            rest = &rest[len..];
            if len > 0
                && let Some(bell) = producer.take_bell()
            {
                futex::wake(bell).unwrap();
            }
            if len == 0 && producer.park() {
                sleep(producer.bell());
            }
        }
        producer.close();
        if let Some(bell) = producer.take_bell() {
            futex::wake(bell).unwrap();
        }
    });
    let mut out = Vec::new();
    loop {
        let closed = consumer.is_closed();
        let len = consumer.read(&mut out, 5).unwrap();
        if len > 0
            && let Some(bell) = consumer.take_bell()
        {
            futex::wake(bell).unwrap();
        }
        if len == 0 && closed {
            break;
        }
        if len == 0 && consumer.park() {
            sleep(consumer.bell());
        }
    }
    writer.join().unwrap();
    assert!(out == expected);
}

#[test]
fn an_end_is_woken_once_and_only_if_it_announced_that_it_sleeps() {
    let (mut producer, mut consumer) = ring(4);
    assert!(producer.take_bell().is_none());
    assert!(consumer.park());
    assert_eq!(consumer.bell().load(Ordering::Relaxed), 1);
    assert_eq!(producer.write(&[b"abcd"]), Ok(4));
    assert!(producer.take_bell().is_some());
    assert_eq!(consumer.bell().load(Ordering::Relaxed), 0);
    assert!(producer.take_bell().is_none());
    assert!(!consumer.park(), "there is something to read");
    assert!(producer.take_bell().is_none(), "and it does not sleep");

    assert!(producer.park());
    assert_eq!(consumer.read(&mut Vec::new(), 1), Ok(1));
    assert!(consumer.take_bell().is_some() && consumer.take_bell().is_none());
    assert!(!producer.park(), "there is room");

    assert_eq!(consumer.read(&mut Vec::new(), 9), Ok(3));
    assert!(consumer.park());
    consumer.unpark();
    assert!(producer.take_bell().is_none());
    producer.close();
    assert!(!consumer.park(), "no more will come");
}

#[test]
fn unfit_memory_is_refused() {
    for len_bytes in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3, HEADER_BYTES + 4095] {
        assert_eq!(Producer::attach(Heap::new(len_bytes)).err(), Some(Broken::Unfit), "{len_bytes}");
        assert_eq!(Consumer::attach(Heap::new(len_bytes)).err(), Some(Broken::Unfit), "{len_bytes}");
    }
}

#[test]
fn a_ring_that_was_used_is_refused() {
    let memory = Heap::new(HEADER_BYTES + 8);
    let mut producer = Producer::attach(memory.clone()).unwrap();
    assert_eq!(producer.write(&[b"a"]), Ok(1));
    drop(producer);
    assert_eq!(Producer::attach(memory.clone()).err(), Some(Broken::Used));
    let mut consumer = Consumer::attach(memory.clone()).unwrap();
    assert_eq!(consumer.read(&mut Vec::new(), 1), Ok(1));
    drop(consumer);
    assert_eq!(Consumer::attach(memory).err(), Some(Broken::Used));
}

#[test]
fn a_cursor_that_ran_ahead_or_went_back_is_refused() {
    let memory = Heap::new(HEADER_BYTES + 8);
    let mut producer = Producer::attach(memory.clone()).unwrap();
    let mut consumer = Consumer::attach(memory.clone()).unwrap();
    assert_eq!(producer.write(&[b"abcdef"]), Ok(6));
    assert_eq!(consumer.read(&mut Vec::new(), 3), Ok(3));
    assert_eq!((producer.room(), consumer.len_bytes()), (Ok(5), Ok(3)));
    let header = memory.header();
    for tail in [0, 2, 3, 5, 12, u64::MAX] {
        header.tail.store(tail, Ordering::Relaxed);
        assert_eq!(consumer.len_bytes(), Err(Broken::Cursor), "{tail}");
        assert_eq!(consumer.read(&mut Vec::new(), 4), Err(Broken::Cursor), "{tail}");
    }
    for head in [0, 2, 7, 100, u64::MAX] {
        header.head.store(head, Ordering::Relaxed);
        assert_eq!(producer.room(), Err(Broken::Cursor), "{head}");
        assert_eq!(producer.write(&[b"123456"]), Err(Broken::Cursor), "{head}");
    }
    header.tail.store(11, Ordering::Relaxed);
    header.head.store(6, Ordering::Relaxed);
    assert_eq!((producer.room(), consumer.len_bytes()), (Ok(8), Ok(8)), "an end is as it was before");
}

#[test]
fn memory_that_is_marked_otherwise_is_refused() {
    let memory = Heap::new(HEADER_BYTES + 8);
    Producer::attach(memory.clone()).unwrap();
    let mark = memory.header().mark.load(Ordering::Relaxed);
    for other in [mark + 1, mark ^ (1 << 16), mark ^ (1 << 40), u64::MAX] {
        memory.header().mark.store(other, Ordering::Relaxed);
        assert_eq!(Consumer::attach(memory.clone()).err(), Some(Broken::Mark), "{other:x}");
    }
}

#[test]
fn a_peer_that_moves_the_cursors_while_an_end_works_gains_nothing() {
    let memory = Heap::new(HEADER_BYTES + 64);
    // One end works at a time. A peer that writes the data is another process.
    let mut producer = Producer::attach(memory.clone()).unwrap();
    let mut consumer = Consumer::attach(memory.clone()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let peer = {
        let done = done.clone();
        thread::spawn(move || {
            let header = memory.header();
            for i in 0_u64.. {
                let value = if i % 7 == 0 { u64::MAX - i } else { i / 5 % 200 };
                header.head.store(value, Ordering::Release);
                header.tail.store(value, Ordering::Release);
                header.closed.store(i as u32, Ordering::Release);
                header.producer_parked.store(i as u32, Ordering::Release);
                header.consumer_parked.store(i as u32, Ordering::Release);
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    };
    let mut out = Vec::new();
    for len in (0..100).cycle().take(100_000) {
        if let Ok(written) = producer.write(&[&[1; 100][..len / 2], &[2; 100][..len - len / 2]]) {
            assert!(written <= len.min(64));
        }
        if let Ok(room) = producer.room() {
            assert!(room <= 64);
        }
        producer.park();
        producer.take_bell();
        out.clear();
        if let Ok(read) = consumer.read(&mut out, len) {
            assert!(read <= len.min(64) && read == out.len());
        }
        consumer.park();
        consumer.take_bell();
    }
    done.store(true, Ordering::Relaxed);
    peer.join().unwrap();
}

fn end() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Producer), Just(Side::Consumer)]
}

/// Actions of two honest ends.
fn honest() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<[u8; 3]>().prop_map(Step::Write),
        4 => (0_u8..10).prop_map(|len| Step::Write([len, 0, 1])),
        4 => (0_u16..600).prop_map(Step::Read),
        4 => (0_u16..10).prop_map(Step::Read),
        1 => Just(Step::Room),
        1 => Just(Step::Len),
        1 => Just(Step::Close),
        2 => end().prop_map(Step::Ring),
        2 => end().prop_map(Step::Park),
        1 => end().prop_map(Step::Unpark),
        1 => end().prop_map(Step::Attach),
    ]
}

/// Actions of a hostile peer.
fn hostile() -> impl Strategy<Value = Step> {
    let word = prop_oneof![
        Just(Word::Mark),
        Just(Word::ProducerParked),
        Just(Word::ConsumerParked),
        Just(Word::Tail),
        Just(Word::Closed),
        Just(Word::Head),
    ];
    prop_oneof![
        (word.clone(), any::<u64>()).prop_map(|(word, value)| Step::Store(word, value)),
        (word, any::<i8>()).prop_map(|(word, by)| Step::Nudge(word, by)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Step::Scribble(at, byte)),
    ]
}

proptest! {
    #[test]
    fn honest_ends_give_each_other_a_stream(log in 0_u32..9, steps in vec(honest(), 0..100)) {
        play(log, steps);
    }

    #[test]
    fn a_hostile_peer_gains_nothing(log in 0_u32..9, steps in vec(prop_oneof![3 => honest(), 1 => hostile()], 0..100)) {
        play(log, steps);
    }

    #[test]
    fn every_script_can_be_played(script in vec(any::<u8>(), 0..400)) {
        play_script(&script);
    }
}
