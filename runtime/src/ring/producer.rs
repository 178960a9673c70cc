//! The writing end of a ring.
//!
//! Every cursor of the peer is checked before it is used.

use super::{
    Broken,
    header::{announce, take, withdraw},
    memory::{RingMemory, sum},
};
use crate::sync::{AtomicU32, Ordering, fence};

/// The writing end.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    /// A power of two.
    capacity: usize,
    /// The number of bytes that were ever published. The shared word is written from it and never read, because the peer can write
    /// it.
    tail: u64,
    /// The consumer's cursor when it was last read, with `tail - head <= capacity`.
    head: u64,
}

impl<M: RingMemory> Producer<M> {
    /// Becomes the producer of an empty ring. Zeroed memory is such a ring.
    ///
    /// # Errors
    ///
    /// The memory is unsuitable, is marked as something else, or had a producer that has written.
    pub(crate) fn attach(memory: M) -> Result<Self, Broken> {
        let capacity = memory.capacity()?;
        memory.header().mark(capacity)?;
        if memory.header().tail.load(Ordering::Relaxed) != 0 {
            return Err(Broken::Used);
        }
        Ok(Self { memory, capacity, tail: 0, head: 0 })
    }

    /// Copies as many bytes of the parts as there is room for, one part after the other, and publishes them all at once. Returns
    /// the number of bytes.
    ///
    /// # Errors
    ///
    /// The consumer's cursor is invalid.
    #[inline(always)] // A caller's parts are few and known: inlined, the copy of a prefix is one store.
    pub(crate) fn write(&mut self, parts: &[&[u8]]) -> Result<usize, Broken> {
        let wanted = sum(parts);
        let mut room = self.room_seen();
        if room < wanted {
            room = self.room()?;
        }
        let len = wanted.min(room);
        if len == 0 {
            return Ok(0);
        }
        let at = self.position();
        if len == wanted && len <= self.capacity - at {
            self.memory.put(at, parts);
        } else {
            self.put_pieces(at, parts, len);
        }
        self.tail = self.tail.wrapping_add(len as u64);
        // SYNC(ring-published): pairs with the Acquire load of `tail` in `Consumer::len_bytes`.
        self.memory.header().tail.store(self.tail, Ordering::Release);
        Ok(len)
    }

    /// Like [`write`](Self::write), for the first `len` bytes of `padded`, with one copy of a constant size. Returns `false` if
    /// that does not fit at the cursor or in the room that was last seen. Nothing was written then.
    #[inline]
    pub(crate) fn write_padded<const N: usize>(&mut self, padded: &[u8; N], len: usize) -> bool {
        let at = self.position();
        if self.room_seen() < N || self.capacity - at < N || len > N {
            return false;
        }
        // The bytes behind the first `len` are in free room and will be overwritten by the next write.
        self.memory.put(at, &[padded]);
        self.tail = self.tail.wrapping_add(len as u64);
        // SYNC(ring-published): as in `write`.
        self.memory.header().tail.store(self.tail, Ordering::Release);
        true
    }

    /// Like [`write_padded`](Self::write_padded), for eight bytes and a few more. Returns `false` if that is too many.
    #[inline]
    pub(crate) fn write_few(&mut self, head: [u8; 8], few: &[u8]) -> bool {
        let word = match (few.first_chunk::<4>(), few.last_chunk::<4>()) {
            // The two overlap in the middle.
            (Some(first), Some(last)) if few.len() <= 8 => {
                let last = u64::from(u32::from_le_bytes(*last)) << (8 * (few.len() - 4));
                u64::from(u32::from_le_bytes(*first)) | last
            }
            _ => match *few {
                [] => 0,
                [a] => u64::from(a),
                [a, b] => u64::from(u16::from_le_bytes([a, b])),
                [a, b, c] => u64::from(u32::from_le_bytes([a, b, c, 0])),
                _ => return false,
            },
        };
        let padded = u128::from(u64::from_le_bytes(head)) | u128::from(word) << 64;
        self.write_padded(&padded.to_le_bytes(), head.len() + few.len())
    }

    /// Copies the first `len` bytes of the parts to `at`. Those that do not fit before the end go to the start.
    #[cold]
    fn put_pieces(&self, mut at: usize, parts: &[&[u8]], mut len: usize) {
        for part in parts {
            let part = &part[..part.len().min(len)];
            len -= part.len();
            let (first, second) = part.split_at(part.len().min(self.capacity - at));
            self.memory.put(at, &[first]);
            self.memory.put(0, &[second]);
            at = (at + part.len()) & (self.capacity - 1);
        }
    }

    /// Returns how many bytes can be written now.
    ///
    /// # Errors
    ///
    /// The consumer's cursor is invalid.
    pub(crate) fn room(&mut self) -> Result<usize, Broken> {
        // SYNC(ring-freed): pairs with the Release store of `head` in `Consumer::read`.
        let head = self.memory.header().head.load(Ordering::Acquire);
        // It is between its last value and `tail`. Then fewer bytes are in use than before, and at most the capacity.
        if self.tail.wrapping_sub(head) > self.tail.wrapping_sub(self.head) {
            return Err(Broken::Cursor);
        }
        self.head = head;
        Ok(self.room_seen())
    }

    /// Returns whether this many bytes can be written now.
    ///
    /// # Errors
    ///
    /// The consumer's cursor is invalid.
    #[inline]
    pub(crate) fn fits(&mut self, len_bytes: usize) -> Result<bool, Broken> {
        Ok(self.room_seen() >= len_bytes || self.room()? >= len_bytes)
    }

    #[inline]
    fn room_seen(&self) -> usize {
        self.capacity - self.tail.wrapping_sub(self.head) as usize
    }

    #[inline]
    fn position(&self) -> usize {
        self.tail as usize & (self.capacity - 1)
    }

    /// Announces that nothing more will be written. The caller rings afterwards, as after a write.
    pub(crate) fn close(&self) {
        // SYNC(ring-closed): pairs with the Acquire load of `closed` in `Consumer::is_closed`.
        self.memory.header().closed.store(1, Ordering::Release);
    }

    /// Withdraws the announcement that the consumer sleeps, if there is one. Returns the word on which the caller has to wake the
    /// consumer. Call it after a write or the close.
    #[inline]
    pub(crate) fn take_bell(&self) -> Option<&AtomicU32> {
        take(&self.memory.header().consumer_parked)
    }

    /// Returns whether the consumer has read everything that it can see and has announced that it sleeps. What it did before is
    /// visible here. (If it has overwritten this end's cursor, it can see less than was written.)
    pub(crate) fn is_peer_at_rest(&self) -> bool {
        let header = self.memory.header();
        let sleeps = header.consumer_parked.load(Ordering::Relaxed) != 0;
        // SYNC(ring-parked): pairs with the fence in `take`, which the peer has passed after everything that it published.
        fence(Ordering::SeqCst);
        sleeps && header.head.load(Ordering::Relaxed) == header.tail.load(Ordering::Relaxed)
    }

    /// Announces that this end sleeps until there is room. Returns `false`, and withdraws the announcement, if there is room or the
    /// next call will report an invalid cursor.
    pub(crate) fn park(&mut self) -> bool {
        announce(self.bell());
        let sleeps = self.room() == Ok(0);
        if !sleeps {
            self.unpark();
        }
        sleeps
    }

    /// Withdraws the announcement of this end.
    pub(crate) fn unpark(&self) {
        withdraw(self.bell());
    }

    /// Returns the word on which a parked producer waits. It is 1 until the producer has to wake.
    pub(crate) fn bell(&self) -> &AtomicU32 {
        &self.memory.header().producer_parked
    }
}
