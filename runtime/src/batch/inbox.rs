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
    /// The number of tasks among the items, or the maximum if one of the others, a failure or much memory must not wait for more.
    arrived: usize,
    /// The waiter to wake when as many tasks have arrived.
    pub(crate) waiting: Option<(usize, Waiter)>,
}

/// The size of results that a caller receives although it waits for more.
const MOST_WAITING_BYTES: usize = 64 << 10;

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

    /// Returns whether something has arrived.
    pub(crate) fn has_some(&self) -> bool {
        self.lock().arrived > 0
    }

    /// Returns whether as many outcomes have arrived, or something that must not wait for them: a failure, progress or many bytes. If
    /// not, this waiter is woken then.
    pub(crate) fn has_or_wait(&self, wanted: usize, waiter: impl FnOnce() -> Waiter) -> bool {
        let mut arrivals = self.lock();
        let has_enough = arrivals.arrived >= wanted;
        let before = if has_enough { None } else { arrivals.waiting.replace((wanted, waiter())) };
        drop(arrivals);
        // Dropping a waker runs an executor's code, so no lock may be held: neither for the one before nor for one that is not needed.
        drop(before);
        has_enough
    }

    /// Moves the results into `into`, whose memory is used for the next ones.
    pub(crate) fn take(&self, into: &mut Arrivals) {
        let mut arrivals = self.lock();
        std::mem::swap(&mut arrivals.bytes, &mut into.bytes);
        std::mem::swap(&mut arrivals.items, &mut into.items);
        // Progress is taken separately.
        arrivals.arrived = if arrivals.progress.is_empty() { 0 } else { usize::MAX };
    }

    /// Takes the progress.
    pub(crate) fn take_progress(&self) -> BTreeMap<usize, f64> {
        let mut arrivals = self.lock();
        if arrivals.items.is_empty() {
            arrivals.arrived = 0;
        }
        std::mem::take(&mut arrivals.progress)
    }

    /// Adds the results of consecutive tasks.
    pub(crate) fn give(&self, first: usize, results: Results<'_>, wakes: &mut Wakes) {
        let bytes = results.as_bytes();
        let mut arrivals = self.lock();
        arrivals.bytes.extend_from_slice(bytes);
        arrivals.items.push((first, Item::Many { tasks: results.len(), len_bytes: bytes.len() }));
        let is_much = arrivals.bytes.len() > MOST_WAITING_BYTES;
        arrivals.add(if is_much { usize::MAX } else { results.len() as usize }, wakes);
    }

    /// Adds the captured output of a task, before its outcome.
    pub(crate) fn give_output(&self, index: usize, output: Arc<Captured>, wakes: &mut Wakes) {
        let mut arrivals = self.lock();
        arrivals.items.push((index, Item::Wrote(output)));
        arrivals.add(usize::MAX, wakes);
    }

    /// Stores the progress of a task.
    pub(crate) fn give_progress(&self, index: usize, fraction: f64, wakes: &mut Wakes) {
        if self.wants_progress {
            let mut arrivals = self.lock();
            arrivals.progress.insert(index, fraction);
            arrivals.add(usize::MAX, wakes);
        }
    }

    /// Adds the outcome of one task.
    pub(crate) fn give_one(&self, index: usize, outcome: Result<OwnedResult, TaskError>, wakes: &mut Wakes) {
        let mut arrivals = self.lock();
        let is_large = outcome.as_ref().map_or(true, |result| result.len_bytes() > MOST_WAITING_BYTES);
        arrivals.items.push((index, Item::One(outcome)));
        arrivals.add(if is_large { usize::MAX } else { 1 }, wakes);
    }
}

impl Arrivals {
    /// Notes that `tasks` more tasks have arrived, or something that must not wait.
    fn add(&mut self, tasks: usize, wakes: &mut Wakes) {
        self.arrived = self.arrived.saturating_add(tasks);
        if let Some((_, waiter)) = self.waiting.take_if(|(wanted, _)| self.arrived >= *wanted) {
            wakes.add(waiter);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::error::{TaskErrorKind, TaskLocation};

    /// Checks, when it is dropped, that no thread holds the lock.
    struct Unlocked<'a>(&'a Inbox);

    impl Drop for Unlocked<'_> {
        fn drop(&mut self) {
            assert!(self.0.state.try_lock().is_ok(), "dropped under the lock");
        }
    }

    #[test]
    fn who_waits_for_many_results_is_woken_by_as_many_or_by_what_must_not_wait() {
        let waits =
            |inbox: &Inbox, wanted| !inbox.has_or_wait(wanted, || Waiter::Thread(std::thread::current()));
        let wakes = |give: &dyn Fn(&Inbox, &mut Wakes)| {
            let (inbox, mut wakes) = (Inbox { wants_progress: true, ..Inbox::default() }, Wakes::default());
            assert!(waits(&inbox, 3) && !inbox.has_some());
            give(&inbox, &mut wakes);
            assert!(inbox.has_some());
            assert_eq!(wakes.is_empty(), waits(&inbox, 3));
            inbox.take(&mut Arrivals::default());
            drop(inbox.take_progress());
            assert!(!inbox.has_some());
            !wakes.is_empty()
        };
        let result = || Ok(OwnedResult::default());
        let error = || Err(TaskError::new("f", TaskErrorKind::lost(&"it is gone"), TaskLocation::default()));
        assert!(!wakes(&|inbox, wakes| inbox.give_one(0, result(), wakes)));
        assert!(!wakes(&|inbox, wakes| (0..2).for_each(|n| inbox.give_one(n, result(), wakes))));
        assert!(wakes(&|inbox, wakes| (0..3).for_each(|n| inbox.give_one(n, result(), wakes))));
        assert!(wakes(&|inbox, wakes| inbox.give_one(0, error(), wakes)));
        assert!(wakes(&|inbox, wakes| inbox.give_progress(0, 0.5, wakes)));
    }

    #[test]
    fn a_waiter_that_is_not_needed_is_dropped_without_the_lock() {
        let inbox = Inbox::default();
        inbox.give_one(0, Ok(OwnedResult::default()), &mut Wakes::default());
        let waker = Unlocked(&inbox);
        assert!(inbox.has_or_wait(1, move || {
            drop(waker);
            Waiter::Thread(std::thread::current())
        }));
    }
}
