//! The ends of a channel that are on their way to another process, within the arguments of a task.
//!
//! They count as ends until the process that decodes them has counted its own, or until they are dropped with the bytes that name them.

use crate::{
    segment::Entry,
    sync::{AtomicU32, Ordering},
};

/// Which of the two kinds of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

impl Side {
    /// Returns one end of this kind in a word of the numbers of ends: senders in the low half, receivers in the high half.
    #[inline]
    pub(super) fn one(self) -> u64 {
        1 << self.shift()
    }

    #[inline]
    pub(super) fn is_in(self, ends: u64) -> bool {
        (ends >> self.shift()) as u32 != 0
    }

    #[inline]
    fn shift(self) -> u32 {
        match self {
            Self::Sender => 0,
            Self::Receiver => 32,
        }
    }
}

/// A place in the table, and what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    index: u32,
    word: u32,
}

impl Ticket {
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.word)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self { index: (bits >> 32) as u32, word: bits as u32 }
    }
}

/// The words of the table: 0, or a number that tells a ticket from those before it (20 bits), the participant that has encoded the end (10),
/// its side (1), and 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    pub(super) places: &'a [AtomicU32],
    /// How many places were ever used. Memory that was not used is not looked at, because it would then be there.
    pub(super) used: &'a AtomicU32,
    /// How often an end was sent or has arrived.
    pub(super) moves: &'a AtomicU32,
}

fn owner(word: u32) -> u32 {
    word >> 2 & 1023
}

impl<'a> Held<'a> {
    /// Adds an end that this participant sends. There may be no room.
    pub(super) fn add(self, side: Side, me: Entry, number: u32) -> Option<Ticket> {
        let word = number << 12 | me.number() << 2 | (side as u32) << 1 | 1;
        self.places.iter().zip(0..).find_map(|(place, index)| {
            self.used.fetch_max(index + 1, Ordering::SeqCst);
            let is_free = place.load(Ordering::Relaxed) == 0;
            let is_ours =
                is_free && place.compare_exchange(0, word, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            if !is_ours {
                return None;
            }
            self.note_move();
            Some(Ticket { index, word })
        })
    }

    /// Notes that an end was sent, before the one from which it was encoded can go, or that one has arrived, after it was counted.
    pub(super) fn note_move(self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// Looks for an end here and among those that processes have, until none has moved from one to the other meanwhile.
    pub(super) fn unless_moved(self, look: impl Fn(Self) -> bool) -> bool {
        loop {
            let moves = self.moves.load(Ordering::SeqCst);
            if look(self) {
                return true;
            }
            if self.moves.load(Ordering::SeqCst) == moves {
                return false;
            }
        }
    }

    /// Removes an end that has arrived or was dropped. Returns whether it was there.
    pub(super) fn remove(self, ticket: Ticket) -> bool {
        self.note_move();
        let place = self.places.get(ticket.index as usize);
        place.is_some_and(|place| {
            place.compare_exchange(ticket.word, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        })
    }

    fn used(self) -> &'a [AtomicU32] {
        let used = self.used.load(Ordering::SeqCst) as usize;
        &self.places[..used.min(self.places.len())]
    }

    /// Returns whether there is an end of this kind.
    pub(super) fn has(self, side: Side) -> bool {
        self.used().iter().any(|place| {
            let word = place.load(Ordering::SeqCst);
            word != 0 && word >> 1 & 1 == side as u32
        })
    }

    /// Removes the ends that a participant has encoded that has died, and their bytes with it.
    pub(super) fn recover(self, dead: Entry) {
        for place in self.used() {
            let word = place.load(Ordering::Relaxed);
            if word != 0 && owner(word) == dead.number() {
                let _ = place.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }
}
