//! The slots of a channel: messages of any number of senders, for any number of receivers, any of which may die at any step.
//!
//! `README.md` argues why. A word beside each slot says what the slot is, and who is at work on it. Nothing else decides: the cursors are
//! hints, behind which there is nothing to do.

use crate::sync::{AtomicU64, Ordering};

/// The participant that is at work on a slot.
pub(super) type Entry = u16;

/// The shared words and the places of messages. All zero, it is an empty channel.
pub(super) trait SlotMemory {
    /// Returns the number of slots, which never changes and is not read from shared memory.
    fn capacity(&self) -> u64;

    /// Where senders look first. Each position before it is claimed.
    fn tail(&self) -> &AtomicU64;

    /// Where receivers look first. No position before it is full, except those for which a recovery is about to move it back.
    fn head(&self) -> &AtomicU64;

    /// Returns the word of the slot with this index.
    fn word(&self, index: u64) -> &AtomicU64;

    /// Copies a message into a slot, which has room for it.
    fn put(&self, index: u64, message: &[u8]);

    /// Appends a copy of the message in a slot.
    fn append(&self, index: u64, out: &mut Vec<u8>);

    /// Called after each step. A test may let the participant die there.
    #[inline(always)]
    fn step(&self, step: Step) {
        let _ = step;
    }
}

/// A step after which a participant may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Claimed,
    Written,
    Published,
    Taken,
    Copied,
    Finished,
    Repaired,
}

/// What a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Writing,
    Full,
    Reading,
    /// Its sender has died.
    Orphan,
    /// No slot is used from here on.
    Closed,
}

/// The word of a slot: lap (51 bits), owner (10), phase (3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    lap: u64,
    owner: Entry,
    phase: Phase,
}

impl Word {
    /// Of a slot on which nobody is at work.
    fn new(lap: u64, phase: Phase) -> Self {
        Self { lap, owner: 0, phase }
    }

    fn to_bits(self) -> u64 {
        let phase = match self.phase {
            Phase::Empty => 0,
            Phase::Writing => 1,
            Phase::Full => 2,
            Phase::Reading => 3,
            Phase::Orphan => 4,
            Phase::Closed => 5,
        };
        self.lap << 13 | u64::from(self.owner) << 3 | phase
    }

    fn from_bits(bits: u64) -> Self {
        let phase = match bits & 7 {
            0 => Phase::Empty,
            1 => Phase::Writing,
            2 => Phase::Full,
            3 => Phase::Reading,
            4 => Phase::Orphan,
            // What no participant writes ends the channel's slots.
            _ => Phase::Closed,
        };
        Self { lap: bits >> 13, owner: (bits >> 3 & 1023) as Entry, phase }
    }
}

/// The low bits of a cursor are a position, the others count the recoveries.
const POSITION_BITS: u32 = 52;
const POSITION: u64 = (1 << POSITION_BITS) - 1;

/// Why a message cannot be sent or received now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room, or there is no message.
    NotNow,
    /// The slots are not used any more.
    Closed,
}

/// A slot that a receiver has taken. Its message is lost to all others when it is [finished](Slots::finish), and not before.
#[derive(Debug)]
pub(super) struct Taken {
    index: u64,
    word: Word,
}

#[derive(Debug)]
pub(super) struct Slots<M> {
    memory: M,
    /// The number of low bits of a position that are the index. The others are the lap.
    index_bits: u32,
}

impl<M: SlotMemory> Slots<M> {
    /// Uses memory of at least one slot.
    #[inline]
    pub(super) fn new(memory: M) -> Self {
        let index_bits = memory.capacity().next_power_of_two().trailing_zeros();
        Self { memory, index_bits }
    }

    #[cfg(all(test, loom))]
    pub(super) fn memory(&self) -> &M {
        &self.memory
    }

    /// Sends a message that has room in a slot.
    #[inline]
    pub(super) fn send(&self, me: Entry, message: &[u8]) -> Result<(), Refusal> {
        let (index, word) = self.claim(me)?;
        self.memory.step(Step::Claimed);
        self.memory.put(index, message);
        self.memory.step(Step::Written);
        // SYNC(slot-full): pairs with the exchange in `take`. SYNC(bell): the caller rings by `ring_after_ordered`.
        self.memory.word(index).store(Word::new(word.lap, Phase::Full).to_bits(), Ordering::SeqCst);
        self.memory.step(Step::Published);
        Ok(())
    }

    /// Claims the first slot that is empty, to be written.
    fn claim(&self, me: Entry) -> Result<(u64, Word), Refusal> {
        self.at_tail(|lap| Word { lap, owner: me, phase: Phase::Writing })
    }

