//! Defines [`SharedRwLock`], a value that many may read or one may write.
#![expect(unsafe_code, reason = "a value in shared memory, which only holders of the lock access")]

use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::RwLock,
    time::{Duration, Instant},
};

use bytemuck::Pod;

use super::{
    Handle, OwnerDied, deadline, handle,
    rw_words::RwWords,
    told,
    word::{HOLDER, HasDied, LockWord},
};
use crate::{
    error::Result,
    segment::{ENTRIES, Entry, Repair, State, StateHandle},
    sync::AtomicU32,
    sys::futex::{wake, wake_all},
};

/// The position of the first reader's word.
const READERS: usize = 2;

/// A value that many threads of all processes may read at a time, or one may change.
///
/// It is what [`std::sync::RwLock`] is for the threads of one process. A thread that waits to write goes before those that come later to read, so a
/// thread that already reads must not wait to read again. Otherwise it is like [`SharedMutex`](crate::SharedMutex), which says what a handle
/// is, and what an [`OwnerDied`] is. A process that dies while it reads has changed nothing, so no other is told.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedRwLock, parallel, worker};
///
/// #[worker]
/// fn price(count: u64, prices: &SharedRwLock<[u64; 2]>) -> u64 {
///     prices.read().map_or(0, |prices| count * prices[0] + prices[1])
/// }
///
/// let prices = SharedRwLock::new([5, 1])?;
/// let pool = Pool::new(2)?;
/// assert_eq!(parallel!(pool = &pool; price(count, &prices) for count in 1..3)?, [6, 11]);
/// prices.write()?[0] = 4;
/// assert_eq!(parallel!(pool = &pool; price(count, &prices) for count in 1..3)?, [5, 9]);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedRwLock<T> {
    state: StateHandle,
    of: PhantomData<RwLock<T>>,
}

/// A [`SharedRwLock`] held for reading. Dropping it frees the lock.
#[must_use = "the lock is free again as soon as this is dropped"]
pub struct SharedRwLockReadGuard<'a, T: Pod> {
    lock: &'a SharedRwLock<T>,
    entry: Entry,
    of: PhantomData<&'a T>,
}

/// A [`SharedRwLock`] held for writing. Dropping it frees the lock.
#[must_use = "the lock is free again as soon as this is dropped"]
pub struct SharedRwLockWriteGuard<'a, T: Pod> {
    lock: &'a SharedRwLock<T>,
    entry: Entry,
    of: PhantomData<&'a mut T>,
}

type ReadResult<'a, T> = Result<SharedRwLockReadGuard<'a, T>, OwnerDied<SharedRwLockReadGuard<'a, T>>>;
type WriteResult<'a, T> = Result<SharedRwLockWriteGuard<'a, T>, OwnerDied<SharedRwLockWriteGuard<'a, T>>>;

fn words(state: &State) -> RwWords<'_> {
    let readers = state.words_in(READERS..READERS + ENTRIES);
    RwWords { writer: LockWord(state.word(0)), used: state.word(1), readers }
}

fn wake_writer(word: &AtomicU32) {
    let _ = wake(word);
}

