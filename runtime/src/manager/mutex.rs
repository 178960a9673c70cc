//! Defines [`Mutex`] and [`Condvar`].

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use super::{
    Stored,
    link::{decode_value, done, encode_value, handle, locked},
    request::{Action, Value},
};
use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::Attachments,
};

handle! {
    /// A mutex that protects a value, which a [`Manager`](super::Manager) owns. Created by [`Manager::mutex`](super::Manager::mutex).
    ///
    /// The value travels to the thread that locks the mutex, and back when that thread unlocks it. If a process ends while it has locked
    /// the mutex, or the guard is dropped by a panic, the mutex is unlocked and the value is what it was before. So there is no poisoning.
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if the value cannot be encoded or decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// let manager = procession::Manager::in_process();
    /// let total = manager.mutex(vec![1])?;
    /// total.lock()?.push(2);
    /// assert_eq!(*total.lock()?, [1, 2]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    Mutex<T>
}

impl<T: Stored> Mutex<T> {
    /// Locks the mutex. Waits until it is free.
    ///
    /// # Errors
    ///
    /// See [`Mutex`].
    pub fn lock(&self) -> Result<MutexGuard<'_, T>> {
        self.lock_within(None)?.ok_or_else(|| Error::config("the manager has not locked the mutex"))
    }

    /// Locks the mutex if it is free.
    ///
    /// # Errors
    ///
    /// See [`Mutex`].
    pub fn try_lock(&self) -> Result<Option<MutexGuard<'_, T>>> {
        self.lock_within(Some(Duration::ZERO))
    }

    /// Locks the mutex. Waits at most this long until it is free.
    ///
    /// # Errors
    ///
    /// See [`Mutex`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<MutexGuard<'_, T>>> {
        self.lock_within(Some(timeout))
    }

    fn lock_within(&self, wait: Option<Duration>) -> Result<Option<MutexGuard<'_, T>>> {
        let locked = self.object.act(Action::Acquire(wait)).and_then(locked)?;
        locked.map(|(value, _)| self.guard(&value)).transpose()
    }

    /// Returns the guard of the mutex, which is locked.
    fn guard(&self, value: &Value) -> Result<MutexGuard<'_, T>> {
        match decode_value(value) {
            Ok(value) => Ok(MutexGuard { mutex: self, value, is_changed: false, is_locked: true }),
            Err(error) => {
                let _ = self.object.act(Action::Release(None));
                Err(error)
            }
        }
    }
}

/// The value of a [`Mutex`] that is locked. The mutex is unlocked on drop.
///
/// If the value was borrowed mutably, the changed value is sent to the manager.
#[must_use = "a mutex is unlocked when its guard is dropped"]
pub struct MutexGuard<'a, T: Stored> {
    mutex: &'a Mutex<T>,
    value: T,
    is_changed: bool,
    is_locked: bool,
}

impl<T: Stored> MutexGuard<'_, T> {
    /// Sends the value to the manager and unlocks the mutex, like a drop, which cannot return errors.
    ///
    /// # Errors
    ///
    /// Returns an error if the changed value cannot be encoded or the manager has ended. The mutex is unlocked, and its value is what it
    /// was before.
    pub fn unlock(mut self) -> Result<()> {
        self.release()
    }

    /// Encodes the value if it was changed.
    fn changed(&self, with: &mut Attachments) -> Result<Option<Vec<u8>>> {
        self.is_changed.then(|| encode_value("the value of a mutex", &self.value, with)).transpose()
    }

    fn release(&mut self) -> Result<()> {
        self.is_locked = false;
        let mut with = Attachments::default();
        let changed = self.changed(&mut with);
        let value = changed.as_ref().ok().and_then(|value| value.as_deref()).map(Bytes);
        let released = self.mutex.object.act_with(Action::Release(value), &with).and_then(done);
        changed.and(released)
    }
}

impl<T: Stored> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Stored> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_changed = true;
        &mut self.value
    }
}

impl<T: Stored + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MutexGuard").field(&self.value).finish()
    }
}

impl<T: Stored> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.is_locked {
            // What a panic has left half done is not kept.
            self.is_changed &= !std::thread::panicking();
            // `unlock` returns the error.
            let _ = self.release();
        }
    }
}

handle! {
    /// A condition variable, which a [`Manager`](super::Manager) owns. Created by [`Manager::condvar`](super::Manager::condvar), for mutexes of
    /// the same manager.
    ///
    /// No thread goes on without a notification, except after a timeout.
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if the value of the mutex cannot be encoded or decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// let manager = procession::Manager::in_process();
    /// let (is_ready, changed) = (manager.mutex(false)?, manager.condvar()?);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *is_ready.lock()? = true;
    ///         changed.notify_one()
    ///     });
    ///     let guard = changed.wait_while(is_ready.lock()?, |is_ready| !*is_ready)?;
    ///     assert!(*guard);
    ///     Ok::<(), procession::Error>(())
    /// })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    Condvar
}

impl Condvar {
    /// Unlocks the mutex, waits for a notification, and locks the mutex again.
    ///
    /// # Errors
    ///
    /// Returns an error if the mutex belongs to another manager, and in the cases of [`Condvar`].
    pub fn wait<'a, T: Stored>(&self, guard: MutexGuard<'a, T>) -> Result<MutexGuard<'a, T>> {
        self.wait_within(guard, None).map(|(guard, _)| guard)
    }

    /// Waits like [`wait`](Self::wait), at most this long. Also returns whether the time was over. The mutex is locked in both cases.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`wait`](Self::wait).
    pub fn wait_timeout<'a, T: Stored>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> Result<(MutexGuard<'a, T>, bool)> {
        self.wait_within(guard, Some(timeout))
    }

    /// Waits as long as the condition is true for the value.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`wait`](Self::wait).
    pub fn wait_while<'a, T: Stored>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Wakes one of the threads that wait, the one that has waited longest.
    ///
    /// # Errors
    ///
    /// See [`Condvar`].
    pub fn notify_one(&self) -> Result<()> {
        self.object.act(Action::Notify { all: false }).and_then(done)
    }

    /// Wakes all threads that wait.
    ///
    /// # Errors
    ///
    /// See [`Condvar`].
    pub fn notify_all(&self) -> Result<()> {
        self.object.act(Action::Notify { all: true }).and_then(done)
    }

    fn wait_within<'a, T: Stored>(
        &self,
        mut guard: MutexGuard<'a, T>,
        wait: Option<Duration>,
    ) -> Result<(MutexGuard<'a, T>, bool)> {
        let mutex = guard.mutex;
        if !self.object.has_manager_of(&mutex.object) {
            return Err(Error::config("the mutex belongs to another manager than the condition variable"));
        }
        let mut with = Attachments::default();
        let changed = guard.changed(&mut with)?;
        guard.is_locked = false;
        let changed = changed.as_deref().map(Bytes);
        let action = Action::WaitWith { mutex: mutex.object.number, changed, wait };
        let reply = self.object.act_with(action, &with).and_then(locked)?;
        let (value, timed_out) =
            reply.ok_or_else(|| Error::config("the manager has not locked the mutex"))?;
        Ok((mutex.guard(&value)?, timed_out))
    }
}
