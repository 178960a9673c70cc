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
