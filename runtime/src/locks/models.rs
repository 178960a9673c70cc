//! Models: the real words, with processes that end at any step and others that repair what they have left.
//!
//! A value that two use at the same time fails a model. So does a sleeper that is never woken, because no thread of the model can continue. A
//! waiter of the real locks looks every 50 ms. These do not, so each wake-up that is missing is found, except for those of the dead.
#![expect(unsafe_code, reason = "loom hands out pointers to what it watches")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{panic, rc::Rc};

use loom::{
    cell::UnsafeCell,
    sync::{Condvar, Mutex},
    thread,
};

use super::{
    barrier::BarrierWord,
    rw_words::RwWords,
    semaphore::Permits,
    word::{HasDied, LockWord},
};
use crate::sync::{
    AtomicU32,
    steps::{Ended, end_at},
};

/// The position of the first reader's word.
const READERS: usize = 2;

/// The words of one lock, and the value behind it. The threads of a model take turns on one thread, so a plain reference count suffices.
struct Place {
    words: [AtomicU32; 4],
    value: UnsafeCell<u32>,
    /// What the kernel does for each word: checking a word and falling asleep is one step for a waker.
    kernel: [(Mutex<()>, Condvar); 4],
}

impl Place {
    fn new() -> Rc<Self> {
        let words = [0; 4].map(AtomicU32::new);
        let kernel = [(); 4].map(|()| (Mutex::new(()), Condvar::new()));
        Rc::new(Self { words, value: UnsafeCell::new(0), kernel })
    }

    /// Sleeps until the word at this position is woken, unless it has another value.
    fn sleep(&self, at: usize, seen: u32) -> bool {
        let (asleep, woken) = &self.kernel[at];
        let awake = asleep.lock().unwrap();
        if self.words[at].load(crate::sync::Ordering::Relaxed) == seen {
            drop(woken.wait(awake).unwrap());
        }
        true
    }

    fn wake(&self, at: usize) {
        let (asleep, woken) = &self.kernel[at];
        let _awake = asleep.lock().unwrap();
        woken.notify_all();
    }

    fn wake_all(&self) {
        (0..4).for_each(|at| self.wake(at));
    }

    fn change(&self) {
        self.value.with_mut(|value| {
            // SAFETY: loom ensures that no other thread accesses the value now.
            unsafe { *value += 1 }
        });
    }

    fn read(&self) -> u32 {
        self.value.with(|value| {
            // SAFETY: loom ensures that no other thread writes the value now.
            unsafe { *value }
        })
    }

    fn lock(&self) -> LockWord<'_> {
        LockWord(&self.words[0])
    }

    /// Takes the lock, changes the value, and frees it.
    fn use_lock(&self, me: u32) -> HasDied {
        let died = self.lock().lock(me, |seen| self.sleep(0, seen)).unwrap();
        self.change();
        if self.lock().unlock(false) {
            self.wake(0);
        }
        died
    }

    fn rw(&self) -> RwWords<'_> {
        let [word, used, readers @ ..] = &self.words;
        RwWords { writer: LockWord(word), used, readers }
    }

    fn use_reader(&self, me: u32) -> HasDied {
        let mine = me as usize - 1;
        let died = self.rw().read(mine, |seen| self.sleep(0, seen), |_| self.wake(READERS + mine)).unwrap();
        self.read();
        self.rw().unread(mine, |_| self.wake(READERS + mine));
        died
    }

    fn use_writer(&self, me: u32) -> HasDied {
        let rw = self.rw();
        let died = rw.writer.lock(me, |seen| self.sleep(0, seen)).unwrap();
        assert!(rw.drain(|at, seen| self.sleep(READERS + at, seen)));
        self.change();
        if rw.writer.unlock(false) {
            self.wake(0);
        }
        died
    }

    /// One permit.
    fn permits(&self) -> Permits<'_> {
        let [waiters, hint, owners @ .., _] = &self.words;
        Permits { waiters, hint, owners }
    }

    fn use_permit(&self, me: u32) -> HasDied {
        let at = self.permits().take(me, |seen| self.sleep(0, seen)).unwrap();
        self.change();
        if self.permits().give_back(at) {
            self.wake(0);
        }
        false
    }
}

