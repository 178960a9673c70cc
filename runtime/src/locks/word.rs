//! The word of a lock: who holds it, whether others wait, and whether a holder has died.

use crate::sync::{AtomicU32, Ordering, step};

/// The entry number of the holder. 0 if it is free.
pub(super) const HOLDER: u32 = 0xffff;
/// Others sleep, or may.
const WAITERS: u32 = 1 << 30;
/// The lock is free because its holder has died, which nobody was told yet.
const DIED: u32 = 1 << 31;

/// How often a waiter looks at the word before it sleeps: as often as std.
const SPINS: usize = if cfg!(loom) { 0 } else { 100 };

/// A lock's word, in memory that several processes change.
///
/// It is free if it has no holder, whatever else is in it. Each change is one atomic operation, so a holder that dies leaves a word that
/// says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockWord<'a>(pub(super) &'a AtomicU32);

/// Whether the last holder has died.
pub(super) type HasDied = bool;

impl LockWord<'_> {
    /// Takes the lock if it is free.
    #[inline]
    pub(super) fn try_lock(self, me: u32) -> Option<HasDied> {
        let mut word = 0;
        loop {
            // SYNC(lock): pairs with the Release in `unlock`.
            match self.0.compare_exchange(word, me | word & WAITERS, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(word & DIED != 0),
                Err(now) if now & HOLDER == 0 => word = now,
                Err(_) => return None,
            }
        }
    }

    /// Takes the lock as soon as it is free. Returns `None` if `sleep` returns `false`.
    ///
    /// `sleep` waits until the word has not this value any more, or is woken. It also sees to it that the word of a dead holder changes.
    #[inline]
    pub(super) fn lock(self, me: u32, sleep: impl FnMut(u32) -> bool) -> Option<HasDied> {
        step("lock: wanted");
        // SYNC(lock): as in `try_lock`.
        let died = match self.0.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(false),
            Err(_) => self.lock_slowly(me, sleep),
        };
        step("lock: taken");
        died
    }

    #[cold]
    fn lock_slowly(self, me: u32, mut sleep: impl FnMut(u32) -> bool) -> Option<HasDied> {
        // After it has slept, it cannot know whether others still do.
        let mut mark = 0;
        let mut word = self.spin();
        loop {
            if word & HOLDER == 0 {
                let mine = me | mark | word & WAITERS;
                // SYNC(lock): as in `try_lock`.
                match self.0.compare_exchange(word, mine, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Some(word & DIED != 0),
                    Err(now) => word = now,
                }
                continue;
            }
            if word & WAITERS == 0 {
                let waiting = word | WAITERS;
                if let Err(now) = self.0.compare_exchange(word, waiting, Ordering::Relaxed, Ordering::Relaxed)
                {
                    word = now;
                    continue;
                }
            }
            step("lock: announced");
            if !sleep(word | WAITERS) {
                return None;
            }
            step("lock: woken");
            mark = WAITERS;
            word = self.spin();
        }
    }

    /// Returns the word when the lock is free or others sleep, or after some time.
    fn spin(self) -> u32 {
        let mut word = self.0.load(Ordering::Relaxed);
        for _ in 0..SPINS {
            if word & HOLDER == 0 || word & WAITERS != 0 {
                break;
            }
            std::hint::spin_loop();
            word = self.0.load(Ordering::Relaxed);
        }
        word
    }

    /// Announces that a thread sleeps until the lock is free. Returns the word to wait for, or `None` if it is free.
    pub(super) fn announce(self) -> Option<u32> {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & HOLDER != 0 {
            let waiting = word | WAITERS;
            match self.0.compare_exchange(word, waiting, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(waiting),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Returns whether some process holds the lock. If not, what the last holder wrote is seen.
    pub(super) fn is_held(self) -> bool {
        // SYNC(lock): pairs with the Release in `unlock`.
        self.0.load(Ordering::Acquire) & HOLDER != 0
    }

    /// Returns whether this call is the one that is told that a holder has died.
    pub(super) fn take_died(self) -> HasDied {
        self.0.load(Ordering::Relaxed) & DIED != 0 && self.0.fetch_and(!DIED, Ordering::Acquire) & DIED != 0
    }

    /// Frees the lock. Returns whether a waiter must be woken.
    ///
    /// `died` is what the caller was told when it took the lock, if the next one must be told again.
    #[inline]
    pub(super) fn unlock(self, died: HasDied) -> bool {
        step("unlock: wanted");
        // SYNC(lock): pairs with the Acquire in `try_lock`, `lock` and `take_died`.
        let word = self.0.swap(if died { DIED } else { 0 }, Ordering::Release);
        step("unlock: freed");
        word & WAITERS != 0
    }

    /// Takes the lock away from a process that has died. All waiters must be woken then: it may have died before it woke one, or after it
    /// was woken.
    pub(super) fn disown(self, dead: u32) {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & HOLDER == dead {
            // SYNC(lock): as in `unlock`.
            match self.0.compare_exchange(word, DIED, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}
