//! The participant table of shared state: which processes use it, and which of them repairs what a dead one has left.
//!
//! An entry is one word. The words that state consists of name their owner by its entry, and an entry is free only when no word names
//! it any more.

use crate::{
    sync::{AtomicU64, Ordering},
    sys::{per_process::PerProcess, process, procfs},
};

/// The number of processes that can use the same state at a time.
pub(crate) const ENTRIES: usize = 500;

/// The place of a process in a participant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(u16);

impl Entry {
    /// Returns a number between 1 and [`ENTRIES`].
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0.into()
    }

    /// Returns the entry with this number, which another process may have made up.
    #[inline]
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        (1..=ENTRIES as u32).contains(&number).then_some(Self(number as u16))
    }

    /// Returns its position in the table, from 0.
    #[inline]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..=ENTRIES as u16).map(Self)
    }
}

/// A process: its number, and when it was started, which tells it from a process that is given the number later.
///
/// It is a nonzero word without its two highest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who(u64);

impl Who {
    fn new(pid: u32, start: u32) -> Self {
        Self(u64::from(pid) << 32 | u64::from(start))
    }

    /// Returns this process.
    pub(super) fn me() -> Self {
        static ME: PerProcess<Who> = PerProcess::new();
        *ME.get_or_init(|| {
            let pid = std::process::id();
            // 0 if it is not known.
            Self::new(pid, procfs::started(pid).ok().flatten().unwrap_or(0) as u32)
        })
    }

    pub(super) fn pid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns whether the process has not ended. One that was not reaped has ended.
    pub(super) fn is_alive(self) -> bool {
        let start = self.0 as u32;
        match procfs::started(self.pid()) {
            Ok(Some(now)) => now as u32 == start || start == 0,
            Ok(None) => false,
            // There is no such process, or it cannot be asked.
            Err(_) => process::exists(self.pid()),
        }
    }
}

const PHASE: u64 = 3 << 62;
const LIVE: u64 = 1 << 62;
const RECOVERING: u64 = 2 << 62;

