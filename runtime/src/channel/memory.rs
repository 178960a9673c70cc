//! The memory of a channel: where its words and slots lie, and what a participant leaves in it.
//!
//! Every access is to an atomic word within the data, and every message is copied word by word, so nothing that another process writes
//! meanwhile is undefined.

use std::{io, sync::atomic};

use super::{
    bell::Bell,
    held::{Held, Side},
    slots::{SlotMemory, Slots},
};
use crate::{
    segment::{ENTRIES, Entry, State, StateHandle},
    sync::{AtomicU64, Ordering},
    sys::futex,
};

// In long words, from the start of the data. Words that different participants change lie 128 bytes apart.
const CAPACITY: usize = 0;
const ROOM: usize = 1;
const TAIL: usize = 16;
const HEAD: usize = 32;
/// The bells of those that wait for room and for messages, each half a long word.
const BELLS: usize = 48;
/// How many places of ends that are on their way were ever used, and how often one was, each half a long word.
const USED: usize = 56;
/// Whether an end was ever in a message.
const CARRIED: usize = 57;
/// Who sends a packet and who receives one, each half a long word.
const LOCKS: usize = 58;
/// The number of the last packet that was sent, and of the last one that was received.
const SENT: usize = 59;
const RECEIVED: usize = 60;
/// The numbers of ends of each participant.
const ENDS: usize = 64;
/// The ends that are on their way, each half a long word.
const HELD: usize = ENDS + ENTRIES.next_multiple_of(64);
/// How many ends can be on their way at a time.
const MOST_HELD: usize = 1 << 16;
const SLOTS: usize = HELD + MOST_HELD / 2;

/// The first words of a slot: its own, and the length of its message.
const SLOT_HEAD: usize = 2;

/// How many messages a channel may have room for.
pub(super) const MOST_MESSAGES: usize = 1 << 24;

/// How large a channel's messages may be and how many it has room for, as checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    capacity: usize,
    /// The length of a slot in long words.
    slot: usize,
}

impl Layout {
    /// For messages that are likely to have up to `likely_bytes`.
    pub(super) fn new(capacity: usize, likely_bytes: usize) -> Self {
        // Whole cache lines, and an odd number of them: slots at the same place of all pages would use the same part of the cache.
        let lines = (8 * SLOT_HEAD + likely_bytes).div_ceil(64) | 1;
        Self { capacity, slot: 8 * lines }
    }

    pub(super) fn len_bytes(self) -> usize {
        8 * (SLOTS + self.capacity * self.slot)
    }

    /// Reads the layout of a channel that another process has made.
    pub(super) fn read(state: &State) -> Option<Self> {
        let words = state.long_words();
        let read = |at: usize| usize::try_from(words.get(at)?.load(Ordering::Relaxed)).ok();
        let this = Self { capacity: read(CAPACITY)?, slot: read(ROOM)? };
        let slots = words.len().checked_sub(SLOTS)?;
        let is_valid = (1..=MOST_MESSAGES).contains(&this.capacity) && this.slot > SLOT_HEAD;
        (is_valid && this.capacity.checked_mul(this.slot) == Some(slots)).then_some(this)
    }

    fn write(self, state: &State) {
        let words = state.long_words();
        words[CAPACITY].store(self.capacity as u64, Ordering::Relaxed);
        words[ROOM].store(self.slot as u64, Ordering::Relaxed);
    }
}

/// The words of a channel, seen through its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    state: &'a State,
    layout: Layout,
}

impl<'a> Words<'a> {
    #[inline]
    pub(super) fn new(state: &'a State, layout: Layout) -> Self {
        Self { state, layout }
    }

    /// Returns how many bytes a message in a slot may have.
    #[inline]
    pub(super) fn room_bytes(self) -> usize {
        8 * (self.layout.slot - SLOT_HEAD)
    }

    #[inline]
    pub(super) fn slots(self) -> Slots<Self> {
        Slots::new(self)
    }

