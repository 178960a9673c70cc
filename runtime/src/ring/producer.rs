//! The end that writes.

use super::{
    Broken,
    header::{announce, take, withdraw},
    memory::{Place, sum},
};
use crate::sync::{AtomicU32, Ordering, fence};

/// The end that writes.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    /// A power of two.
    capacity: usize,
    /// Bytes that were ever published. The shared word is written from it and never read: the peer can write it.
    tail: u64,
    /// The consumer's cursor as it was last seen: `tail - head <= capacity`.
    head: u64,
}

impl<M: Place> Producer<M> {
    /// Becomes the producer of an empty ring; memory that is all zero is one.
    ///
    /// # Errors
    ///
    /// The memory is unfit, is marked as something else, or had a producer that wrote.
    pub(crate) fn attach(memory: M) -> Result<Self, Broken> {
        let capacity = memory.capacity()?;
        memory.header().mark(capacity)?;
        if memory.header().tail.load(Ordering::Relaxed) != 0 {
            return Err(Broken::Used);
        }
        Ok(Self { memory, capacity, tail: 0, head: 0 })
    }

    /// Copies as much of the parts, one after the other, as there is room for, and publishes it all at once. Returns the number of
    /// bytes.
    ///
    /// # Errors
    ///
    /// The consumer's cursor makes no sense.
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

    /// As [`write`](Self::write), the first `len` bytes of `padded`, in one copy of a size that is known. `false`: that is too much for
    /// where the cursor is or for the room that was seen last, and nothing was written.
    #[inline]
    pub(crate) fn write_padded<const N: usize>(&mut self, padded: &[u8; N], len: usize) -> bool {
        let at = self.position();
        if self.room_seen() < N || self.capacity - at < N || len > N {
            return false;
        }
        // What is behind the first `len` bytes lies in free room, and the next write goes over it.
        self.memory.put(at, &[padded]);
        self.tail = self.tail.wrapping_add(len as u64);
        // SYNC(ring-published): as in `write`.
        self.memory.header().tail.store(self.tail, Ordering::Release);
        true
    }

    /// As [`write_padded`](Self::write_padded), eight bytes and a few more; `false`: they are not so few.
    #[inline]
    pub(crate) fn write_few(&mut self, head: [u8; 8], few: &[u8]) -> bool {
        let word = match (few.first_chunk::<4>(), few.last_chunk::<4>()) {
            // The two share their middle.
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

    /// Copies the first `len` bytes of the parts to `at`, those that do not fit before the end to the start.
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

    /// How many bytes can be written now.
    ///
    /// # Errors
    ///
    /// The consumer's cursor makes no sense.
    pub(crate) fn room(&mut self) -> Result<usize, Broken> {
        // SYNC(ring-freed): pairs with the Release store of `head` in `Consumer::read`.
        let head = self.memory.header().head.load(Ordering::Acquire);
        // It lies between where it was and `tail`: then less is in use than was, and no more than the capacity.
        if self.tail.wrapping_sub(head) > self.tail.wrapping_sub(self.head) {
            return Err(Broken::Cursor);
        }
        self.head = head;
        Ok(self.room_seen())
    }

    /// Whether so many bytes can be written now.
    ///
    /// # Errors
    ///
    /// The consumer's cursor makes no sense.
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

    /// Says that no more will come. The caller rings then, as after a write.
    pub(crate) fn close(&self) {
        // SYNC(ring-closed): pairs with the Acquire load of `closed` in `Consumer::is_closed`.
        self.memory.header().closed.store(1, Ordering::Release);
    }

    /// Takes down the announcement that the consumer sleeps, if there is one: `true` means that the caller is to wake it. To be
    /// called after what the consumer may sleep for: a write, or the close.
    #[inline]
    pub(crate) fn take_bell(&self) -> bool {
        take(&self.memory.header().consumer_parked)
    }

    /// The consumer has read all that it can see, and has announced that it sleeps. What it did before that can be seen here. (What it
    /// can see is less than was written if it has written over this end's cursor.)
    pub(crate) fn is_peer_at_rest(&self) -> bool {
        let header = self.memory.header();
        let sleeps = header.consumer_parked.load(Ordering::Relaxed) != 0;
        // SYNC(ring-parked): pairs with the fence in `take`, which the peer has passed after whatever it published.
        fence(Ordering::SeqCst);
        sleeps && header.head.load(Ordering::Relaxed) == header.tail.load(Ordering::Relaxed)
    }

    /// Announces that this end sleeps until there is room. `false`: there is some already, or nonsense that the next call will
    /// report, and the announcement is taken back.
    pub(crate) fn park(&mut self) -> bool {
        announce(self.bell());
        let sleeps = self.room() == Ok(0);
        if !sleeps {
            self.unpark();
        }
        sleeps
    }

    /// Takes the announcement back.
    pub(crate) fn unpark(&self) {
        withdraw(self.bell());
    }

    /// The word by which the consumer is woken, after [`take_bell`](Self::take_bell).
    pub(crate) fn peer_bell(&self) -> &AtomicU32 {
        &self.memory.header().consumer_parked
    }

    /// The word that a parked producer waits on: 1 until it is to wake.
    pub(crate) fn bell(&self) -> &AtomicU32 {
        &self.memory.header().producer_parked
    }
}
