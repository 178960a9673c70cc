//! Defines [`Counter`], a number that a manager owns.

use super::{
    link::{handle, number_of},
    request::Action,
};
use crate::error::Result;

handle! {
    /// A number that a [`Manager`](super::Manager) owns. Created by [`Manager::counter`](super::Manager::counter).
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let manager = procession::Manager::in_process();
    /// let done = manager.counter(0)?;
    /// assert_eq!(done.add(2)?, 2);
    /// assert_eq!(done.set(10)?, 2);
    /// assert_eq!(done.get()?, 10);
    /// # Ok::<(), procession::Error>(())
    /// ```
    Counter
}

impl Counter {
    /// Adds to the number, which may be less than zero. Returns the sum.
    ///
    /// # Errors
    ///
    /// Returns an error if the number would overflow. It is not changed then.
    pub fn add(&self, more: i64) -> Result<i64> {
        self.object.act(Action::Add(more)).and_then(number_of)
    }

    /// Returns the number.
    ///
    /// # Errors
    ///
    /// See [`Counter`].
    pub fn get(&self) -> Result<i64> {
        self.add(0)
    }

    /// Sets the number. Returns the one that it replaces.
    ///
    /// # Errors
    ///
    /// See [`Counter`].
    pub fn set(&self, value: i64) -> Result<i64> {
        self.object.act(Action::Store(value)).and_then(number_of)
    }
}
