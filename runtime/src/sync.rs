//! The only place that names the atomics of what is modelled: std's, or loom's under `cfg(loom)`. Also
//! acquires locks that a panic has poisoned.

use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

/// Returns the guard of a lock, also if a thread panicked while it held the lock.
///
/// Each of our locks protects a state that is valid wherever code may panic that runs under the lock.
pub(crate) fn ignore_poison<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// Returns the guard if the lock was free, also if a thread panicked while it held the lock.
pub(crate) fn if_free<G>(locked: TryLockResult<G>) -> Option<G> {
    match locked {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A step of an algorithm at which a test may end the process or, in a model, the thread.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn step(_label: &'static str) {}

#[cfg(test)]
pub(crate) use steps::step;

/// Ends those that come to a certain step.
#[cfg(test)]
pub(crate) mod steps {
    use std::cell::Cell;

    #[cfg(loom)]
    loom::thread_local! {
        static LAST: Cell<Option<&'static str>> = Cell::new(None);
    }
    #[cfg(not(loom))]
    thread_local! {
        static LAST: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// The payload with which a thread of a model ends.
    #[cfg(loom)]
    pub(crate) struct Ended;

    /// Ends the process at this step of the calling thread. In a model, ends the thread only.
    pub(crate) fn end_at(label: &'static str) {
        LAST.with(|last| last.set(Some(label)));
    }

    pub(crate) fn step(label: &'static str) {
        if LAST.with(Cell::get) == Some(label) {
            #[cfg(not(loom))]
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("it cannot be refused");
            #[cfg(loom)]
            std::panic::resume_unwind(Box::new(Ended));
        }
    }
}
