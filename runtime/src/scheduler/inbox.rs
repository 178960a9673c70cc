//! Where the results of a call arrive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    caller::Caller,
    captured::Captured,
    codec::{Encoded, OwnedResult},
    error::TaskError,
    handle::{Waiter, Wakes},
    protocol::Results,
};

/// Where a call's results arrive, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) state: Mutex<Arrivals>,
    /// Somebody looks at how far the call is.
    pub(crate) is_reported: bool,
    /// And at how far tasks are.
    pub(crate) wants_progress: bool,
    /// Who made the call, as long as somebody waits for it.
    #[cfg(feature = "tracing")]
    pub(crate) caller: Mutex<Caller>,
}

#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// The small results, as they came.
    pub(crate) bytes: Vec<u8>,
    /// Each with the index of its first task.
    pub(crate) items: Vec<(usize, Item)>,
    /// How far tasks are that run: of each what it said last, however often it speaks.
    pub(crate) progress: BTreeMap<usize, f64>,
    /// Who waits while somebody else drives.
    pub(crate) waiting: Option<Waiter>,
}

#[derive(Debug)]
pub(crate) enum Item {
    /// Results of so many tasks, in so many of the next bytes.
    Many {
        tasks: u32,
        len_bytes: usize,
    },
    One(Result<OwnedResult, TaskError>),
    /// What the task had written whose outcome comes next.
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

/// What [`Call::receive`] hands out.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// The results of consecutive tasks.
    Many(Results<'a>),
    /// The outcome of one.
    One(Result<Encoded<'a>, TaskError>),
}

impl Inbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn caller(&self) -> Caller {
        Caller::default()
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn caller(&self) -> Caller {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn set_caller(&self, caller: Caller) {
        // It may be a subscriber's last span: dropped with nothing locked.
        let before =
            std::mem::replace(&mut *self.caller.lock().unwrap_or_else(PoisonError::into_inner), caller);
        drop(before);
    }

    /// Takes the results of consecutive tasks.
    pub(crate) fn give(&self, first: usize, results: Results<'_>, wakes: &mut Wakes) {
        let bytes = results.as_bytes();
        let mut arrivals = self.lock();
        arrivals.bytes.extend_from_slice(bytes);
        arrivals.items.push((first, Item::Many { tasks: results.len(), len_bytes: bytes.len() }));
        arrivals.wake(wakes);
    }

    /// Takes what a task had written, before its outcome.
    pub(crate) fn tell(&self, index: usize, output: Arc<Captured>, wakes: &mut Wakes) {
        let mut arrivals = self.lock();
        arrivals.items.push((index, Item::Wrote(output)));
        arrivals.wake(wakes);
    }

    /// Takes how far a task is.
    pub(crate) fn give_progress(&self, index: usize, fraction: f64, wakes: &mut Wakes) {
        if self.wants_progress {
            let mut arrivals = self.lock();
            arrivals.progress.insert(index, fraction);
            arrivals.wake(wakes);
        }
    }

    /// Takes the outcome of one task.
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
