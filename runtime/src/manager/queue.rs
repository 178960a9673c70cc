//! Defines [`Queue`], a queue that a manager owns.

use std::time::Duration;

use super::{
    Stored,
    link::{encode_value, handle, is_in_time, len_of, value_of},
    request::Action,
};
use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::Attachments,
};

handle! {
    /// A queue of limited length that a [`Manager`](super::Manager) owns. Created by [`Manager::queue`](super::Manager::queue).
    ///
    /// Values are taken in the order in which they were put in. Threads that wait take turns in the order in which they came.
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if a value cannot be encoded or decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Manager, Queue};
    ///
    /// let manager = Manager::in_process();
    /// let jobs: Queue<u32> = manager.queue(2)?;
    /// jobs.put(7)?;
    /// assert!(jobs.try_put(8)?);
    /// assert!(!jobs.try_put(9)?, "it is full");
    /// assert_eq!(jobs.get()?, 7);
    /// assert_eq!(jobs.try_get()?, Some(8));
    /// assert_eq!(jobs.try_get()?, None);
    /// # Ok::<(), procession::Error>(())
    /// ```
    Queue<T>
}

impl<T: Stored> Queue<T> {
    /// Puts a value in. Waits until there is room.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn put(&self, value: T) -> Result<()> {
        self.put_within(&value, None).map(drop)
    }

    /// Puts a value in if there is room. Returns whether there was.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn try_put(&self, value: T) -> Result<bool> {
        self.put_within(&value, Some(Duration::ZERO))
    }

    /// Puts a value in. Waits at most this long until there is room. Returns whether there was.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<bool> {
        self.put_within(&value, Some(timeout))
    }

    /// Takes the oldest value. Waits until there is one.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn get(&self) -> Result<T> {
        self.get_within(None)?.ok_or_else(|| Error::config("the manager has sent no value"))
    }

    /// Takes the oldest value if there is one.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn try_get(&self) -> Result<Option<T>> {
        self.get_within(Some(Duration::ZERO))
    }

    /// Takes the oldest value. Waits at most this long until there is one.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        self.get_within(Some(timeout))
    }

    /// Returns the number of values.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn len(&self) -> Result<usize> {
        self.object.act(Action::Len).and_then(len_of)
    }

    /// Returns whether there are no values.
    ///
    /// # Errors
    ///
    /// See [`Queue`].
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    fn put_within(&self, value: &T, wait: Option<Duration>) -> Result<bool> {
        let mut with = Attachments::default();
        let value = encode_value("the value of a queue", value, &mut with)?;
        self.object.act_with(Action::Put(Bytes(&value), wait), &with).and_then(is_in_time)
    }

    fn get_within(&self, wait: Option<Duration>) -> Result<Option<T>> {
        self.object.act(Action::Take(wait)).and_then(value_of)
    }
}
