//! The words of a lock for readers and writers.
//!
//! The writer is named in a word like that of a mutex. Readers are counted by process, each in a word of its own, so that those of a dead
//! process can be taken out. A reader counts itself and then looks for a writer. A writer names itself and then waits until no reader is
//! counted. So readers that come later let a writer pass.

use super::word::{HasDied, LockWord};
use crate::sync::{AtomicU32, Ordering, fence, step};

/// The words, in memory that several processes change. The position of a process's readers is that of its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct RwWords<'a> {
    pub(super) writer: LockWord<'a>,
    /// How many of the readers' words may have been used: a writer looks at no others.
    pub(super) used: &'a AtomicU32,
    pub(super) readers: &'a [AtomicU32],
}

impl RwWords<'_> {
    /// Counts a reader of the process with this position, if there is no writer. `wake` wakes the writer that waits for the word.
    #[inline]
    pub(super) fn try_read(self, mine: usize, wake: impl FnOnce(&AtomicU32)) -> Option<HasDied> {
        if self.used.load(Ordering::Relaxed) as usize <= mine {
            self.used.fetch_max(mine as u32 + 1, Ordering::Relaxed);
        }
        self.readers[mine].fetch_add(1, Ordering::Relaxed);
        step("read: counted");
        // SYNC(readers): pairs with the fence in `drain`. Either the writer sees this reader, or this reader sees the writer.
        fence(Ordering::SeqCst);
        if self.writer.is_held() {
            self.unread(mine, wake);
            return None;
        }
        Some(self.writer.take_died())
    }

    /// Counts a reader as soon as there is no writer. Returns `None` if `sleep` returns `false`. `sleep` is as for [`LockWord::lock`].
    pub(super) fn read(
        self,
        mine: usize,
        mut sleep: impl FnMut(u32) -> bool,
        wake: impl Fn(&AtomicU32),
    ) -> Option<HasDied> {
        loop {
            if let Some(died) = self.try_read(mine, &wake) {
                return Some(died);
            }
            if let Some(seen) = self.writer.announce()
                && !sleep(seen)
            {
                return None;
            }
        }
    }

    /// Uncounts a reader.
    #[inline]
    pub(super) fn unread(self, mine: usize, wake: impl FnOnce(&AtomicU32)) {
        // SYNC(readers): pairs with the Acquire in `drain`: what was read is not changed before.
        self.readers[mine].fetch_sub(1, Ordering::Release);
        step("read: uncounted");
        // SYNC(readers): pairs with the fence in `drain`. Either the writer does not see this reader, or it is woken.
        fence(Ordering::SeqCst);
        if self.writer.is_held() {
            wake(&self.readers[mine]);
        }
    }

    /// Waits until no reader is counted. The caller is the writer. Returns `false` if `sleep` does, which waits for a word of the readers with
    /// this position.
    pub(super) fn drain(self, mut sleep: impl FnMut(usize, u32) -> bool) -> bool {
        // SYNC(readers): pairs with the fences in `try_read` and `unread`.
        fence(Ordering::SeqCst);
        let used = self.used.load(Ordering::Relaxed) as usize;
        self.readers.iter().enumerate().take(used).all(|(at, readers)| {
            loop {
                // SYNC(readers): pairs with the Release in `unread`.
                match readers.load(Ordering::Acquire) {
                    0 => return true,
                    seen if !sleep(at, seen) => return false,
                    _ => {}
                }
            }
        })
    }

    /// Takes the lock away from a process that has died. All waiters of both words must be woken then.
    pub(super) fn disown(self, dead: u32, at: usize) {
        self.readers[at].store(0, Ordering::Release);
        step("recovery: readers are gone");
        self.writer.disown(dead);
    }
}