    /// Returns the bell of the ends of this kind.
    #[inline]
    pub(super) fn bell(self, side: Side) -> Bell<'a> {
        Bell(&self.state.words()[2 * BELLS + side as usize])
    }

    /// Wakes one that waits on this side, if any, after something was changed for it.
    pub(super) fn ring(self, side: Side) {
        let bell = self.bell(side);
        if bell.ring() {
            wake(bell);
        }
    }

    /// As [`ring`](Self::ring), after a slot was filled or emptied, and nothing else was changed.
    #[inline]
    pub(super) fn ring_after_slot(self, side: Side) {
        let bell = self.bell(side);
        if bell.ring_after_ordered() {
            wake(bell);
        }
    }

    /// Called by a waiter of this side that will not wait again. Wakes the next one if there is something for it, or `has_more` says so.
    pub(super) fn hand_on(self, side: Side, has_more: impl FnOnce() -> bool) {
        let has_more = || {
            has_more()
                || match side {
                    Side::Sender => self.slots().has_room(),
                    Side::Receiver => self.slots().has_some(),
                }
        };
        if self.bell(side).hand_on(has_more) {
            wake(self.bell(side));
        }
    }

    /// Wakes all that wait, after something was changed for them.
    pub(super) fn ring_all(self) {
        for side in [Side::Sender, Side::Receiver] {
            let bell = self.bell(side);
            if bell.ring() {
                // Without futexes, waiters look by themselves.
                let _ = futex::wake_all(bell.0);
            }
        }
    }

    #[inline]
    fn ends(self) -> &'a [AtomicU64] {
        &self.state.long_words()[ENDS..][..ENTRIES]
    }

    pub(super) fn held(self) -> Held<'a> {
        let words = self.state.words();
        Held { places: &words[2 * HELD..][..MOST_HELD], used: &words[2 * USED], moves: &words[2 * USED + 1] }
    }

    /// Counts one more end of this process.
    pub(super) fn count(self, side: Side) {
        self.ends()[self.state.my_entry().index()].fetch_add(side.one(), Ordering::SeqCst);
    }

    /// Counts one end less of this process, and wakes those that wait for the last one to go.
    pub(super) fn uncount(self, side: Side) {
        let before = self.ends()[self.state.my_entry().index()].fetch_sub(side.one(), Ordering::SeqCst);
        if !side.is_in(before - side.one()) {
            self.ring_all();
        }
    }

    /// Returns whether a participant had an end of this kind that had one when it was found last.
    #[inline]
    pub(super) fn still_has(self, side: Side, last: &atomic::AtomicU32) -> bool {
        let word = self.ends().get(last.load(Ordering::Relaxed) as usize);
        word.is_some_and(|word| side.is_in(word.load(Ordering::Relaxed)))
    }

    /// Returns whether there is an end of this kind. `carried` says whether one is in a message.
    #[cold]
    pub(super) fn find(self, side: Side, last: &atomic::AtomicU32, carried: impl Fn() -> bool) -> bool {
        self.held().unless_moved(|held| {
            let found = self.ends().iter().position(|word| side.is_in(word.load(Ordering::SeqCst)));
            found.inspect(|index| last.store(*index as u32, Ordering::Relaxed)).is_some()
                || held.has(side)
                || (self.long(CARRIED).load(Ordering::SeqCst) != 0 && carried())
        })
    }

    /// Notes that an end is about to be in a message.
    pub(super) fn set_carried(self) {
        self.long(CARRIED).store(1, Ordering::SeqCst);
    }

    fn long(self, at: usize) -> &'a AtomicU64 {
        &self.state.long_words()[at]
    }

    /// Makes this process the one that sends or receives packets, if there is no other.
    pub(super) fn lock(self, side: Side) -> Option<Lock<'a>> {
        let me = self.state.my_entry().number();
        let word = &self.state.words()[2 * LOCKS + side as usize];
        // SYNC(packets): pairs with the store in `Lock::drop`.
        let locked = word.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
        // Made only now: one that is dropped unlocks.
        locked.is_ok().then(|| Lock { words: self, side, rings: false })
    }

    /// Returns the numbers of the last packets that were sent and received.
    pub(super) fn packets(self) -> (u64, u64) {
        (self.long(SENT).load(Ordering::Relaxed), self.long(RECEIVED).load(Ordering::Relaxed))
    }

    pub(super) fn set_sent(self, number: u64) {
        self.long(SENT).store(number, Ordering::Relaxed);
    }

    pub(super) fn set_received(self, number: u64) {
        self.long(RECEIVED).store(number, Ordering::Relaxed);
    }
}

