//! The words that both ends share, and how they announce that they sleep.

use super::Broken;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// The header's size; the data lies behind it.
pub(crate) const HEADER_BYTES: usize = 3 * LINE_BYTES;
/// What is written by different ends lies so far apart: processors fetch lines of 64 bytes in pairs.
const LINE_BYTES: usize = 128;

/// "PRNG", the version of the layout, and the logarithm of the capacity.
const MAGIC: u64 = 0x5052_4e47;
const VERSION: u64 = 1;

/// Fills a line up. Made of atomics, because the peer may write here, too; nobody reads it.
#[cfg(not(loom))]
type Padding<const WORDS: usize> = [AtomicU64; WORDS];
/// A model's header is memory of its own, and each atomic in it costs time.
#[cfg(loom)]
type Padding<const WORDS: usize> = [u64; WORDS];

/// The shared words. All zero is the header of an empty ring that nobody has attached to.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Header {
    /// Says that this is a ring, of which version and size. Written by whoever attaches first.
    pub(super) mark: AtomicU64,
    /// 1 while the producer sleeps: set by the producer, taken back by either end.
    pub(super) producer_parked: AtomicU32,
    /// 1 while the consumer sleeps: set by the consumer, taken back by either end.
    pub(super) consumer_parked: AtomicU32,
    _rarely: Padding<14>,
    /// Bytes that were ever published. Written by the producer alone.
    pub(super) tail: AtomicU64,
    /// 1 once no more will be published. Written by the producer alone.
    pub(super) closed: AtomicU32,
    _unused: AtomicU32,
    _producers: Padding<14>,
    /// Bytes that were ever freed. Written by the consumer alone.
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
    /// Marks the memory as a ring of this capacity, or finds it marked so by the other end.
    pub(super) fn mark(&self, capacity: usize) -> Result<(), Broken> {
        let mark = (MAGIC << 32) | (VERSION << 16) | u64::from(capacity.trailing_zeros());
        // Nothing is ordered by it: fresh memory is a ring already.
        match self.mark.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(found) if found == mark => Ok(()),
            Err(_) => Err(Broken::Mark),
        }
    }
}

/// Announces that the end whose word this is sleeps. Whoever calls it looks for work once more before it does.
pub(super) fn announce(word: &AtomicU32) {
    // A swap where a store would do, here and in `withdraw`: loom takes a swap to come after all that it saw, and is not so sure of
    // a store.
    word.swap(1, Ordering::Relaxed);
    // SYNC(ring-parked): pairs with the fence in `take`. Of the two fences one comes first: if this one, the peer sees the word; if
    // the other, this end sees what the peer did before it, when it looks once more.
    fence(Ordering::SeqCst);
}

/// Takes the announcement back.
pub(super) fn withdraw(word: &AtomicU32) {
    word.swap(0, Ordering::Relaxed);
}

/// Takes the peer's announcement down, if there is one: `true` for whoever is to wake the peer.
#[inline]
pub(super) fn take(word: &AtomicU32) -> bool {
    // SYNC(ring-parked): pairs with the fence in `announce`.
    fence(Ordering::SeqCst);
    word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::Relaxed) != 0
}

#[cfg(all(test, loom))]
impl Header {
    /// A model's header.
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
