//! Decides who may begin a task that is ready in a worker: the worker, or the host, which wants it back.
//!
//! One word, shared by host and worker, contains two sequence numbers (see [`before`]): the last task that the worker has *begun*, and
//! the *floor* below which no task may begin any more. The worker begins a task by compare-and-swap. The host takes back all tasks that
//! have not begun by raising the floor, also by compare-and-swap. Each task therefore has exactly one owner at any time, and when a
//! worker dies, the word tells exactly which task it had begun.

use crate::{
    id::{before, has_begun},
    sync::{AtomicU64, Ordering},
};

/// The word. It is in memory that host and worker share.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct ClaimWord(AtomicU64);

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn join(floor: u32, begun: u32) -> u64 {
    (u64::from(floor) << 32) | u64::from(begun)
}

impl ClaimWord {
    /// No task has begun, and none was taken back.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// In the worker: claims task `seq`. Returns `false` if the host has taken it back, so that it must not run.
    #[inline]
    pub(crate) fn begin(&self, seq: u32) -> bool {
        // Usually the worker began the task before this one, and none was taken back since.
        let last = seq.wrapping_sub(1);
        // SYNC(claim): as below.
        let usual =
            self.0.compare_exchange(join(last, last), join(seq, seq), Ordering::SeqCst, Ordering::Acquire);
        match usual {
            Ok(_) => true,
            Err(word) => self.begin_after(seq, word),
        }
    }

    fn begin_after(&self, seq: u32, mut word: u64) -> bool {
        loop {
            let (floor, _) = split(word);
            if before(seq, floor) {
                return false;
            }
            // The floor is raised, too. Otherwise it would be half of the range behind after some time. No task up to `seq` may
            // begin again.
            // SYNC(claim): pairs with the Acquire of the same word in `take_back` and `begun`.
            match self.0.compare_exchange_weak(word, join(seq, seq), Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// In the host: returns whether task `seq`, which was not taken back, has not begun and never can. None of our workers writes
    /// such a word.
    pub(crate) fn bars(&self, seq: u32) -> bool {
        let (floor, begun) = split(self.0.load(Ordering::Acquire));
        before(seq, floor) && !has_begun(seq, begun)
    }

    /// In the host: takes back all tasks before `next` that have not begun. Returns the last that has.
    pub(crate) fn take_back(&self, next: u32) -> u32 {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let (_, begun) = split(word);
            // SYNC(claim): pairs with the Acquire of the same word in `begin`.
            match self.0.compare_exchange_weak(word, join(next, begun), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return begun,
                Err(now) => word = now,
            }
        }
    }

    /// Like [`begun`](Self::begun), ordered with what the worker does after it has begun a task.
    pub(crate) fn begun_now(&self) -> u32 {
        split(self.0.load(Ordering::SeqCst)).1
    }

    /// Returns the last task that the worker has begun.
    pub(crate) fn begun(&self) -> u32 {
        split(self.0.load(Ordering::Acquire)).1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_recalled_task_never_begins() {
        let word = ClaimWord::new();
        assert!(word.begin(1));
        assert_eq!(word.take_back(5), 1);
        assert!(!word.begin(2) && !word.begin(4));
        assert!(word.begin(5));
        assert_eq!(word.begun(), 5);
    }

    #[test]
    fn without_recalls_a_worker_runs_more_tasks_than_there_are_numbers() {
        let word = ClaimWord::new();
        let step = 1 << 20;
        for seq in (0..=u32::MAX).step_by(step).chain((0..=u32::MAX).step_by(step)).skip(1) {
            assert!(word.begin(seq), "{seq}");
        }
    }

    #[test]
    fn numbers_may_wrap() {
        let word = ClaimWord(AtomicU64::new(join(u32::MAX - 1, u32::MAX)));
        assert!(word.begin(0) && word.begin(1));
        assert_eq!(word.take_back(3), 1);
        assert!(!word.begin(2));
        assert!(has_begun(u32::MAX, 1) && !has_begun(2, 1));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    /// In every order of events, each of two tasks has exactly one owner.
    #[test]
    fn a_task_is_begun_or_recalled_and_never_both_or_neither() {
        loom::model(|| {
            let word = loom::sync::Arc::new(ClaimWord::new());
            let worker = {
                let word = word.clone();
                loom::thread::spawn(move || [word.begin(1), word.begin(2)])
            };
            let begun = word.take_back(3);
            let ran = worker.join().unwrap();
            for seq in [1, 2] {
                assert_eq!(ran[seq as usize - 1], has_begun(seq, begun), "task {seq}");
            }
        });
    }
}
