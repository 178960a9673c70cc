//! Models: the real ends over a place in which loom watches every byte.
//!
//! A byte that is read while it is being written, or before, fails a model. So does a sleeper that is never woken, because no
//! thread of the model can continue.
#![expect(unsafe_code, reason = "loom hands out pointers to what it watches")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::rc::Rc;

use loom::{
    cell::UnsafeCell,
    sync::{Condvar, Mutex},
    thread,
};

use super::{Broken, Consumer, Producer, header::Header, memory::RingMemory};
use crate::sync::{AtomicU32, Ordering};

/// A header and a few bytes that both ends hold. The threads of a model take turns on one thread, so a plain reference count
/// suffices.
#[derive(Clone)]
struct ModelMemory(Rc<(Header, Vec<UnsafeCell<u8>>)>);

fn ring(capacity: usize) -> (Producer<ModelMemory>, Consumer<ModelMemory>) {
    let place = ModelMemory(Rc::new((Header::new(), (0..capacity).map(|_| UnsafeCell::new(0)).collect())));
    (Producer::attach(place.clone()).unwrap(), Consumer::attach(place).unwrap())
}

impl RingMemory for ModelMemory {
    fn capacity(&self) -> Result<usize, Broken> {
        Ok(self.0.1.len())
    }

    fn header(&self) -> &Header {
        &self.0.0
    }

    fn put(&self, at: usize, parts: &[&[u8]]) {
        for (cell, byte) in self.0.1[at..].iter().zip(parts.concat()) {
            cell.with_mut(|to| {
                // SAFETY: loom ensures that no other thread accesses the cell now.
                unsafe { *to = byte }
            });
        }
    }

    fn append(&self, at: usize, len: usize, out: &mut Vec<u8>) {
        out.extend(self.0.1[at..at + len].iter().map(|cell| {
            cell.with(|from| {
                // SAFETY: loom ensures that no other thread writes the cell now.
                unsafe { *from }
            })
        }));
    }
}

/// Does for a word what the kernel does: checking the word and falling asleep is one step for a waker.
#[derive(Clone)]
struct Futex(Rc<(Mutex<()>, Condvar)>);

impl Futex {
    fn new() -> Self {
        Self(Rc::new((Mutex::new(()), Condvar::new())))
    }

    fn wait(&self, word: &AtomicU32) {
        let awake = self.0.0.lock().unwrap();
        if word.load(Ordering::Relaxed) == 1 {
            drop(self.0.1.wait(awake).unwrap());
        }
    }

    fn wake(&self) {
        let _awake = self.0.0.lock().unwrap();
        self.0.1.notify_one();
    }
}

/// Writes bytes one by one, and sleeps while there is no room.
fn write_all(producer: &mut Producer<ModelMemory>, bytes: &[u8], consumers: &Futex, producers: &Futex) {
    for byte in bytes {
        while producer.write(&[&[*byte]]) == Ok(0) {
            if producer.park() {
                producers.wait(producer.bell());
            }
        }
        if producer.take_bell().is_some() {
            consumers.wake();
        }
    }
}

/// Reads `len` bytes, and sleeps while there are none.
fn read_all(
    consumer: &mut Consumer<ModelMemory>,
    len: usize,
    consumers: &Futex,
    producers: &Futex,
) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < len {
        if consumer.read(&mut out, usize::MAX).unwrap() > 0 {
            if consumer.take_bell().is_some() {
                producers.wake();
            }
        } else if consumer.park() {
            consumers.wait(consumer.bell());
        }
    }
    out
}

/// Checks all orders of events with a limited number of preemptions. For models that would otherwise take minutes.
fn bounded(interruptions: usize) -> loom::model::Builder {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model
}

#[test]
fn published_bytes_arrive_complete_and_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(4);
        let writer = thread::spawn(move || {
            assert_eq!(producer.write(&[b"a", b"b"]), Ok(2));
            assert_eq!(producer.write(&[b"c"]), Ok(1));
        });
        let mut out = Vec::new();
        for _ in 0..2 {
            consumer.read(&mut out, usize::MAX).unwrap();
            assert!([&b""[..], b"ab", b"abc"].contains(&&out[..]), "{out:?}");
        }
        writer.join().unwrap();
        consumer.read(&mut out, usize::MAX).unwrap();
        assert_eq!(out, b"abc");
    });
}

