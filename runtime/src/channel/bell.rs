//! A word on which participants sleep until they are rung.
//!
//! It is 1 while somebody may be asleep whom nobody has rung. Whoever was rung [hands on](Bell::hand_on) before it leaves.

use crate::sync::{AtomicU32, Ordering, fence};

/// The word: 0 if nobody sleeps. A thread sleeps while it is 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bell<'a>(pub(super) &'a AtomicU32);

impl Bell<'_> {
    /// Announces that this thread is about to sleep. It looks once more before it does.
    pub(super) fn announce(self) {
        self.0.store(1, Ordering::Relaxed);
        // SYNC(bell): of this fence and the one in `ring` one comes first. Then this thread sees what there is, or is seen.
        fence(Ordering::SeqCst);
    }

    /// Returns whether one sleeper is to be woken, after something was changed for which it may wait.
    pub(super) fn ring(self) -> bool {
        // SYNC(bell): pairs with the fence in `announce`.
        fence(Ordering::SeqCst);
        self.is_rung()
    }

    /// As [`ring`](Self::ring), if all that was changed was changed by sequentially consistent operations. A fence would take as long as all else
    /// that is done for a message.
    #[inline]
    pub(super) fn ring_after_ordered(self) -> bool {
        // Loom knows sequentially consistent fences, but no such accesses.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        self.is_rung()
    }

    #[inline]
    fn is_rung(self) -> bool {
        // SYNC(bell): if this load is before the fence in `announce`, so is each operation of that kind that the caller made before.
        self.0.load(Ordering::SeqCst) != 0 && self.0.swap(0, Ordering::Relaxed) != 0
    }

    /// Called by a thread that has slept and will not sleep again. There may be other sleepers, who were not rung because it was: returns
    /// whether one of them is to be woken, because there is more for it.
    pub(super) fn hand_on(self, has_more: impl FnOnce() -> bool) -> bool {
        self.announce();
        has_more() && self.ring()
    }
}