impl<T: Pod> SharedRwLock<T> {
    /// Where the value lies, after the words.
    const VALUE_AT: usize = (4 * (READERS + ENTRIES)).next_multiple_of(align_of::<T>());
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
    /// let limits = procession::SharedRwLock::new([0_u32, 100])?;
    /// assert_eq!(limits.read()?[1], 100);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(value: T) -> Result<Self> {
        const { assert!(align_of::<T>() <= 4096, "values are aligned to a page at most") };
        let lock: Self = Handle::zeroed("a shared lock", Self::LEN_BYTES)?;
        // SAFETY: as for `DerefMut`, and no other handle exists yet.
        unsafe { lock.value().write(value) };
        Ok(lock)
    }

    /// Returns where the value lies: valid for reads and writes, and aligned.
    #[inline]
    fn value(&self) -> *mut T {
        // The state is long enough: `zeroed` made it so, and `fits` has checked it.
        self.state.data().as_ptr().wrapping_add(Self::VALUE_AT).cast()
    }

    fn read_guard(&self, entry: Entry, died: HasDied) -> ReadResult<'_, T> {
        told(SharedRwLockReadGuard { lock: self, entry, of: PhantomData }, died)
    }

    fn write_guard(&self, entry: Entry, died: HasDied) -> WriteResult<'_, T> {
        told(SharedRwLockWriteGuard { lock: self, entry, of: PhantomData }, died)
    }

    /// Waits until no thread writes, and takes the lock for reading.
    ///
    /// # Errors
    ///
    /// The last writer has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = procession::SharedRwLock::new(100_u32)?;
    /// let (one, other) = (limit.read()?, limit.read()?);
    /// assert_eq!(*one + *other, 200);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn read(&self) -> Result<SharedRwLockReadGuard<'_, T>, OwnerDied<SharedRwLockReadGuard<'_, T>>> {
        self.read_until(None).expect("a wait without a deadline ends with the lock")
    }

    /// Takes the lock for reading if no thread writes or waits to write.
    ///
    /// # Errors
    ///
    /// The last writer has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = procession::SharedRwLock::new(100_u32)?;
    /// let writes = limit.write()?;
    /// assert!(limit.try_read().is_none());
    /// # drop(writes);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_read(
        &self,
    ) -> Option<Result<SharedRwLockReadGuard<'_, T>, OwnerDied<SharedRwLockReadGuard<'_, T>>>> {
        let entry = self.state.my_entry();
        words(&self.state).try_read(entry.index(), wake_writer).map(|died| self.read_guard(entry, died))
    }

    /// Waits until no thread writes, at most this long, and takes the lock for reading. Returns `None` if the time is up.
    ///
    /// # Errors
    ///
    /// The last writer has died. The error contains the guard.
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
    /// let limit = procession::SharedRwLock::new(100_u32)?;
    /// let writes = limit.write()?;
    /// assert!(limit.read_timeout(Duration::from_millis(1)).is_none());
    /// # drop(writes);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn read_timeout(
        &self,
        timeout: Duration,
    ) -> Option<Result<SharedRwLockReadGuard<'_, T>, OwnerDied<SharedRwLockReadGuard<'_, T>>>> {
        self.read_until(deadline(timeout))
    }

    fn read_until(&self, until: Option<Instant>) -> Option<ReadResult<'_, T>> {
        let (entry, words) = (self.state.my_entry(), words(&self.state));
        let died = words.read(entry.index(), |seen| self.sleep(seen, until), wake_writer)?;
        Some(self.read_guard(entry, died))
    }

    /// Waits until no thread reads or writes, and takes the lock for writing.
    ///
    /// # Errors
    ///
    /// The last writer has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = procession::SharedRwLock::new(100_u32)?;
    /// *limit.write()? += 1;
    /// assert_eq!(*limit.read()?, 101);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn write(&self) -> Result<SharedRwLockWriteGuard<'_, T>, OwnerDied<SharedRwLockWriteGuard<'_, T>>> {
        self.write_until(None).expect("a wait without a deadline ends with the lock")
    }

    /// Takes the lock for writing if no thread reads or writes.
    ///
    /// # Errors
    ///
    /// The last writer has died. The error contains the guard.
    ///
    /// # Panics
    ///
    /// As [`SharedMutex::lock`](crate::SharedMutex::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let limit = procession::SharedRwLock::new(100_u32)?;
    /// let reads = limit.read()?;
    /// assert!(limit.try_write().is_none());
    /// # drop(reads);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_write(
        &self,
    ) -> Option<Result<SharedRwLockWriteGuard<'_, T>, OwnerDied<SharedRwLockWriteGuard<'_, T>>>> {
        let entry = self.state.my_entry();
        let died = words(&self.state).writer.try_lock(entry.number())?;
        self.drain(entry, died, |_, _| false)
    }

    /// Waits until no thread reads or writes, at most this long, and takes the lock for writing. Returns `None` if the time is up.
    ///
    /// # Errors
    ///
    /// The last writer has died. The error contains the guard.
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
    /// let limit = procession::SharedRwLock::new(100_u32)?;
    /// let reads = limit.read()?;
    /// assert!(limit.write_timeout(Duration::from_millis(1)).is_none());
    /// # drop(reads);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn write_timeout(
        &self,
        timeout: Duration,
    ) -> Option<Result<SharedRwLockWriteGuard<'_, T>, OwnerDied<SharedRwLockWriteGuard<'_, T>>>> {
        self.write_until(deadline(timeout))
    }

    fn write_until(&self, until: Option<Instant>) -> Option<WriteResult<'_, T>> {
        let (entry, words) = (self.state.my_entry(), words(&self.state));
        let died = words.writer.lock(entry.number(), |seen| self.sleep(seen, until))?;
        self.drain(entry, died, |at, seen| {
            self.state.wait(&words.readers[at], seen, until, |entry| entry.index() == at)
        })
    }

    /// Waits for the readers, as the writer. Returns `None` if `sleep` returns `false`.
    fn drain(
        &self,
        entry: Entry,
        died: HasDied,
        sleep: impl FnMut(usize, u32) -> bool,
    ) -> Option<WriteResult<'_, T>> {
        let words = words(&self.state);
        if words.drain(sleep) {
            return Some(self.write_guard(entry, died));
        }
        if words.writer.unlock(died) {
            let _ = wake_all(words.writer.0);
        }
        None
    }

    /// Waits for the end of a writer.
    #[cold]
    fn sleep(&self, seen: u32, until: Option<Instant>) -> bool {
        self.state.wait(self.state.word(0), seen, until, |entry| entry.number() == seen & HOLDER)
    }
}

/// Takes the lock away from a process.
fn repair(state: &State, dead: Entry) {
    let words = words(state);
    words.disown(dead.number(), dead.index());
    let _ = wake_all(words.writer.0);
    let _ = wake_all(&words.readers[dead.index()]);
}

impl<T: Pod> Handle for SharedRwLock<T> {
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

handle!([T: Pod] SharedRwLock<T>, "SharedRwLock");

impl<T: Pod> Deref for SharedRwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is aligned, lies in memory that lives as long as the lock, and any bytes are valid, because it is `Pod`. While this
        // process is counted as a reader, no thread of any process writes it: all run the same program.
        unsafe { &*self.lock.value() }
    }
}

impl<T: Pod> Deref for SharedRwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as for the reader's guard. While this process is the writer, only the guard is used to access the value.
        unsafe { &*self.lock.value() }
    }
}

impl<T: Pod> DerefMut for SharedRwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`.
        unsafe { &mut *self.lock.value() }
    }
}

impl<T: Pod> Drop for SharedRwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        // A copy of the process that has taken the lock does not have it.
        if self.lock.state.is_mine(self.entry) {
            words(&self.lock.state).unread(self.entry.index(), wake_writer);
        }
    }
}

impl<T: Pod> Drop for SharedRwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        let word = words(&self.lock.state).writer;
        // As for readers.
        if self.lock.state.is_mine(self.entry) && word.unlock(false) {
            let _ = wake_all(word.0);
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedRwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedRwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
