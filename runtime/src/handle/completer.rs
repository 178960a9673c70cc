//! Stores the outcome of a task for its handle.
//!
//! `scheduler` and `process` complete it while a lock is held, so nothing here runs user code. Waking is left to the
//! caller.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::wait::{Waiter, Wakes};
use crate::{
    caller::{Caller, CallerCell},
    captured::Captured,
    codec::OwnedResult,
    error::TaskError,
    segment::Loans,
    sync::ignore_poison,
};

/// The outcome of a task before it is decoded.
pub(crate) type Outcome = Result<OwnedResult, TaskError>;

/// The counterpart of a [`Handle`].
#[derive(Debug)]
pub(crate) struct Completer {
    pub(super) slot: Mutex<Slot>,
    /// The caller who submitted the task, until it has its outcome.
    pub(crate) caller: CallerCell,
    /// The output of the task, if the pool keeps it. Set before the outcome.
    pub(super) output: OnceLock<Arc<Captured>>,
    /// What was lent to the task, until it has its outcome.
    loans: OnceLock<Mutex<Loans>>,
}

#[derive(Debug, Default)]
pub(super) enum Slot {
    #[default]
    Waiting,
    Awaited(Waiter),
    Done(Outcome),
    Taken,
}

impl Completer {
    pub(super) fn lock(&self) -> MutexGuard<'_, Slot> {
        ignore_poison(self.slot.lock())
    }

    /// Returns whether there is a result. If there is none, this thread will be unparked when there is.
    pub(super) fn is_done_or_wait(&self) -> bool {
        let mut slot = self.lock();
        match *slot {
            Slot::Done(_) | Slot::Taken => true,
            _ => {
                let waiter = Waiter::Thread(std::thread::current());
                let before = std::mem::replace(&mut *slot, Slot::Awaited(waiter));
                drop(slot);
                // It may be a waker, which runs code of an executor, so it is dropped after the lock was released.
                drop(before);
                false
            }
        }
    }
}

impl Slot {
    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        match std::mem::take(self) {
            Self::Done(outcome) => {
                *self = Self::Taken;
                Some(outcome)
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Completer {
    /// Stores the output of the task. Its outcome follows.
    pub(crate) fn give_output(&self, output: Arc<Captured>) {
        let _ = self.output.set(output);
    }

    /// Keeps what is lent to the task until it has its outcome. Called before the task is queued.
    pub(crate) fn lend(&self, loans: Loans) {
        if !loans.is_empty() {
            let _ = self.loans.set(Mutex::new(loans));
        }
    }

    /// Creates the completer of a task that this thread submits now.
    #[inline]
    pub(crate) fn new() -> Self {
        Self::of(Caller::current())
    }

    /// Creates the completer of a task of this caller.
    #[inline]
    pub(crate) fn of(caller: Caller) -> Self {
        Self {
            slot: Mutex::default(),
            output: OnceLock::new(),
            caller: CallerCell::new(caller),
            loans: OnceLock::new(),
        }
    }

    /// Removes and returns the outcome, if there is one.
    #[cfg(test)]
    pub(crate) fn take_outcome(&self) -> Option<Outcome> {
        self.lock().take_outcome()
    }

    /// Stores the outcome. Called while the pool is locked, so waking is left to `wakes`.
    pub(crate) fn complete(&self, outcome: Outcome, wakes: &mut Wakes) {
        #[cfg(feature = "tracing")]
        {
            let caller = self.caller.take();
            if caller.dispatch().is_some() {
                wakes.callers.push(caller);
            }
        }
        let outcome = match self.loans.get() {
            None => outcome,
            Some(loans) => {
                let loans = std::mem::take(&mut *ignore_poison(loans.lock()));
                outcome.map_err(|error| {
                    let error = error.after_lending(loans.names());
                    // A process that may still write keeps what it was lent.
                    if error.is_abandoned() {
                        std::mem::forget(loans);
                    }
                    error
                })
            }
        };
        match std::mem::replace(&mut *self.lock(), Slot::Done(outcome)) {
            Slot::Awaited(waiter) => wakes.add(waiter),
            Slot::Waiting | Slot::Done(_) | Slot::Taken => {}
        }
    }
}