#[test]
fn places_are_used_again_only_after_they_were_freed() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let mut out = Vec::new();
        assert_eq!(producer.write(&[b"a"]), Ok(1));
        assert_eq!(consumer.read(&mut out, 1), Ok(1));
        // From here on, every two bytes are split between the end and the start.
        assert_eq!(producer.write(&[b"bc"]), Ok(2));
        let writer = thread::spawn(move || {
            let sent = b"def";
            let mut gone = 0;
            for _ in 0..2 {
                gone += producer.write(&[&sent[gone..]]).unwrap();
            }
            (producer, gone)
        });
        for _ in 0..2 {
            consumer.read(&mut out, 2).unwrap();
        }
        let (mut producer, gone) = writer.join().unwrap();
        consumer.read(&mut out, 2).unwrap();
        producer.write(&[&b"def"[gone..]]).unwrap();
        consumer.read(&mut out, 2).unwrap();
        assert!(b"abcdef".starts_with(&out) && out.len() >= 5, "{out:?}");
    });
}

#[test]
fn a_consumer_that_parks_is_woken_by_a_write() {
    bounded(5).check(|| {
        let (mut producer, mut consumer) = ring(2);
        let (consumers, producers) = (Futex::new(), Futex::new());
        let writer = {
            let (consumers, producers) = (consumers.clone(), producers.clone());
            thread::spawn(move || write_all(&mut producer, b"ab", &consumers, &producers))
        };
        assert_eq!(read_all(&mut consumer, 2, &consumers, &producers), b"ab");
        writer.join().unwrap();
    });
}

#[test]
fn a_producer_that_parks_is_woken_by_a_read() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        assert_eq!(producer.write(&[b"ab"]), Ok(2));
        let (consumers, producers) = (Futex::new(), Futex::new());
        let writer = {
            let (consumers, producers) = (consumers.clone(), producers.clone());
            thread::spawn(move || {
                write_all(&mut producer, b"c", &consumers, &producers);
                producer
            })
        };
        let mut out = Vec::new();
        assert_eq!(consumer.read(&mut out, 1), Ok(1));
        if consumer.take_bell().is_some() {
            producers.wake();
        }
        let _producer = writer.join().unwrap();
        assert_eq!(consumer.read(&mut out, 2), Ok(2));
        assert_eq!(out, b"abc");
    });
}

#[test]
fn both_ends_park_and_neither_sleeps_for_ever() {
    bounded(3).check(|| {
        let (mut producer, mut consumer) = ring(1);
        let (consumers, producers) = (Futex::new(), Futex::new());
        let writer = {
            let (consumers, producers) = (consumers.clone(), producers.clone());
            thread::spawn(move || write_all(&mut producer, b"abc", &consumers, &producers))
        };
        assert_eq!(read_all(&mut consumer, 3, &consumers, &producers), b"abc");
        writer.join().unwrap();
    });
}

#[test]
fn all_that_was_written_before_the_close_is_read_and_a_parked_consumer_learns_of_it() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let consumers = Futex::new();
        let writer = {
            let consumers = consumers.clone();
            thread::spawn(move || {
                assert_eq!(producer.write(&[b"a"]), Ok(1));
                producer.close();
                if producer.take_bell().is_some() {
                    consumers.wake();
                }
            })
        };
        let mut out = Vec::new();
        loop {
            let closed = consumer.is_closed();
            if consumer.read(&mut out, usize::MAX).unwrap() > 0 {
                continue;
            }
            if closed {
                break;
            }
            if consumer.park() {
                consumers.wait(consumer.bell());
            }
        }
        assert_eq!(out, b"a");
        writer.join().unwrap();
    });
}

#[test]
fn a_byte_is_read_after_an_announcement_that_was_taken_back() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let consumers = Futex::new();
        let writer = {
            let consumers = consumers.clone();
            thread::spawn(move || {
                assert_eq!(producer.write(&[b"a"]), Ok(1));
                if producer.take_bell().is_some() {
                    consumers.wake();
                }
            })
        };
        // The first wait ends for another reason.
        if consumer.park() {
            consumer.unpark();
        }
        let mut out = Vec::new();
        while consumer.read(&mut out, 1) == Ok(0) {
            if consumer.park() {
                consumers.wait(consumer.bell());
            }
        }
        assert_eq!(out, b"a");
        writer.join().unwrap();
    });
}

#[test]
fn a_consumer_at_rest_has_published_its_answers() {
    loom::model(|| {
        let (mut requests, mut inbox) = ring(2);
        let (mut outbox, mut answers) = ring(2);
        assert_eq!(requests.write(&[&[7]]), Ok(1));
        let worker = thread::spawn(move || {
            let mut bytes = Vec::new();
            assert_eq!(inbox.read(&mut bytes, 1), Ok(1));
            assert_eq!(outbox.write(&[&bytes]), Ok(1));
            outbox.take_bell();
            inbox.park();
        });
        if requests.is_peer_at_rest() {
            let mut bytes = Vec::new();
            assert_eq!(answers.read(&mut bytes, 1), Ok(1), "it sleeps, and owes an answer");
        }
        worker.join().unwrap();
    });
}