/// One kind of ends of a channel. It does not count as an end.
#[cfg(feature = "futures")]
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) state: StateHandle,
    pub(super) layout: Layout,
    pub(super) side: Side,
}

#[cfg(feature = "futures")]
impl Place {
    pub(super) fn bell(&self) -> Bell<'_> {
        Words::new(&self.state, self.layout).bell(self.side)
    }
}

/// This process is the one that sends packets, or that receives them.
pub(super) struct Lock<'a> {
    words: Words<'a>,
    side: Side,
    /// Whether to ring those on the same side who found it locked. If there was nothing to do, then not for them either, and they would only
    /// keep each other awake.
    pub(super) rings: bool,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // SYNC(packets): pairs with the exchange in `Words::lock`.
        self.words.state.words()[2 * LOCKS + self.side as usize].store(0, Ordering::Release);
        if self.rings {
            self.words.ring(self.side);
        }
    }
}

/// Wakes one sleeper.
fn wake(bell: Bell<'_>) {
    // Without futexes, waiters look by themselves.
    let _ = futex::wake(bell.0);
}

impl SlotMemory for Words<'_> {
    #[inline]
    fn capacity(&self) -> u64 {
        self.layout.capacity as u64
    }

    #[inline]
    fn tail(&self) -> &AtomicU64 {
        &self.state.long_words()[TAIL]
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        &self.state.long_words()[HEAD]
    }

    #[inline]
    fn word(&self, index: u64) -> &AtomicU64 {
        &self.state.long_words()[SLOTS + index as usize * self.layout.slot]
    }

    #[cfg(all(test, not(loom)))]
    fn step(&self, step: super::slots::Step) {
        super::tests::at_step(step);
    }

    #[inline]
    fn put(&self, index: u64, message: &[u8]) {
        let slot = &self.state.long_words()[SLOTS + index as usize * self.layout.slot..][..self.layout.slot];
        assert!(message.len() <= self.room_bytes(), "the message has room in a slot");
        slot[1].store(message.len() as u64, Ordering::Relaxed);
        let (whole, rest) = message.as_chunks::<8>();
        let mut places = slot[SLOT_HEAD..].iter();
        for (place, bytes) in places.by_ref().zip(whole) {
            place.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            slot[SLOT_HEAD + whole.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
    }

    #[inline]
    fn append(&self, index: u64, out: &mut Vec<u8>) {
        let slot = &self.state.long_words()[SLOTS + index as usize * self.layout.slot..][..self.layout.slot];
        // Another process may have written any length.
        let len = (slot[1].load(Ordering::Relaxed) as usize).min(self.room_bytes());
        let start = out.len();
        let places = &slot[SLOT_HEAD..][..len.div_ceil(8)];
        out.resize(start + 8 * places.len(), 0);
        let (whole, _) = out[start..].as_chunks_mut::<8>();
        for (bytes, place) in whole.iter_mut().zip(places) {
            *bytes = place.load(Ordering::Relaxed).to_ne_bytes();
        }
        out.truncate(start + len);
    }
}

/// Makes the memory of a channel.
pub(super) fn make(digest: u64, layout: Layout) -> io::Result<StateHandle> {
    let state = StateHandle::new(digest, layout.len_bytes(), Some(repair))?;
    layout.write(&state);
    Ok(state)
}

/// Repairs what a participant has left that does not use the channel any more.
pub(super) fn repair(state: &State, dead: Entry) {
    let Some(layout) = Layout::read(state) else { return };
    let words = Words::new(state, layout);
    words.slots().recover(dead.number() as u16);
    for lock in &state.words()[2 * LOCKS..][..2] {
        let _ = lock.compare_exchange(dead.number(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }
    // Whoever sees no sender any more sees everything that was sent, and no slot that is still being written.
    words.held().recover(dead);
    words.ends()[dead.index()].store(0, Ordering::SeqCst);
    words.ring_all();
}
