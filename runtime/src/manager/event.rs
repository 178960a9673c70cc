//! Defines [`Event`], [`Barrier`] and [`Semaphore`], for which threads of any processes wait.

use std::time::Duration;

use super::{
    link::{done, flag, handle, is_in_time, len_of},
    request::{Action, Reply},
};
use crate::error::{Error, Result};

handle! {
    /// An event that is set or not, which a [`Manager`](super::Manager) owns. Created by [`Manager::event`](super::Manager::event).
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let manager = procession::Manager::in_process();
    /// let ready = manager.event()?;
    /// assert!(!ready.wait_timeout(Duration::from_millis(1))?);
    /// ready.set()?;
    /// ready.wait()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    Event
}

impl Event {
    /// Sets the event. All threads that wait for it go on.
    ///
    /// # Errors
    ///
    /// See [`Event`].
    pub fn set(&self) -> Result<()> {
        self.object.act(Action::Set).and_then(done)
    }

    /// Resets the event.
    ///
    /// # Errors
    ///
    /// See [`Event`].
    pub fn clear(&self) -> Result<()> {
        self.object.act(Action::Clear).and_then(done)
    }

    /// Returns whether the event is set.
    ///
    /// # Errors
    ///
    /// See [`Event`].
    pub fn is_set(&self) -> Result<bool> {
        self.object.act(Action::Len).and_then(flag)
    }

    /// Waits until the event is set.
    ///
    /// # Errors
    ///
    /// See [`Event`].
    pub fn wait(&self) -> Result<()> {
        self.object.act(Action::Wait(None)).and_then(done)
    }

    /// Waits at most this long until the event is set. Returns whether it is.
    ///
    /// # Errors
    ///
    /// See [`Event`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.object.act(Action::Wait(Some(timeout))).and_then(is_in_time)
    }
}

handle! {
    /// A barrier for a number of threads, which a [`Manager`](super::Manager) owns. Created by
    /// [`Manager::barrier`](super::Manager::barrier).
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if a process has ended while it waited: the barrier is broken. Those
    /// who wait next begin anew.
    ///
    /// # Examples
    ///
    /// ```
    /// let manager = procession::Manager::in_process();
    /// let barrier = manager.barrier(2)?;
    /// let leaders = std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| barrier.wait());
    ///     [barrier.wait(), other.join().unwrap()]
    /// });
    /// assert_eq!(leaders.into_iter().filter(|leads| matches!(leads, Ok(true))).count(), 1);
    /// # Ok::<(), procession::Error>(())
    /// ```
    Barrier
}

impl Barrier {
    /// Waits until as many threads wait as the barrier was created for. Returns `true` to one of them, the last.
    ///
    /// # Errors
    ///
    /// See [`Barrier`].
    pub fn wait(&self) -> Result<bool> {
        self.object.act(Action::Wait(None)).and_then(flag)
    }

    /// Waits like [`wait`](Self::wait), at most this long. Returns `None` if the time was over. The thread has left the barrier then, and
    /// the others go on waiting.
    ///
    /// # Errors
    ///
    /// See [`Barrier`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<bool>> {
        match self.object.act(Action::Wait(Some(timeout)))? {
            Reply::TimedOut => Ok(None),
            reply => flag(reply).map(Some),
        }
    }
}

handle! {
    /// A number of permits, which a [`Manager`](super::Manager) owns. Created by [`Manager::semaphore`](super::Manager::semaphore).
    ///
    /// The permits of a process that ends are given back.
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let manager = procession::Manager::in_process();
    /// let licences = manager.semaphore(1)?;
    /// let licence = licences.acquire()?;
    /// assert!(licences.try_acquire()?.is_none());
    /// drop(licence);
    /// assert!(licences.try_acquire()?.is_some());
    /// # Ok::<(), procession::Error>(())
    /// ```
    Semaphore
}

impl Semaphore {
    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// See [`Semaphore`].
    pub fn acquire(&self) -> Result<Permit<'_>> {
        self.acquire_within(None)?.ok_or_else(|| Error::config("the manager has granted no permit"))
    }

    /// Returns a permit if there is one.
    ///
    /// # Errors
    ///
    /// See [`Semaphore`].
    pub fn try_acquire(&self) -> Result<Option<Permit<'_>>> {
        self.acquire_within(Some(Duration::ZERO))
    }

    /// Waits at most this long for a permit.
    ///
    /// # Errors
    ///
    /// See [`Semaphore`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Option<Permit<'_>>> {
        self.acquire_within(Some(timeout))
    }

    /// Returns the number of permits that nobody has.
    ///
    /// # Errors
    ///
    /// See [`Semaphore`].
    pub fn available(&self) -> Result<usize> {
        self.object.act(Action::Len).and_then(len_of)
    }

    fn acquire_within(&self, wait: Option<Duration>) -> Result<Option<Permit<'_>>> {
        let in_time = self.object.act(Action::Acquire(wait)).and_then(is_in_time)?;
        // Made only now: one that is dropped gives a permit back.
        Ok(in_time.then(|| Permit { semaphore: self }))
    }
}

/// A permit of a [`Semaphore`], which is given back on drop.
#[derive(Debug)]
#[must_use = "a permit is given back when it is dropped"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // If the manager has ended, there is nothing to give back.
        let _ = self.semaphore.object.act(Action::Release(None));
    }
}