    /// Makes all that sent from now on be refused, and receivers notice when they have received all that was sent before.
    pub(super) fn close(&self) -> Result<(), Refusal> {
        match self.at_tail(|lap| Word::new(lap, Phase::Closed)) {
            Ok(_) | Err(Refusal::Closed) => Ok(()),
            Err(Refusal::NotNow) => Err(Refusal::NotNow),
        }
    }

    /// Changes the first slot that is empty.
    #[inline]
    fn at_tail(&self, to: impl Fn(u64) -> Word) -> Result<(u64, Word), Refusal> {
        // SYNC(advanced): pairs with the exchange in `advance`. Whoever sees the cursor sees that the slots before it were claimed.
        let mut cursor = self.memory.tail().load(Ordering::Acquire);
        for _ in 0..self.most_looks() {
            let (lap, index) = self.split(cursor);
            let place = self.memory.word(index);
            // SYNC(slot-empty): pairs with the exchanges in `finish` and `skip`. The last message was copied before.
            let bits = place.load(Ordering::Acquire);
            let word = Word::from_bits(bits);
            if word.lap < lap {
                return Err(Refusal::NotNow);
            }
            if word == Word::new(lap, Phase::Closed) {
                return Err(Refusal::Closed);
            }
            if word == Word::new(lap, Phase::Empty) {
                let to = to(lap);
                if place.compare_exchange(bits, to.to_bits(), Ordering::Relaxed, Ordering::Relaxed).is_err() {
                    continue;
                }
                if to.phase != Phase::Closed {
                    self.advance(self.memory.tail(), cursor);
                }
                return Ok((index, to));
            }
            cursor = self.advance(self.memory.tail(), cursor);
        }
        Err(Refusal::NotNow)
    }

    /// Takes the oldest message.
    #[inline]
    pub(super) fn take(&self, me: Entry) -> Result<Taken, Refusal> {
        // SYNC(head-back): pairs with the exchange in `recover`. Whoever sees that the cursor was moved back sees why.
        let mut cursor = self.memory.head().load(Ordering::Acquire);
        for _ in 0..self.most_looks() {
            let (lap, index) = self.split(cursor);
            let place = self.memory.word(index);
            let bits = place.load(Ordering::Relaxed);
            let word = Word::from_bits(bits);
            if word.lap < lap {
                return Err(Refusal::NotNow);
            }
            if word.lap == lap {
                match word.phase {
                    Phase::Empty | Phase::Writing => return Err(Refusal::NotNow),
                    Phase::Closed => return Err(Refusal::Closed),
                    Phase::Full => {
                        let word = Word { lap, owner: me, phase: Phase::Reading };
                        // SYNC(slot-full): pairs with the store in `send`, and with the exchange in `recover`.
                        let claimed = place.compare_exchange(
                            bits,
                            word.to_bits(),
                            Ordering::Acquire,
                            Ordering::Relaxed,
                        );
                        if claimed.is_err() {
                            continue;
                        }
                        self.memory.step(Step::Taken);
                        self.advance(self.memory.head(), cursor);
                        return Ok(Taken { index, word });
                    }
                    Phase::Orphan => {
                        self.skip(place, word);
                    }
                    Phase::Reading => {}
                }
            }
            cursor = self.advance(self.memory.head(), cursor);
        }
        Err(Refusal::NotNow)
    }

    /// Returns whether there is a message, or one that another participant has taken and not finished. If that dies, the message is back.
    pub(super) fn has_left(&self, me: Entry) -> bool {
        self.used()
            .any(|(_, word)| word.phase == Phase::Full || (word.phase == Phase::Reading && word.owner != me))
    }

    /// Returns how many messages are here, those not counted that are being received.
    pub(super) fn len(&self) -> u64 {
        let (head_lap, head) = self.split(self.memory.head().load(Ordering::Acquire));
        let (tail_lap, tail) = self.split(self.memory.tail().load(Ordering::Acquire));
        tail_lap
            .saturating_sub(head_lap)
            .saturating_mul(self.memory.capacity())
            .saturating_add(tail)
            .saturating_sub(head)
    }

    /// Returns whether a receiver would find something now, be it the end.
    pub(super) fn has_some(&self) -> bool {
        let (lap, index) = self.split(self.memory.head().load(Ordering::Acquire));
        let word = Word::from_bits(self.memory.word(index).load(Ordering::Relaxed));
        word.lap > lap || (word.lap == lap && !matches!(word.phase, Phase::Empty | Phase::Writing))
    }

    /// Returns whether a sender would find room now, or the end.
    pub(super) fn has_room(&self) -> bool {
        let (lap, index) = self.split(self.memory.tail().load(Ordering::Relaxed));
        Word::from_bits(self.memory.word(index).load(Ordering::Relaxed)).lap >= lap
    }

