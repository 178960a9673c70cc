//! Models: the real slots and bells over a place in which loom watches every byte, with participants that stop at any step.
#![expect(unsafe_code, reason = "loom hands out pointers to what it watches")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{panic, rc::Rc};

use loom::{
    cell::UnsafeCell,
    sync::{Condvar, Mutex},
    thread,
};

use super::{
    bell::Bell,
    slots::{Entry, Refusal, SlotMemory, Slots, Step},
};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What the participants of a channel share. The threads of a model take turns on one thread, so a plain reference count suffices.
struct Place {
    tail: AtomicU64,
    head: AtomicU64,
    slots: Vec<(AtomicU64, UnsafeCell<u8>)>,
    /// What the kernel knows of sleepers.
    senders: Futex,
    receivers: Futex,
}

/// A bell, and what the kernel does for it: checking the word and falling asleep is one step for a waker.
struct Futex {
    word: AtomicU32,
    kernel: (Mutex<()>, Condvar),
}

impl Futex {
    fn new() -> Self {
        Self { word: AtomicU32::new(0), kernel: (Mutex::new(()), Condvar::new()) }
    }

    fn bell(&self) -> Bell<'_> {
        Bell(&self.word)
    }

    fn wait(&self) {
        let awake = self.kernel.0.lock().unwrap();
        if self.word.load(Ordering::Relaxed) == 1 {
            drop(self.kernel.1.wait(awake).unwrap());
        }
    }

    fn wake_if(&self, is_rung: bool) {
        if is_rung {
            let _awake = self.kernel.0.lock().unwrap();
            self.kernel.1.notify_one();
        }
    }

    fn ring_after_slot(&self) {
        self.wake_if(self.bell().ring_after_ordered());
    }

    /// Repeats an attempt until it succeeds, and sleeps in between.
    fn wait_for<R>(&self, mut attempt: impl FnMut() -> Result<R, Refusal>, has_more: impl Fn() -> bool) -> R {
        let mut has_slept = false;
        let result = loop {
            if let Ok(result) = attempt() {
                break result;
            }
            self.bell().announce();
            has_slept = true;
            if let Ok(result) = attempt() {
                break result;
            }
            self.wait();
        };
        if has_slept {
            self.wake_if(self.bell().hand_on(has_more));
        }
        result
    }
}

/// A participant of a model.
#[derive(Clone)]
struct Participant {
    place: Rc<Place>,
    entry: Entry,
    dies_at: Option<Step>,
}

impl SlotMemory for Participant {
    fn capacity(&self) -> u64 {
        self.place.slots.len() as u64
    }

    fn tail(&self) -> &AtomicU64 {
        &self.place.tail
    }

    fn head(&self) -> &AtomicU64 {
        &self.place.head
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        &self.place.slots[index as usize].0
    }

    fn put(&self, index: u64, message: &[u8]) {
        self.place.slots[index as usize].1.with_mut(|to| {
            // SAFETY: loom ensures that no other thread accesses the cell now.
            unsafe { *to = message[0] }
        });
    }

    fn append(&self, index: u64, out: &mut Vec<u8>) {
        out.push(self.place.slots[index as usize].1.with(|from| {
            // SAFETY: loom ensures that no other thread writes the cell now.
            unsafe { *from }
        }));
    }

    fn step(&self, step: Step) {
        if self.dies_at == Some(step) {
            panic::resume_unwind(Box::new(step));
        }
    }
}

/// Makes a channel. Returns what makes its participants.
fn channel(capacity: usize) -> Rc<Place> {
    Rc::new(Place {
        tail: AtomicU64::new(0),
        head: AtomicU64::new(0),
        slots: (0..capacity).map(|_| (AtomicU64::new(0), UnsafeCell::new(0))).collect(),
        senders: Futex::new(),
        receivers: Futex::new(),
    })
}

fn join(place: &Rc<Place>, entry: Entry) -> Slots<Participant> {
    Slots::new(Participant { place: place.clone(), entry, dies_at: None })
}

fn mortal(place: &Rc<Place>, entry: Entry, dies_at: Step) -> Slots<Participant> {
    Slots::new(Participant { place: place.clone(), entry, dies_at: Some(dies_at) })
}

fn send(slots: &Slots<Participant>, message: u8) {
    let Participant { place, entry, .. } = slots.memory();
    place.senders.wait_for(|| slots.send(*entry, &[message]), || slots.has_room());
    place.receivers.ring_after_slot();
}

fn receive(slots: &Slots<Participant>) -> u8 {
    let Participant { place, entry, .. } = slots.memory();
    let taken = place.receivers.wait_for(|| slots.take(*entry), || slots.has_some());
    let mut bytes = Vec::new();
    slots.append(&taken, &mut bytes);
    slots.finish(&taken);
    place.senders.ring_after_slot();
    bytes[0]
}

/// Receives what there is.
fn drain(slots: &Slots<Participant>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(taken) = slots.take(slots.memory().entry) {
        slots.append(&taken, &mut bytes);
        slots.finish(&taken);
    }
    bytes
}

/// Runs a participant until it dies or is done. Returns whether it died.
fn until_death(live: impl FnOnce()) -> bool {
    panic::catch_unwind(panic::AssertUnwindSafe(live)).is_err()
}

