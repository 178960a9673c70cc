//! Defines [`SharedMutex`], a lock around a value.
#![expect(unsafe_code, reason = "a value in shared memory, which only the holder of the lock accesses")]

use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::Mutex,
    time::{Duration, Instant},
};

use bytemuck::Pod;

use super::{
    Handle, OwnerDied, deadline, handle, told,
    word::{HOLDER, HasDied, LockWord},
};
use crate::{
    error::Result,
    segment::{Entry, Repair, State, StateHandle},
    sync::step,
    sys::futex::{wake, wake_all},
};

/// A value that one thread of all processes that have a handle can use at a time.
///
/// It is what [`std::sync::Mutex`] is for the threads of one process, and costs about as much. Handles can be arguments, results, and parts
/// of other values. All clones are handles of the same value, which is freed with the last of them, wherever it is.
///
/// If a process dies while it holds the lock, the next holder gets it with an [`OwnerDied`], once. The value is what the dead process has left
/// of it. A panic does not do that: it drops the guard, which frees the lock.
///
/// The value is [`Pod`]: plain data of a fixed size without pointers. The memory of a value is its own, in pages, and needs a descriptor
/// in each process, so share an array rather than thousands of locks.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedMutex, parallel, worker};
///
/// #[worker]
/// fn count(words: &[String], total: &SharedMutex<u64>) -> procession::Result<(), procession::RemoteError> {
///     *total.lock()? += words.len() as u64;
///     Ok(())
/// }
///
/// let total = SharedMutex::new(0_u64)?;
/// let pool = Pool::new(2)?;
/// let pages = [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
/// parallel!(pool = &pool; count(page, &total)? for page in &pages)?;
/// assert_eq!(*total.lock()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedMutex<T> {
    state: StateHandle,
    of: PhantomData<Mutex<T>>,
}

/// A held [`SharedMutex`]. Dropping it frees the lock.
#[must_use = "the lock is free again as soon as this is dropped"]
pub struct SharedMutexGuard<'a, T: Pod> {
    mutex: &'a SharedMutex<T>,
    entry: Entry,
    of: PhantomData<&'a mut T>,
}

impl<T: Pod> SharedMutex<T> {
    /// Where the value lies, after the word.
    const VALUE_AT: usize = if align_of::<T>() > 8 { align_of::<T>() } else { 8 };
    const LEN_BYTES: usize = Self::VALUE_AT + size_of::<T>();

    /// Makes a lock around a value.
    ///
    /// # Errors
    ///
    /// Memory cannot be shared here, or there is not enough.
    ///
    /// # Examples
    ///
    /// ```
    /// let total = procession::SharedMutex::new(0_u64)?;
    /// *total.lock()? += 1;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(value: T) -> Result<Self> {
        const { assert!(align_of::<T>() <= 4096, "values are aligned to a page at most") };
        let mutex: Self = Handle::zeroed("a shared mutex", Self::LEN_BYTES)?;
        // SAFETY: as for `DerefMut`, and no other handle exists yet.
        unsafe { mutex.value().write(value) };
        Ok(mutex)
    }

    #[inline]
    fn word(&self) -> LockWord<'_> {
        LockWord(self.state.word(0))
    }

    /// Returns where the value lies: valid for reads and writes, and aligned.
    #[inline]
    fn value(&self) -> *mut T {
        // The state is long enough: `zeroed` made it so, and `fits` has checked it.
        self.state.data().as_ptr().wrapping_add(Self::VALUE_AT).cast()
    }

    fn guard(
        &self,
        entry: Entry,
        died: HasDied,
    ) -> Result<SharedMutexGuard<'_, T>, OwnerDied<SharedMutexGuard<'_, T>>> {
        told(SharedMutexGuard { mutex: self, entry, of: PhantomData }, died)
    }

    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    ///
    /// The last holder has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// Panics if this process is a copy of another one (`fork`), and 500 processes have handles of this lock.
    ///
    /// # Examples
    ///
    /// ```
    /// let total = procession::SharedMutex::new(1_u64)?;
    /// *total.lock()? *= 2;
    /// assert_eq!(*total.lock()?, 2);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[inline]
    pub fn lock(&self) -> Result<SharedMutexGuard<'_, T>, OwnerDied<SharedMutexGuard<'_, T>>> {
        let entry = self.state.my_entry();
        let died = self.word().lock(entry.number(), |seen| self.sleep(seen, None));
        self.guard(entry, died.expect("a wait without a deadline ends with the lock"))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// The last holder has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let total = procession::SharedMutex::new(1_u64)?;
    /// let held = total.try_lock().transpose()?;
    /// assert!(held.is_some() && total.try_lock().is_none());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_lock(&self) -> Option<Result<SharedMutexGuard<'_, T>, OwnerDied<SharedMutexGuard<'_, T>>>> {
        let entry = self.state.my_entry();
        self.word().try_lock(entry.number()).map(|died| self.guard(entry, died))
    }

    /// Waits until the lock is free, at most this long, and takes it. Returns `None` if the time is up.
    ///
    /// # Errors
    ///
    /// The last holder has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let total = procession::SharedMutex::new(1_u64)?;
    /// let held = total.lock()?;
    /// assert!(total.lock_timeout(Duration::from_millis(1)).is_none());
    /// # drop(held);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Option<Result<SharedMutexGuard<'_, T>, OwnerDied<SharedMutexGuard<'_, T>>>> {
        let (entry, until) = (self.state.my_entry(), deadline(timeout));
        let died = self.word().lock(entry.number(), |seen| self.sleep(seen, until))?;
        Some(self.guard(entry, died))
    }

    #[cold]
    fn sleep(&self, seen: u32, until: Option<Instant>) -> bool {
        self.state.wait(self.word().0, seen, until, |entry| entry.number() == seen & HOLDER)
    }
}

/// Takes the lock away from a process.
fn repair(state: &State, dead: Entry) {
    LockWord(state.word(0)).disown(dead.number());
    let _ = wake_all(state.word(0));
}

impl<T: Pod> Handle for SharedMutex<T> {
    const REPAIR: Option<Repair> = Some(repair);

    fn fits(len_bytes: usize) -> bool {
        len_bytes == Self::LEN_BYTES
    }

    fn of(state: StateHandle) -> Self {
        Self { state, of: PhantomData }
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }
}

handle!([T: Pod] SharedMutex<T>, "SharedMutex");

impl<'a, T: Pod> SharedMutexGuard<'a, T> {
    pub(super) fn mutex(&self) -> &'a SharedMutex<T> {
        self.mutex
    }
}

impl<T: Pod> Deref for SharedMutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value is aligned, lies in memory that lives as long as the mutex, and any bytes are valid, because it is `Pod`. While this
        // process holds the lock, only the guard is used to access it: by threads of this process, and by other processes, which run the same
        // program.
        unsafe { &*self.mutex.value() }
    }
}

impl<T: Pod> DerefMut for SharedMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`.
        unsafe { &mut *self.mutex.value() }
    }
}

impl<T: Pod> Drop for SharedMutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // A copy of the process that has taken the lock does not have it.
        if self.mutex.state.is_mine(self.entry) && self.mutex.word().unlock(false) {
            let _ = wake(self.mutex.word().0);
            step("unlock: woke");
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
