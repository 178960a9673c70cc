//! Defines [`SharedSemaphore`], a number of permits that processes take and give back.
//!
//! Each permit is a word that names the process that has it, so that those of a dead process can be given back. No number must agree with them.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{Handle, deadline, handle};
use crate::{
    error::{Error, Result},
    segment::{Entry, Repair, State, StateHandle},
    sync::{AtomicU32, Ordering, step},
    sys::futex::{wake, wake_all},
};

/// A number of permits, which threads of all processes take and give back.
///
/// It limits how many of them do something at the same time. Handles can be arguments, results, and parts of other values. All clones are handles of
/// the same permits. The permits that a process has when it dies are given back.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedSemaphore, parallel, worker};
///
/// #[worker]
/// fn download(name: &str, connections: &SharedSemaphore) -> usize {
///     // At most two workers are here at the same time.
///     let _connection = connections.acquire();
///     name.len()
/// }
///
/// let connections = SharedSemaphore::new(2)?;
/// let pool = Pool::new(3)?;
/// let sizes = parallel!(pool = &pool; download(name, &connections) for name in ["a", "bc", "def"])?;
/// assert_eq!((sizes, connections.available_permits()), (vec![1, 2, 3], 2));
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedSemaphore {
    state: StateHandle,
}

/// A permit of a [`SharedSemaphore`]. Dropping it gives the permit back.
#[must_use = "the permit is given back as soon as this is dropped"]
pub struct SharedSemaphorePermit<'a> {
    semaphore: &'a SharedSemaphore,
    entry: Entry,
    at: usize,
}

/// The most permits that a semaphore can have.
const MOST_PERMITS: usize = 65_536;

/// What is added to the word of the waiters when a permit is given back. Below is the number of waiters. Those that have died while they
/// waited stay counted, which costs a system call for each permit that is given back, and nothing else.
const RETURNED: u32 = 1 << 16;

/// The words of a semaphore.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permits<'a> {
    /// How many permits were given back, and how many threads wait.
    pub(super) waiters: &'a AtomicU32,
    /// A permit that was given back: where to look first.
    pub(super) hint: &'a AtomicU32,
    /// The entry that has each permit, or 0.
    pub(super) owners: &'a [AtomicU32],
}

impl Permits<'_> {
    /// Takes a permit if there is one. Returns its position.
    pub(super) fn try_take(self, me: u32) -> Option<usize> {
        let first = self.hint.load(Ordering::Relaxed) as usize % self.owners.len();
        let (before, after) = self.owners.split_at(first);
        let take = |owner: &AtomicU32| {
            // SYNC(permit): pairs with the Release in `give_back`.
            owner.load(Ordering::Relaxed) == 0
                && owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let at = after.iter().position(take).map(|at| first + at).or_else(|| before.iter().position(take));
        at.inspect(|_| step("acquire: taken"))
    }

    /// Takes a permit as soon as there is one. Returns `None` if `sleep` returns `false`, which waits until the word of the waiters has not
    /// this value any more, or is woken.
    pub(super) fn take(self, me: u32, mut sleep: impl FnMut(u32) -> bool) -> Option<usize> {
        if let Some(at) = self.try_take(me) {
            return Some(at);
        }
        // SYNC(permit): pairs with the addition in `give_back`. Either it is seen here, with the permit, or this waiter is seen there.
        let mut seen = self.waiters.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        step("acquire: announced");
        let taken = loop {
            if let Some(at) = self.try_take(me) {
                break Some(at);
            }
            if !sleep(seen) {
                break None;
            }
            step("acquire: woken");
            seen = self.waiters.load(Ordering::Acquire);
        };
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        taken
    }

    /// Gives a permit back. Returns whether a waiter must be woken.
    pub(super) fn give_back(self, at: usize) -> bool {
        // SYNC(permit): pairs with the Acquire in `try_take`.
        self.owners[at].store(0, Ordering::Release);
        step("release: given back");
        self.hint.store(at as u32, Ordering::Relaxed);
        // SYNC(permit): pairs with the addition in `take`.
        let before = self.waiters.fetch_add(RETURNED, Ordering::AcqRel);
        step("release: counted");
        let waiting = RETURNED - 1;
        before & waiting != 0
    }

    /// Gives back the permits of a process that has died. All waiters must be woken then.
    pub(super) fn disown(self, dead: u32) {
        for owner in self.owners {
            // SYNC(permit): as in `give_back`.
            if owner.load(Ordering::Relaxed) == dead {
                owner.store(0, Ordering::Release);
                step("recovery: a permit is given back");
            }
        }
        self.waiters.fetch_add(RETURNED, Ordering::AcqRel);
    }

    fn has(self, entry: Entry) -> bool {
        self.owners.iter().any(|owner| owner.load(Ordering::Relaxed) == entry.number())
    }
}

