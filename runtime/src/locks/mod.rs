//! Locks and other types by which threads of several processes wait for each other: [`SharedMutex`] and its relatives.
//!
//! Each is a handle of state (`segment`). A word that is owned names the participant's entry that owns it, so what a dead process has
//! owned can be taken away from it, by the process that reaped it or by one that waits. Nothing here uses the kernel's robust
//! mutexes.

mod atomic;
mod barrier;
mod condvar;
mod event;
#[cfg(all(test, loom))]
mod models;
mod mutex;
mod rw_words;
mod rwlock;
mod semaphore;
#[cfg(all(test, not(loom)))]
mod tests;
mod word;

use std::{
    error::Error as StdError,
    fmt,
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    segment::{Repair, StateHandle, digest},
};

use word::HasDied;

pub use atomic::{
    SharedAtomicBool, SharedAtomicI32, SharedAtomicI64, SharedAtomicIsize, SharedAtomicU32, SharedAtomicU64,
    SharedAtomicUsize,
};
pub use barrier::{BarrierWaitResult, BrokenBarrier, SharedBarrier};
pub use condvar::{SharedCondvar, WaitTimeoutResult};
pub use event::SharedEvent;
pub use mutex::{SharedMutex, SharedMutexGuard};
pub use rwlock::{SharedRwLock, SharedRwLockReadGuard, SharedRwLockWriteGuard};
pub use semaphore::{SharedSemaphore, SharedSemaphorePermit};

/// The error of taking a lock whose last holder has died. It contains the guard: the lock was taken.
///
/// The holder may have been in the middle of a change, so check the value before you use it. Only the next holder is told. If
/// that is an error for you, `?` turns it into one and frees the lock.
///
/// # Examples
///
/// ```
/// use procession::{OwnerDied, SharedMutex};
///
/// let balance = SharedMutex::new([50_i64, 50])?;
/// let mut accounts = balance.lock().unwrap_or_else(|OwnerDied(mut accounts)| {
///     // A transfer may be half done.
///     accounts[1] = 100 - accounts[0];
///     accounts
/// });
/// accounts[0] -= 10;
/// accounts[1] += 10;
/// # Ok::<(), procession::Error>(())
/// ```
pub struct OwnerDied<G>(pub G);

/// What an [`OwnerDied`] becomes where the guard is not kept.
const OWNER_DIED: &str = "a process died while it held the lock";

impl<G> OwnerDied<G> {
    /// Returns the guard.
    pub fn into_inner(self) -> G {
        self.0
    }
}

impl<G> fmt::Debug for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").finish_non_exhaustive()
    }
}

impl<G> fmt::Display for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OWNER_DIED)
    }
}

impl<G> From<OwnerDied<G>> for Error {
    /// Frees the lock.
    fn from(_: OwnerDied<G>) -> Self {
        Self::config(OWNER_DIED)
    }
}

// `OwnerDied` is not an `Error` itself, because a guard does not live long enough for a `Box<dyn Error>`.
impl<G> From<OwnerDied<G>> for Box<dyn StdError> {
    /// Frees the lock.
    fn from(_: OwnerDied<G>) -> Self {
        OWNER_DIED.into()
    }
}

impl<G> From<OwnerDied<G>> for Box<dyn StdError + Send + Sync> {
    /// Frees the lock.
    fn from(_: OwnerDied<G>) -> Self {
        OWNER_DIED.into()
    }
}

/// Returns the guard of a lock, with the word that its last holder has died if it has.
fn told<G>(guard: G, died: HasDied) -> Result<G, OwnerDied<G>> {
    if died { Err(OwnerDied(guard)) } else { Ok(guard) }
}

/// Returns the time that a wait ends, if it is not too far away to be known.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// A handle of state.
trait Handle: Sized {
    /// Repairs what a dead process has left.
    const REPAIR: Option<Repair>;

    /// Returns whether state of this length is such a thing.
    fn fits(len_bytes: usize) -> bool;

    fn of(state: StateHandle) -> Self;

    fn state(&self) -> &StateHandle;

    /// Makes state, all zero. `what` is named in the error.
    fn zeroed(what: &str, len_bytes: usize) -> Result<Self, Error> {
        let made = StateHandle::new(digest::<Self>(), len_bytes, Self::REPAIR);
        made.map(Self::of).map_err(|error| Error::system(format!("{what} cannot be made"), error))
    }
}

/// Implements for a [`Handle`] what all have in common.
macro_rules! handle {
    ([$($generics:tt)*] $handle:ty, $name:literal) => {
        impl<$($generics)*> Clone for $handle {
            /// Returns another handle of the same.
            fn clone(&self) -> Self {
                Self::of(self.state().clone())
            }
        }

        impl<$($generics)*> std::fmt::Debug for $handle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }

        impl<$($generics)*> serde::Serialize for $handle {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.state().encode(serializer)
            }
        }

        impl<'de, $($generics)*> serde::Deserialize<'de> for $handle {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let digest = $crate::segment::digest::<Self>();
                $crate::segment::StateHandle::decode(deserializer, digest, Self::fits, Self::REPAIR).map(Self::of)
            }
        }
    };
}
use handle;
