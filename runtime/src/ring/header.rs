//! The words that both ends share, and the protocol by which an end announces that it sleeps.
//!
//! Only the two ends use it. The peer may write all of these words at any time.

use super::Broken;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// The size of the header. The data follows it.
pub(crate) const HEADER_BYTES: usize = 3 * LINE_BYTES;
/// The distance between words that are written by different ends. Processors fetch lines of 64 bytes in pairs.
const LINE_BYTES: usize = 128;

/// "PRNG", the version of the layout, and the logarithm of the capacity.
const MAGIC: u64 = 0x5052_4e47;
const VERSION: u64 = 1;

/// Fills a line. Made of atomics because the peer may write here, too. It is never read.
#[cfg(not(loom))]
type Padding<const WORDS: usize> = [AtomicU64; WORDS];
/// A model's header is in its own memory, and each atomic in it costs time.
#[cfg(loom)]
type Padding<const WORDS: usize> = [u64; WORDS];

/// The shared words. All zero is the header of an empty ring without ends.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Header {
    /// Identifies a ring, its version and its size. Written by the first end that attaches.
    pub(super) mark: AtomicU64,
    /// 1 while the producer sleeps. Set by the producer, withdrawn by either end.
    pub(super) producer_parked: AtomicU32,
    /// 1 while the consumer sleeps. Set by the consumer, withdrawn by either end.
    pub(super) consumer_parked: AtomicU32,
    _rarely: Padding<14>,
    /// The number of bytes that were ever published. Written only by the producer.
    pub(super) tail: AtomicU64,
    /// 1 when nothing more will be published. Written only by the producer.
    pub(super) closed: AtomicU32,
    _unused: AtomicU32,
    _producers: Padding<14>,
    /// The number of bytes that were ever freed. Written only by the consumer.
    pub(super) head: AtomicU64,
    _consumers: Padding<15>,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Header>() == HEADER_BYTES && align_of::<Header>() <= 64);
    assert!(offset_of!(Header, mark) == 0);
    assert!(offset_of!(Header, producer_parked) == 8 && offset_of!(Header, consumer_parked) == 12);
    assert!(offset_of!(Header, tail) == LINE_BYTES && offset_of!(Header, closed) == LINE_BYTES + 8);
    assert!(offset_of!(Header, head) == 2 * LINE_BYTES);
};

impl Header {
    /// Marks the memory as a ring of this capacity, or checks the mark of the other end.
    pub(super) fn mark(&self, capacity: usize) -> Result<(), Broken> {
        let mark = (MAGIC << 32) | (VERSION << 16) | u64::from(capacity.trailing_zeros());
        // It orders nothing, because fresh memory already is a ring.
        match self.mark.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(found) if found == mark => Ok(()),
            Err(_) => Err(Broken::Mark),
        }
    }
}

/// Announces that the end that owns this word sleeps. The caller must look for work once more before it sleeps.
pub(super) fn announce(word: &AtomicU32) {
    // A swap is used here and in `withdraw` although a store would suffice. loom knows that a swap comes after everything that it
    // saw, but not that a store does.
    word.swap(1, Ordering::Relaxed);
    // SYNC(ring-parked): pairs with the fence in `take`. Of the two fences one comes first: if this one, the peer sees the word; if
    // the other, this end sees what the peer did before it, when it looks once more.
    fence(Ordering::SeqCst);
}

/// Withdraws the announcement of the caller's own end.
pub(super) fn withdraw(word: &AtomicU32) {
    word.swap(0, Ordering::Relaxed);
}

/// Withdraws the peer's announcement, if there is one. Returns the word if the caller has to wake the peer, which waits on it.
#[inline]
pub(super) fn take(word: &AtomicU32) -> Option<&AtomicU32> {
    // SYNC(ring-parked): pairs with the fence in `announce`.
    fence(Ordering::SeqCst);
    (word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::Relaxed) != 0).then_some(word)
}

#[cfg(all(test, loom))]
impl Header {
    /// Creates the header for a model.
    pub(super) fn new() -> Self {
        Self {
            mark: AtomicU64::new(0),
            producer_parked: AtomicU32::new(0),
            consumer_parked: AtomicU32::new(0),
            _rarely: [0; 14],
            tail: AtomicU64::new(0),
            closed: AtomicU32::new(0),
            _unused: AtomicU32::new(0),
            _producers: [0; 14],
            head: AtomicU64::new(0),
            _consumers: [0; 15],
        }
    }
}
