//! Defines the inbox of a call, where its results arrive.
//!
//! The scheduler puts results in under the driver's lock. The call takes them out under the inbox's own lock, which is never held
//! while code of users runs. Results are not decoded here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    caller::CallerCell,
    captured::Captured,
    codec::{Encoded, OwnedResult},
    error::TaskError,
    handle::{Waiter, Wakes},
    protocol::Results,
    sync::ignore_poison,
};

/// The results of a call that the caller has not received yet, in the order in which they arrived.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) state: Mutex<Arrivals>,
    /// Whether the progress of single tasks is displayed.
    pub(crate) wants_progress: bool,
    /// The caller, until the call is dropped.
    pub(crate) caller: CallerCell,
}

#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// The bytes of the small results, in the order of arrival.
    pub(crate) bytes: Vec<u8>,
    /// The items, each with the index of its first task.
    pub(crate) items: Vec<(usize, Item)>,
    /// The last reported progress of each running task.
    pub(crate) progress: BTreeMap<usize, f64>,
    /// The waiter to wake when something arrives.
    pub(crate) waiting: Option<Waiter>,
}

#[derive(Debug)]
pub(crate) enum Item {
    /// Results of `tasks` tasks, in the next `len_bytes` bytes.
    Many {
        tasks: u32,
        len_bytes: usize,
    },
    One(Result<OwnedResult, TaskError>),
    /// The captured output of the task whose outcome is the next item.
    Wrote(Arc<Captured>),
}

impl Item {
    pub(crate) fn tasks(&self) -> usize {
        match self {
            Self::Many { tasks, .. } => *tasks as usize,
            Self::One(_) => 1,
            Self::Wrote(_) => 0,
        }
    }
}

/// An item that a call passes to its receiver.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// The results of consecutive tasks.
    Many(Results<'a>),
    /// The outcome of one task.
    One(Result<Encoded<'a>, TaskError>),
}

impl Inbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Arrivals> {
        ignore_poison(self.state.lock())
    }

    /// Returns whether something has arrived. If nothing has, this waiter is woken when something does.
    pub(crate) fn has_some_or_wait(&self, waiter: impl FnOnce() -> Waiter) -> bool {
        let mut arrivals = self.lock();
        let has_some = !arrivals.items.is_empty() || !arrivals.progress.is_empty();
        let before = if has_some { None } else { arrivals.waiting.replace(waiter()) };
        drop(arrivals);
        // Dropping a waker runs an executor's code, so no lock may be held: neither for the one before nor for one that is not needed.
        drop(before);
        has_some
    }

    /// Adds the results of consecutive tasks.
    pub(crate) fn give(&self, first: usize, results: Results<'_>, wakes: &mut Wakes) {
        let bytes = results.as_bytes();
        let mut arrivals = self.lock();
        arrivals.bytes.extend_from_slice(bytes);
        arrivals.items.push((first, Item::Many { tasks: results.len(), len_bytes: bytes.len() }));
        arrivals.wake(wakes);
    }

    /// Adds the captured output of a task, before its outcome.
    pub(crate) fn give_output(&self, index: usize, output: Arc<Captured>, wakes: &mut Wakes) {
        let mut arrivals = self.lock();
        arrivals.items.push((index, Item::Wrote(output)));
        arrivals.wake(wakes);
    }

    /// Stores the progress of a task.
    pub(crate) fn give_progress(&self, index: usize, fraction: f64, wakes: &mut Wakes) {
        if self.wants_progress {
            let mut arrivals = self.lock();
            arrivals.progress.insert(index, fraction);
            arrivals.wake(wakes);
        }
    }

    /// Adds the outcome of one task.
    pub(crate) fn give_one(&self, index: usize, outcome: Result<OwnedResult, TaskError>, wakes: &mut Wakes) {
        let mut arrivals = self.lock();
        arrivals.items.push((index, Item::One(outcome)));
        arrivals.wake(wakes);
    }
}

impl Arrivals {
    fn wake(&mut self, wakes: &mut Wakes) {
        if let Some(waiter) = self.waiting.take() {
            wakes.add(waiter);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Checks, when it is dropped, that no thread holds the lock.
    struct Unlocked<'a>(&'a Inbox);

    impl Drop for Unlocked<'_> {
        fn drop(&mut self) {
            assert!(self.0.state.try_lock().is_ok(), "dropped under the lock");
        }
    }

    #[test]
    fn a_waiter_that_is_not_needed_is_dropped_without_the_lock() {
        let inbox = Inbox::default();
        inbox.give_one(0, Ok(OwnedResult::default()), &mut Wakes::default());
        let waker = Unlocked(&inbox);
        assert!(inbox.has_some_or_wait(move || {
            drop(waker);
            Waiter::Thread(std::thread::current())
        }));
    }
}