/// The words of a participant table: 0, or a phase and a process. A *live* entry has the process that uses it. A *recovering* one
/// has the process that repairs what it has left.
///
/// | phase | leaves it by |
/// |---|---|
/// | free | [`join`](Self::join): *live* |
/// | live | [`leave`](Self::leave), or [`take_over`](Self::take_over) after its process has died: *recovering* |
/// | recovering | [`free`](Self::free): *free*; `take_over` after the repairing process has died: *recovering* by another one |
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a>(pub(super) &'a [AtomicU64]);

impl Table<'_> {
    fn word(&self, entry: Entry) -> &AtomicU64 {
        &self.0[entry.index()]
    }

    /// Takes a free entry for a process, if there is one.
    pub(super) fn join(&self, who: Who) -> Option<Entry> {
        Entry::all().zip(self.0).find_map(|(entry, word)| {
            // SYNC(entry): pairs with the Release in `free`: what was repaired is seen.
            word.compare_exchange(0, LIVE | who.0, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| entry)
        })
    }

    /// Returns the process that uses or repairs this entry.
    pub(super) fn who(&self, entry: Entry) -> Option<Who> {
        match self.word(entry).load(Ordering::Relaxed) {
            0 => None,
            word => Some(Who(word & !PHASE)),
        }
    }

    /// Begins to give a live entry of `me` back. Returns whether the caller must repair and then [`free`](Self::free) it.
    pub(super) fn leave(&self, entry: Entry, me: Who) -> bool {
        self.change(entry, LIVE | me.0, me)
    }

    /// Begins to repair what the process of this entry has left, if it has died, or goes on with that for a process that has died
    /// over it. Returns whether the caller must repair and then [`free`](Self::free) it.
    pub(super) fn take_over(&self, entry: Entry, me: Who, is_alive: impl Fn(Who) -> bool) -> bool {
        let word = self.word(entry).load(Ordering::Relaxed);
        let who = Who(word & !PHASE);
        word != 0 && who != me && !is_alive(who) && self.change(entry, word, me)
    }

    fn change(&self, entry: Entry, from: u64, me: Who) -> bool {
        // Acquire, so that what the last process did before it died is seen: it is over, and its end was seen.
        let to = RECOVERING | me.0;
        self.word(entry).compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Frees an entry that no word names any more.
    pub(super) fn free(&self, entry: Entry) {
        // SYNC(entry): pairs with the Acquire in `join`.
        self.word(entry).store(0, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..ENTRIES).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_process_that_was_not_reaped_has_ended_and_a_number_may_be_anothers() {
        let me = Who::me();
        assert!(me.is_alive() && me.pid() == std::process::id());
        assert!(!Who::new(me.pid(), (me.0 as u32).wrapping_add(1)).is_alive(), "the number is ours by now");
        let mut child =
            std::process::Command::new("true").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let start = procfs::started(child.id()).unwrap();
        let who = Who::new(child.id(), start.unwrap_or(0) as u32);
        while who.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!who.is_alive());
    }

    #[test]
    fn a_full_table_has_no_entry_and_a_freed_one_is_taken_again() {
        let words = words();
        let table = Table(&words);
        let me = Who::me();
        let entries: Vec<_> = (0..ENTRIES).map(|_| table.join(me).unwrap()).collect();
        assert_eq!(table.join(me), None);
        assert!(table.leave(entries[7], me) && !table.leave(entries[7], me));
        assert_eq!(table.join(me), None, "it is not repaired yet");
        table.free(entries[7]);
        assert_eq!(table.join(me), Some(entries[7]));
        assert_eq!(Entry::from_number(entries[7].number()), Some(entries[7]));
        assert_eq!((Entry::from_number(0), Entry::from_number(ENTRIES as u32 + 1)), (None, None));
    }

    #[test]
    fn what_a_dead_process_has_left_is_repaired_by_one_at_a_time_and_by_another_if_that_one_dies() {
        let words = words();
        let table = Table(&words);
        let [dead, first, second] = [7, 8, 9].map(|pid| Who::new(pid, 1));
        let entry = table.join(dead).unwrap();
        assert!(!table.take_over(entry, first, |_| true), "it lives");
        assert!(table.take_over(entry, first, |who| who != dead));
        assert!(!table.take_over(entry, second, |who| who != dead), "it is being repaired");
        assert!(!table.take_over(entry, first, |_| false), "by a thread of the same process");
        assert!(table.take_over(entry, second, |_| false));
        table.free(entry);
        assert!(!table.take_over(entry, second, |_| false));
    }
}

/// Models: two processes repair what a dead one has left, and a third one wants its entry.
#[cfg(all(test, loom))]
mod models {
    use std::rc::Rc;

    use loom::{cell::Cell, thread};

    use super::*;
    use crate::sync::AtomicU32;

    struct Place {
        words: [AtomicU64; 1],
        /// How often the entry was repaired. Loom fails if two threads access it at the same time.
        repairs: Cell<u32>,
        /// The first of those that repair has died over it.
        first_died: AtomicU32,
    }

    const ENTRY: Entry = Entry(1);

    fn who(pid: u32) -> Who {
        Who::new(pid, 1)
    }

    impl Place {
        fn is_alive(&self, process: Who) -> bool {
            // Whoever sees that a process has died sees what it has written.
            process != who(1) && (process != who(2) || self.first_died.load(Ordering::Acquire) == 0)
        }

        fn repair(&self, me: Who, dies: bool) -> bool {
            let table = Table(&self.words);
            let takes = table.take_over(ENTRY, me, |process| self.is_alive(process));
            if takes {
                self.repairs.set(self.repairs.get() + 1);
                if !dies {
                    table.free(ENTRY);
                }
            }
            if dies {
                self.first_died.store(1, Ordering::Release);
            }
            takes
        }
    }

    fn check(dies: bool) {
        loom::model(move || {
            let words = [AtomicU64::new(LIVE | who(1).0)];
            let place = Rc::new(Place { words, repairs: Cell::new(0), first_died: AtomicU32::new(0) });
            let first = thread::spawn({
                let place = place.clone();
                move || place.repair(who(2), dies)
            });
            let joins = thread::spawn({
                let place = place.clone();
                move || Table(&place.words).join(who(4)).map(|_| place.repairs.get())
            });
            let second = place.repair(who(3), false);
            let (first, joined) = (first.join().unwrap(), joins.join().unwrap());
            // One that died may have been in the way of the second one.
            let third = place.repair(who(3), false);
            assert!(joined.is_none_or(|repairs| repairs > 0), "it was repaired before");
            let repairs = [first, second, third].into_iter().filter(|repaired| *repaired).count();
            assert_eq!(repairs, if dies && first { 2 } else { 1 });
            assert_eq!(place.repairs.get() as usize, repairs);
            let user = joined.map(|_| who(4));
            assert_eq!(Table(&place.words).who(ENTRY), user);
        });
    }

    #[test]
    fn an_entry_is_repaired_once_and_then_joined() {
        check(false);
    }

    #[test]
    fn an_entry_is_repaired_again_if_the_process_that_repaired_it_has_died() {
        check(true);
    }
}