/// Checks all orders of events with a limited number of preemptions. For models that would otherwise take minutes.
fn bounded(interruptions: usize) -> loom::model::Builder {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model
}

#[test]
fn messages_of_one_sender_arrive_complete_and_in_order() {
    bounded(2).check(|| {
        let place = channel(2);
        let sender = {
            let slots = join(&place, 1);
            thread::spawn(move || (1..=3).for_each(|message| send(&slots, message)))
        };
        let slots = join(&place, 2);
        assert_eq!([receive(&slots), receive(&slots), receive(&slots)], [1, 2, 3]);
        sender.join().unwrap();
    });
}

#[test]
fn each_message_of_two_senders_arrives_once() {
    bounded(2).check(|| {
        let place = channel(1);
        let senders = [1, 2].map(|entry| {
            let slots = join(&place, entry);
            thread::spawn(move || send(&slots, entry as u8))
        });
        let slots = join(&place, 3);
        let mut received = [receive(&slots), receive(&slots)];
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn each_message_arrives_at_one_of_two_receivers_and_neither_sleeps_for_ever() {
    bounded(2).check(|| {
        let place = channel(2);
        let receivers = [1, 2].map(|entry| {
            let slots = join(&place, entry);
            thread::spawn(move || receive(&slots))
        });
        let slots = join(&place, 3);
        send(&slots, 1);
        send(&slots, 2);
        let mut received = receivers.map(|receiver| receiver.join().unwrap());
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn a_sender_that_dies_leaves_a_message_or_nothing_and_room() {
    for step in [Step::Claimed, Step::Written, Step::Published] {
        bounded(2).check(move || {
            let place = channel(2);
            let dying = {
                let slots = mortal(&place, 1, step);
                thread::spawn(move || assert!(until_death(|| send(&slots, 9))))
            };
            let other = {
                let slots = join(&place, 2);
                thread::spawn(move || send(&slots, 2))
            };
            dying.join().unwrap();
            let slots = join(&place, 3);
            slots.recover(1);
            other.join().unwrap();
            let mut received = drain(&slots);
            received.sort_unstable();
            assert_eq!(received, if step == Step::Published { &[2, 9][..] } else { &[2] });
            // Both slots are free again.
            assert_eq!((slots.send(3, &[4]), slots.send(3, &[5])), (Ok(()), Ok(())));
            assert_eq!(slots.send(3, &[6]), Err(Refusal::NotNow));
            assert_eq!(drain(&slots), [4, 5]);
        });
    }
}

#[test]
fn a_message_whose_receiver_dies_is_received_by_another_unless_it_was_finished() {
    for step in [Step::Taken, Step::Copied, Step::Finished] {
        bounded(2).check(move || {
            let place = channel(2);
            let slots = join(&place, 3);
            send(&slots, 1);
            send(&slots, 2);
            let dying = {
                let slots = mortal(&place, 1, step);
                thread::spawn(move || until_death(|| assert_eq!(drain(&slots), [])))
            };
            // It looks on while the other one dies and is recovered.
            let other = {
                let slots = join(&place, 2);
                thread::spawn(move || drain(&slots))
            };
            let has_died = dying.join().unwrap();
            slots.recover(1);
            let mut received = other.join().unwrap();
            received.append(&mut drain(&slots));
            received.sort_unstable();
            match (has_died && step == Step::Finished, &received[..]) {
                (false, [1, 2]) | (true, [1] | [2]) => {}
                _ => panic!("{received:?} was received, and one died at {step:?}: {has_died}"),
            }
        });
    }
}

#[test]
fn a_recovery_that_dies_is_finished_by_another() {
    bounded(2).check(|| {
        let place = channel(2);
        let slots = join(&place, 3);
        send(&slots, 1);
        send(&slots, 2);
        let reader = mortal(&place, 1, Step::Copied);
        assert!(until_death(|| assert_eq!(drain(&reader), [])));
        let recovering = {
            let slots = mortal(&place, 4, Step::Repaired);
            thread::spawn(move || until_death(|| slots.recover(1)))
        };
        let other = {
            let slots = join(&place, 2);
            thread::spawn(move || drain(&slots))
        };
        recovering.join().unwrap();
        slots.recover(1);
        let mut received = other.join().unwrap();
        received.append(&mut drain(&slots));
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn nothing_is_sent_by_slots_after_they_were_closed_and_all_before_is_received() {
    bounded(2).check(|| {
        let place = channel(2);
        let senders = [1, 2].map(|entry| {
            let slots = join(&place, entry);
            thread::spawn(move || {
                if entry == 2 {
                    slots.close().unwrap();
                }
                slots.send(entry, &[entry as u8])
            })
        });
        let outcomes = senders.map(|sender| sender.join().unwrap());
        let slots = join(&place, 3);
        assert_eq!(outcomes[1], Err(Refusal::Closed));
        assert_eq!(drain(&slots), if outcomes[0].is_ok() { &[1][..] } else { &[] });
        assert_eq!(slots.take(3).unwrap_err(), Refusal::Closed);
        assert_eq!(slots.send(3, &[3]), Err(Refusal::Closed));
    });
}
