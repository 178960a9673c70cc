//! Defines [`SharedCondvar`], on which holders of a lock wait for a change of what it protects.

use std::time::{Duration, Instant};

use bytemuck::Pod;

use super::{Handle, OwnerDied, SharedMutexGuard, deadline, handle};
use crate::{
    error::Result,
    segment::{ENTRIES, Entry, Repair, State, StateHandle},
    sync::{AtomicU32, Ordering},
    sys::futex::{wake, wake_all},
};

/// A condition variable for threads of all processes.
///
/// It is what [`std::sync::Condvar`] is for the threads of one process, together with a [`SharedMutex`](crate::SharedMutex). Handles can be
/// arguments, results, and parts of other values. All clones are handles of the same. If a process dies while it waits, all others wake up, as they may
/// at any time: it may have been the one that was notified.
///
/// # Examples
///
/// ```
/// use procession::{Pool, RemoteError, SharedCondvar, SharedMutex, delayed, worker};
///
/// #[worker]
/// fn produce(items: SharedMutex<u32>, more: SharedCondvar) -> Result<(), RemoteError> {
///     *items.lock()? += 1;
///     more.notify_one();
///     Ok(())
/// }
///
/// let items = SharedMutex::new(0_u32)?;
/// let more = SharedCondvar::new()?;
/// let pool = Pool::new(1)?;
/// let produced = pool.submit(delayed!(produce(items.clone(), more.clone())));
/// let items = more.wait_while(items.lock()?, |items| *items == 0)?;
/// assert_eq!(*items, 1);
/// # produced.join()??;
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedCondvar {
    state: StateHandle,
}

/// Whether a wait with a timeout has ended because the time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns whether the time was up.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

type Waited<'a, T> = Result<SharedMutexGuard<'a, T>, OwnerDied<SharedMutexGuard<'a, T>>>;

impl SharedCondvar {
    /// Makes a condition variable.
    ///
    /// # Errors
    ///
    /// Memory cannot be shared here, or there is not enough.
    ///
    /// # Examples
    ///
    /// ```
    /// let more = procession::SharedCondvar::new()?;
    /// more.notify_all();
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new() -> Result<Self> {
        Handle::zeroed("a shared condition variable", 4 * (1 + ENTRIES))
    }

    /// Frees the lock, waits to be notified, and takes the lock again. Returns early sometimes.
    ///
    /// # Errors
    ///
    /// The last holder of the lock has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let items = procession::SharedMutex::new(0_u32)?;
    /// let more = procession::SharedCondvar::new()?;
    /// let mut items = items.lock()?;
    /// while *items == 0 {
    ///     items = more.wait(items)?;
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn wait<'a, T: Pod>(
        &self,
        guard: SharedMutexGuard<'a, T>,
    ) -> Result<SharedMutexGuard<'a, T>, OwnerDied<SharedMutexGuard<'a, T>>> {
        self.wait_until(guard, None).0
    }

    /// Waits until the condition does not hold for the value any more.
    ///
    /// # Errors
    ///
    /// A holder of the lock has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let items = procession::SharedMutex::new(3_u32)?;
    /// let more = procession::SharedCondvar::new()?;
    /// let items = more.wait_while(items.lock()?, |items| *items == 0)?;
    /// assert_eq!(*items, 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn wait_while<'a, T: Pod>(
        &self,
        mut guard: SharedMutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<SharedMutexGuard<'a, T>, OwnerDied<SharedMutexGuard<'a, T>>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Frees the lock, waits to be notified, at most this long, and takes the lock again. Returns early sometimes.
    ///
    /// # Errors
    ///
    /// The last holder of the lock has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let items = procession::SharedMutex::new(0_u32)?;
    /// let more = procession::SharedCondvar::new()?;
    /// let (items, waited) = more.wait_timeout(items.lock()?, Duration::from_millis(1))?;
    /// assert!(*items > 0 || waited.timed_out());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[expect(clippy::type_complexity, reason = "the same as that of std")]
    pub fn wait_timeout<'a, T: Pod>(
        &self,
        guard: SharedMutexGuard<'a, T>,
        timeout: Duration,
    ) -> Result<
        (SharedMutexGuard<'a, T>, WaitTimeoutResult),
        OwnerDied<(SharedMutexGuard<'a, T>, WaitTimeoutResult)>,
    > {
        match self.wait_until(guard, deadline(timeout)) {
            (Ok(guard), timed_out) => Ok((guard, WaitTimeoutResult(timed_out))),
            (Err(OwnerDied(guard)), timed_out) => Err(OwnerDied((guard, WaitTimeoutResult(timed_out)))),
        }
    }

    /// Also returns whether the time was up.
    fn wait_until<'a, T: Pod>(
        &self,
        guard: SharedMutexGuard<'a, T>,
        until: Option<Instant>,
    ) -> (Waited<'a, T>, bool) {
        let (notified, mine) = (self.notified(), waiting(&self.state, self.state.my_entry()));
        mine.fetch_add(1, Ordering::Relaxed);
        // The lock is held, so whoever changes the value and notifies then makes it another number.
        let seen = notified.load(Ordering::Relaxed);
        let mutex = guard.mutex();
        drop(guard);
        let concerned = |entry| waiting(&self.state, entry).load(Ordering::Relaxed) > 0;
        let mut is_time = true;
        while is_time && notified.load(Ordering::Relaxed) == seen {
            is_time = self.state.wait(notified, seen, until, concerned);
        }
        mine.fetch_sub(1, Ordering::Relaxed);
        (mutex.lock(), !is_time)
    }

    /// Returns the word that counts notifications.
    fn notified(&self) -> &AtomicU32 {
        self.state.word(0)
    }

    /// Wakes one thread that waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let more = procession::SharedCondvar::new()?;
    /// more.notify_one();
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn notify_one(&self) {
        self.notified().fetch_add(1, Ordering::Relaxed);
        let _ = wake(self.notified());
    }

    /// Wakes all threads that wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let more = procession::SharedCondvar::new()?;
    /// more.notify_all();
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn notify_all(&self) {
        self.notified().fetch_add(1, Ordering::Relaxed);
        let _ = wake_all(self.notified());
    }
}

/// Returns the word that counts the waiting threads of a process.
fn waiting(state: &State, entry: Entry) -> &AtomicU32 {
    state.word(1 + entry.index())
}

/// Passes on what a process that has died waiting may have been notified of.
fn repair(state: &State, dead: Entry) {
    if waiting(state, dead).load(Ordering::Relaxed) > 0 {
        state.word(0).fetch_add(1, Ordering::Relaxed);
        let _ = wake_all(state.word(0));
        waiting(state, dead).store(0, Ordering::Relaxed);
    }
}

impl Handle for SharedCondvar {
    const REPAIR: Option<Repair> = Some(repair);

    fn fits(len_bytes: usize) -> bool {
        len_bytes == 4 * (1 + ENTRIES)
    }

    fn of(state: StateHandle) -> Self {
        Self { state }
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }
}

handle!([] SharedCondvar, "SharedCondvar");