    /// Appends a copy of the message that was taken.
    #[inline]
    pub(super) fn append(&self, taken: &Taken, out: &mut Vec<u8>) {
        self.memory.append(taken.index, out);
        self.memory.step(Step::Copied);
    }

    /// Makes room where a message was taken.
    #[inline]
    pub(super) fn finish(&self, taken: &Taken) {
        let empty = Word::new(taken.word.lap + 1, Phase::Empty);
        let place = self.memory.word(taken.index);
        // A copy of the process that took the message may come here, too. One of the two is first.
        // SYNC(slot-empty): pairs with the load in `at_tail`. SYNC(bell): as in `send`.
        let _ = place.compare_exchange(
            taken.word.to_bits(),
            empty.to_bits(),
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        self.memory.step(Step::Finished);
    }

    /// Passes over a slot whose sender has died.
    fn skip(&self, place: &AtomicU64, orphan: Word) {
        let empty = Word::new(orphan.lap + 1, Phase::Empty);
        // SYNC(slot-left): pairs with the exchange in `recover`: the sender is dead and writes no more. SYNC(slot-empty): pairs with
        // the load in `at_tail`.
        let _ =
            place.compare_exchange(orphan.to_bits(), empty.to_bits(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Repairs what a participant has left, which has died and whose entry nobody else has. May be done by several, several times.
    pub(super) fn recover(&self, dead: Entry) {
        for (index, word) in self.used() {
            let phase = match word.phase {
                Phase::Writing if word.owner == dead => Phase::Orphan,
                Phase::Reading if word.owner == dead => Phase::Full,
                _ => continue,
            };
            let repaired = Word::new(word.lap, phase).to_bits();
            // SYNC(slot-left): pairs with the exchange in `skip`, and in `take`. Whoever knows of the death passes that on.
            let _ = self.memory.word(index).compare_exchange(
                word.to_bits(),
                repaired,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            self.memory.step(Step::Repaired);
        }
        self.move_head_back();
    }

    /// Moves receivers back to the oldest message that was put back behind them.
    fn move_head_back(&self) {
        let mut cursor = self.memory.head().load(Ordering::Acquire);
        loop {
            let oldest = self.used().filter_map(|(index, word)| {
                (word.phase == Phase::Full).then_some((word.lap << self.index_bits | index) & POSITION)
            });
            let position = oldest.min().map_or(cursor & POSITION, |oldest| oldest.min(cursor & POSITION));
            // Also if it stays where it is: whoever saw the dead one read there must not advance the cursor now.
            let count = (cursor >> POSITION_BITS).wrapping_add(1);
            let back = count << POSITION_BITS | position;
            // SYNC(head-back): pairs with the load in `take`.
            match self.memory.head().compare_exchange(cursor, back, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(changed) => cursor = changed,
            }
        }
    }

    /// Returns the slots that were ever claimed. Memory that was not used is not looked at, because it would then be there.
    fn used(&self) -> impl Iterator<Item = (u64, Word)> {
        let words = (0..self.memory.capacity())
            .map(|index| (index, Word::from_bits(self.memory.word(index).load(Ordering::Relaxed))));
        words.take_while(|(_, word)| *word != Word::new(0, Phase::Empty))
    }

    /// How often to look for a slot. Somebody who writes nonsense into the memory keeps nobody busy for ever.
    fn most_looks(&self) -> u64 {
        2 * self.memory.capacity() + 64
    }

    /// Returns the lap and the index of a cursor's position.
    #[inline]
    fn split(&self, cursor: u64) -> (u64, u64) {
        let position = cursor & POSITION;
        let index = position & ((1 << self.index_bits) - 1);
        // Only a cursor that no participant has written has another index.
        (position >> self.index_bits, index.min(self.memory.capacity() - 1))
    }

    /// Moves a cursor on by one, if it is still this one. Returns what it is then.
    #[inline]
    fn advance(&self, word: &AtomicU64, cursor: u64) -> u64 {
        let (lap, index) = self.split(cursor);
        let position = if index + 1 < self.memory.capacity() {
            lap << self.index_bits | (index + 1)
        } else {
            (lap + 1) << self.index_bits
        };
        let next = cursor & !POSITION | position & POSITION;
        // SYNC(advanced): pairs with the loads of cursors, and with itself. Exchanges continue what others have released, so SYNC(head-back)
        // holds for later cursors, too. SYNC(bell): as in `send`, because a sender of packets looks at cursors.
        match word.compare_exchange(cursor, next, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => next,
            Err(changed) => changed,
        }
    }
}