/// Starts a thread that is another process, which may end at a step.
fn process<R: 'static>(
    place: &Rc<Place>,
    ends_at: &'static str,
    run: impl FnOnce(&Place) -> R + 'static,
) -> thread::JoinHandle<Option<R>> {
    let place = place.clone();
    thread::spawn(move || {
        end_at(ends_at);
        match panic::catch_unwind(panic::AssertUnwindSafe(|| run(&place))) {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Ended>() => None,
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// Checks all orders of events with a limited number of preemptions. For models that would otherwise take minutes.
fn bounded(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// A process ends at a step of `first`, and is repaired after. Another one does `second` meanwhile. Checks how often somebody was told.
fn die_at(
    label: &'static str,
    first: fn(&Place, u32) -> HasDied,
    second: fn(&Place, u32) -> HasDied,
    repair: fn(&Place),
    told: usize,
) {
    bounded(2, move || {
        let place = Place::new();
        let dying = process(&place, label, move |place| first(place, 1));
        let other = process(&place, "", move |place| second(place, 2));
        if dying.join().unwrap().is_none() {
            repair(&place);
            place.wake_all();
        }
        let was_told = [other.join().unwrap().unwrap(), second(&place, 2)];
        assert_eq!(was_told.into_iter().filter(|told| *told).count(), told, "{label}");
    });
}

#[test]
fn a_lock_is_held_by_one_and_each_sleeper_is_woken() {
    bounded(2, || {
        let place = Place::new();
        let others = [2, 3].map(|me| process(&place, "", move |place| place.use_lock(me)));
        place.use_lock(1);
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), Some(false)));
        assert_eq!(place.read(), 3);
    });
}

#[test]
fn a_lock_is_taken_from_a_process_that_ends_at_any_step_and_one_is_told() {
    let silent = ["lock: wanted", "lock: announced", "lock: woken", "unlock: freed"];
    for (label, told) in
        silent.map(|label| (label, 0)).into_iter().chain([("lock: taken", 1), ("unlock: wanted", 1)])
    {
        die_at(label, Place::use_lock, Place::use_lock, |place| place.lock().disown(1), told);
    }
}

#[test]
fn readers_and_a_writer_exclude_each_other() {
    bounded(3, || {
        let place = Place::new();
        let readers = [1, 2].map(|me| process(&place, "", move |place| place.use_reader(me)));
        place.use_writer(3);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap().is_some()));
        assert_eq!(place.read(), 1);
    });
}

#[test]
fn a_reader_or_writer_that_ends_at_any_step_keeps_nobody_out() {
    let repair = |place: &Place| place.rw().disown(1, 0);
    for label in ["read: counted", "read: uncounted", "lock: announced"] {
        die_at(label, Place::use_reader, Place::use_writer, repair, 0);
    }
    for (label, told) in
        [("lock: wanted", 0), ("lock: taken", 1), ("unlock: wanted", 1), ("unlock: freed", 0)]
    {
        die_at(label, Place::use_writer, Place::use_reader, repair, told);
        die_at(label, Place::use_writer, Place::use_writer, repair, told);
    }
}

#[test]
fn a_permit_is_had_by_one_and_comes_back_from_a_process_that_ends_at_any_step() {
    let of_taking = ["", "acquire: announced", "acquire: woken", "acquire: taken"];
    for label in of_taking.into_iter().chain(["release: given back", "release: counted"]) {
        die_at(label, Place::use_permit, Place::use_permit, |place| place.permits().disown(1), 0);
    }
}

#[test]
fn a_barrier_lets_all_go_on_or_breaks_for_all() {
    for label in ["", "barrier: arrived"] {
        bounded(2, move || {
            let place = Place::new();
            let wait = |place: &Place| {
                let word = BarrierWord(&place.words[0]);
                let waited = word.wait(2, |seen| place.sleep(0, seen)).unwrap();
                if waited == Ok(true) {
                    place.wake(0);
                }
                waited
            };
            let other = process(&place, label, wait);
            if label.is_empty() {
                let [mine, theirs] = [wait(&place).unwrap(), other.join().unwrap().unwrap().unwrap()];
                assert!(mine != theirs, "one leads");
            } else {
                let third = process(&place, "", wait);
                assert!(other.join().unwrap().is_none());
                BarrierWord(&place.words[0]).break_it();
                place.wake(0);
                // It met the other one before that died, or finds out.
                assert!(third.join().unwrap().is_some());
                assert!(wait(&place).is_err());
            }
        });
    }
}