/// The position of the first permit.
const OWNERS: usize = 2;

fn permits(state: &State) -> Permits<'_> {
    let [waiters, hint, owners @ ..] = state.words() else { unreachable!("`fits` has checked the length") };
    Permits { waiters, hint, owners }
}

impl SharedSemaphore {
    /// Makes a semaphore with this many permits.
    ///
    /// # Errors
    ///
    /// The number is 0 or larger than 65,536, memory cannot be shared here, or there is not enough.
    ///
    /// # Examples
    ///
    /// ```
    /// let connections = procession::SharedSemaphore::new(4)?;
    /// assert_eq!(connections.available_permits(), 4);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(permits: usize) -> Result<Self> {
        if !(1..=MOST_PERMITS).contains(&permits) {
            let words = format!("a shared semaphore has 1 to {MOST_PERMITS} permits, not {permits}");
            return Err(Error::config(words));
        }
        Handle::zeroed("a shared semaphore", 4 * (OWNERS + permits))
    }

    fn permit(&self, entry: Entry, at: usize) -> SharedSemaphorePermit<'_> {
        SharedSemaphorePermit { semaphore: self, entry, at }
    }

    /// Waits until there is a permit, and takes it.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let connections = procession::SharedSemaphore::new(4)?;
    /// let connection = connections.acquire();
    /// assert_eq!(connections.available_permits(), 3);
    /// drop(connection);
    /// assert_eq!(connections.available_permits(), 4);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn acquire(&self) -> SharedSemaphorePermit<'_> {
        self.acquire_until(None).expect("a wait without a deadline ends with a permit")
    }

    /// Takes a permit if there is one.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let connections = procession::SharedSemaphore::new(1)?;
    /// let connection = connections.try_acquire();
    /// assert!(connection.is_some() && connections.try_acquire().is_none());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_acquire(&self) -> Option<SharedSemaphorePermit<'_>> {
        let entry = self.state.my_entry();
        permits(&self.state).try_take(entry.number()).map(|at| self.permit(entry, at))
    }

    /// Waits until there is a permit, at most this long, and takes it. Returns `None` if the time is up.
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
    /// let connections = procession::SharedSemaphore::new(1)?;
    /// let connection = connections.acquire();
    /// assert!(connections.acquire_timeout(Duration::from_millis(1)).is_none());
    /// # drop(connection);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<SharedSemaphorePermit<'_>> {
        self.acquire_until(deadline(timeout))
    }

    fn acquire_until(&self, until: Option<Instant>) -> Option<SharedSemaphorePermit<'_>> {
        let (entry, permits) = (self.state.my_entry(), permits(&self.state));
        let sleep = |seen| self.state.wait(permits.waiters, seen, until, |entry| permits.has(entry));
        permits.take(entry.number(), sleep).map(|at| self.permit(entry, at))
    }

    /// Returns how many permits nobody has now.
    ///
    /// # Examples
    ///
    /// ```
    /// let connections = procession::SharedSemaphore::new(4)?;
    /// assert_eq!(connections.available_permits(), 4);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn available_permits(&self) -> usize {
        permits(&self.state).owners.iter().filter(|owner| owner.load(Ordering::Relaxed) == 0).count()
    }
}

/// Gives back what a process has.
fn repair(state: &State, dead: Entry) {
    let permits = permits(state);
    permits.disown(dead.number());
    let _ = wake_all(permits.waiters);
}

impl Handle for SharedSemaphore {
    const REPAIR: Option<Repair> = Some(repair);

    fn fits(len_bytes: usize) -> bool {
        len_bytes > 4 * OWNERS && len_bytes.is_multiple_of(4)
    }

    fn of(state: StateHandle) -> Self {
        Self { state }
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }
}

handle!([] SharedSemaphore, "SharedSemaphore");

impl Drop for SharedSemaphorePermit<'_> {
    fn drop(&mut self) {
        let state = &self.semaphore.state;
        // A copy of the process that has taken the permit does not have it.
        if state.is_mine(self.entry) && permits(state).give_back(self.at) {
            let _ = wake(permits(state).waiters);
            step("release: woke");
        }
    }
}

impl fmt::Debug for SharedSemaphorePermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSemaphorePermit").finish_non_exhaustive()
    }
}
