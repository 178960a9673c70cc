//! The end that reads.

use super::{
    Broken,
    header::{announce, take, withdraw},
    memory::Place,
};
use crate::sync::{AtomicU32, Ordering};

/// The end that reads.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    /// A power of two.
    capacity: usize,
    /// Bytes that were ever freed. The shared word is written from it and never read: the peer can write it.
    head: u64,
    /// The producer's cursor as it was last seen: `tail - head <= capacity`.
    tail: u64,
}

impl<M: Place> Consumer<M> {
    /// Becomes the consumer of a ring that nobody has read from; memory that is all zero is one.
    ///
    /// # Errors
    ///
    /// The memory is unfit, is marked as something else, or had a consumer that read.
    pub(crate) fn attach(memory: M) -> Result<Self, Broken> {
        let capacity = memory.capacity()?;
        memory.header().mark(capacity)?;
        if memory.header().head.load(Ordering::Relaxed) != 0 {
            return Err(Broken::Used);
        }
        Ok(Self { memory, capacity, head: 0, tail: 0 })
    }

    /// Appends what was published, `most` bytes at the most, and frees its place. Returns the number of bytes. They are the peer's
    /// word: a copy that nobody can change any more, and not to be believed.
    ///
    /// # Errors
    ///
    /// The producer's cursor makes no sense.
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

    /// How many bytes can be read now.
    ///
    /// # Errors
    ///
    /// The producer's cursor makes no sense.
    pub(crate) fn len_bytes(&mut self) -> Result<usize, Broken> {
        // SYNC(ring-published): pairs with the Release store of `tail` in `Producer::write`.
        let tail = self.memory.header().tail.load(Ordering::Acquire);
        let ready = tail.wrapping_sub(self.head);
        // No more than there is room for, and no less than was there before.
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

    /// Nothing can be read now. One load, to be called again and again; `false` may also mean that the next read finds nonsense.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Orders nothing: what is there is read after the Acquire load in `len_bytes`.
        self.memory.header().tail.load(Ordering::Relaxed) == self.head
    }

    /// The producer has said that no more will come. What it wrote before may be there still: if this is `true` and the ring is
    /// found empty after that, all has been read.
    pub(crate) fn is_closed(&self) -> bool {
        // SYNC(ring-closed): pairs with the Release store of `closed` in `Producer::close`.
        self.memory.header().closed.load(Ordering::Acquire) != 0
    }

    /// Takes down the announcement that the producer sleeps, if there is one: `true` means that the caller is to wake it. To be
    /// called after a read.
    #[inline]
    pub(crate) fn take_bell(&self) -> bool {
        take(&self.memory.header().producer_parked)
    }

    /// Announces that this end sleeps until there are bytes or the ring is closed. `false`: that is so already, or there is nonsense
    /// that the next read will report, and the announcement is taken back.
    pub(crate) fn park(&mut self) -> bool {
        announce(self.bell());
        let sleeps = self.is_empty() && !self.is_closed();
        if !sleeps {
            self.unpark();
        }
        sleeps
    }

    /// Takes the announcement back.
    pub(crate) fn unpark(&self) {
        withdraw(self.bell());
    }

    /// The word by which the producer is woken, after [`take_bell`](Self::take_bell).
    pub(crate) fn peer_bell(&self) -> &AtomicU32 {
        &self.memory.header().producer_parked
    }

    /// The word that a parked consumer waits on: 1 until it is to wake.
    pub(crate) fn bell(&self) -> &AtomicU32 {
        &self.memory.header().consumer_parked
    }
}

/// Wakes one end of a ring for a reason that has nothing to do with the ring, from another thread of its own process.
#[derive(Debug)]
pub(crate) struct Alarm<M> {
    memory: M,
    of_producer: bool,
}

impl<M: Place> Alarm<M> {
    /// For the consumer of the ring in this memory.
    pub(crate) fn of_consumer(memory: M) -> Self {
        Self { memory, of_producer: false }
    }

    /// For the producer of the ring in this memory.
    pub(crate) fn of_producer(memory: M) -> Self {
        Self { memory, of_producer: true }
    }

    /// Takes down the announcement that the end sleeps, if there is one: `true` means that the caller is to wake it by
    /// [`bell`](Self::bell). The end looks for the reason between its `park` and its sleep.
    pub(crate) fn take_bell(&self) -> bool {
        take(self.bell())
    }

    /// The word that the parked end waits on.
    pub(crate) fn bell(&self) -> &AtomicU32 {
        let header = self.memory.header();
        if self.of_producer { &header.producer_parked } else { &header.consumer_parked }
    }
}
