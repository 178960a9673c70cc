//! The reading end of a ring.
//!
//! Every cursor of the peer is checked before it is used.

use super::{
    Broken,
    header::{announce, take, withdraw},
    memory::RingMemory,
};
use crate::sync::{AtomicU32, Ordering};

/// The reading end.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    /// A power of two.
    capacity: usize,
    /// The number of bytes that were ever freed. The shared word is written from it and never read, because the peer can write it.
    head: u64,
    /// The producer's cursor when it was last read, with `tail - head <= capacity`.
    tail: u64,
}

impl<M: RingMemory> Consumer<M> {
    /// Becomes the consumer of a ring from which nothing was read. Zeroed memory is such a ring.
    ///
    /// # Errors
    ///
    /// The memory is unsuitable, is marked as something else, or had a consumer that has read.
    pub(crate) fn attach(memory: M) -> Result<Self, Broken> {
        let capacity = memory.capacity()?;
        memory.header().mark(capacity)?;
        if memory.header().head.load(Ordering::Relaxed) != 0 {
            return Err(Broken::Used);
        }
        Ok(Self { memory, capacity, head: 0, tail: 0 })
    }

    /// Appends published bytes, at most `most`, and frees their place. Returns the number of bytes. They are a copy that cannot
    /// change any more, but they come from the peer and must not be trusted.
    ///
    /// # Errors
    ///
    /// The producer's cursor is invalid.
    #[inline]
    pub(crate) fn read(&mut self, out: &mut Vec<u8>, most: usize) -> Result<usize, Broken> {
        let mut ready = self.ready_seen();
        if ready < most {
            ready = self.len_bytes()?;
        }
        let len = ready.min(most);
        if len == 0 {
            return Ok(0);
        }
        let at = self.position();
        let first = len.min(self.capacity - at);
        out.reserve(len);
        self.memory.append(at, first, out);
        if first < len {
            self.memory.append(0, len - first, out);
        }
        self.head = self.head.wrapping_add(len as u64);
        // SYNC(ring-freed): pairs with the Acquire load of `head` in `Producer::room`.
        self.memory.header().head.store(self.head, Ordering::Release);
        Ok(len)
    }

    /// Returns how many bytes can be read now.
    ///
    /// # Errors
    ///
    /// The producer's cursor is invalid.
    pub(crate) fn len_bytes(&mut self) -> Result<usize, Broken> {
        // SYNC(ring-published): pairs with the Release store of `tail` in `Producer::write`.
        let tail = self.memory.header().tail.load(Ordering::Acquire);
        let ready = tail.wrapping_sub(self.head);
        // At most the capacity, and at least as many as before.
        if ready > self.capacity as u64 || ready < self.tail.wrapping_sub(self.head) {
            return Err(Broken::Cursor);
        }
        self.tail = tail;
        Ok(self.ready_seen())
    }

    #[inline]
    fn ready_seen(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }

    #[inline]
    fn position(&self) -> usize {
        self.head as usize & (self.capacity - 1)
    }

    /// Returns whether nothing can be read now. One load, for repeated calls. If it returns `false`, the next read may still report
    /// an invalid cursor.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // It orders nothing. Data is read after the Acquire load in `len_bytes`.
        self.memory.header().tail.load(Ordering::Relaxed) == self.head
    }

    /// Returns whether the producer has closed the ring. Data that it wrote before may still be there. If this is `true` and the
    /// ring is found empty after that, everything has been read.
    pub(crate) fn is_closed(&self) -> bool {
        // SYNC(ring-closed): pairs with the Release store of `closed` in `Producer::close`.
        self.memory.header().closed.load(Ordering::Acquire) != 0
    }

    /// Withdraws the announcement that the producer sleeps, if there is one. Returns the word on which the caller has to wake the
    /// producer. Call it after a read.
    #[inline]
    pub(crate) fn take_bell(&self) -> Option<&AtomicU32> {
        take(&self.memory.header().producer_parked)
    }

    /// Announces that this end sleeps until there are bytes or the ring is closed. Returns `false`, and withdraws the announcement,
    /// if that is already the case or the next read will report an invalid cursor.
    pub(crate) fn park(&mut self) -> bool {
        announce(self.bell());
        let sleeps = self.is_empty() && !self.is_closed();
        if !sleeps {
            self.unpark();
        }
        sleeps
    }

    /// Withdraws the announcement of this end.
    pub(crate) fn unpark(&self) {
        withdraw(self.bell());
    }

    /// Returns the word on which a parked consumer waits. It is 1 until the consumer has to wake.
    pub(crate) fn bell(&self) -> &AtomicU32 {
        &self.memory.header().consumer_parked
    }
}

/// Wakes one end of a ring from another thread of its own process, for a reason that is not in the ring.
#[derive(Debug)]
pub(crate) struct Alarm<M> {
    memory: M,
    of_producer: bool,
}

impl<M: RingMemory> Alarm<M> {
    /// Creates the alarm of the consumer of the ring in this memory.
    pub(crate) fn of_consumer(memory: M) -> Self {
        Self { memory, of_producer: false }
    }

    /// Creates the alarm of the producer of the ring in this memory.
    pub(crate) fn of_producer(memory: M) -> Self {
        Self { memory, of_producer: true }
    }

    /// Withdraws the announcement that the end sleeps, if there is one. Returns the word on which the caller has to wake it. The end
    /// checks for the reason between its `park` and its sleep.
    pub(crate) fn take_bell(&self) -> Option<&AtomicU32> {
        let header = self.memory.header();
        take(if self.of_producer { &header.producer_parked } else { &header.consumer_parked })
    }

    /// Returns whether the consumer has not read everything yet. A hint: it orders nothing.
    pub(crate) fn has_arrivals(&self) -> bool {
        let header = self.memory.header();
        header.tail.load(Ordering::Relaxed) != header.head.load(Ordering::Relaxed)
    }
}
