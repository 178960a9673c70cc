//! Defines [`List`], a list that a manager owns.

use super::{
    Stored,
    link::{done, encode_value, handle, len_of, value_of, values_of, with_call},
    request::Action,
};
use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::Attachments,
    task::Update,
};

handle! {
    /// A list that a [`Manager`](super::Manager) owns. Created by [`Manager::list`](super::Manager::list).
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if a value cannot be encoded or decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{List, Manager};
    ///
    /// let manager = Manager::in_process();
    /// let log: List<String> = manager.list()?;
    /// log.push("begun".to_owned())?;
    /// log.extend(["half".to_owned(), "done".to_owned()])?;
    /// assert_eq!(log.get(1)?.as_deref(), Some("half"));
    /// assert_eq!(log.snapshot()?, ["begun", "half", "done"]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    List<T>
}

const VALUE: &str = "the value of a list";

impl<T: Stored> List<T> {
    /// Appends a value.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn push(&self, value: T) -> Result<()> {
        self.extend([value])
    }

    /// Appends several values. None of another process comes between them.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn extend(&self, values: impl IntoIterator<Item = T>) -> Result<()> {
        let mut with = Attachments::default();
        let values = values.into_iter().map(|value| encode_value(VALUE, &value, &mut with));
        let values = values.collect::<Result<Vec<_>>>()?;
        let values = values.iter().map(|value| Bytes(value)).collect();
        self.object.act_with(Action::Extend(values), &with).and_then(done)
    }

    /// Removes the last value and returns it.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn pop(&self) -> Result<Option<T>> {
        self.object.act(Action::Pop).and_then(value_of)
    }

    /// Returns the value at an index, or `None` if the list is shorter.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        self.object.act(Action::At(index as u64)).and_then(value_of)
    }

    /// Replaces the value at an index. Returns the one that it replaces.
    ///
    /// # Errors
    ///
    /// Returns an error if the list is shorter.
    pub fn set(&self, index: usize, value: T) -> Result<T> {
        let mut with = Attachments::default();
        let value = encode_value(VALUE, &value, &mut with)?;
        let reply = self.object.act_with(Action::SetAt(index as u64, Bytes(&value)), &with)?;
        value_of(reply)?.ok_or_else(|| beyond(index))
    }

    /// Replaces the value at an index by what a function makes of it, like [`Dict::update`](super::Dict::update). Returns the new value.
    ///
    /// # Errors
    ///
    /// Returns an error if the list is shorter, or if the function has panicked.
    pub fn update(&self, index: usize, update: Update<T>) -> Result<T> {
        let reply = with_call(&update, &mut Attachments::default(), |call, with| {
            self.object.act_with(Action::UpdateAt(index as u64, call), with)
        })?;
        value_of(reply)?.ok_or_else(|| beyond(index))
    }

    /// Returns the number of values.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn len(&self) -> Result<usize> {
        self.object.act(Action::Len).and_then(len_of)
    }

    /// Returns whether there are no values.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Removes all values.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn clear(&self) -> Result<()> {
        self.object.act(Action::Clear).and_then(done)
    }

    /// Returns a copy of all values, as they are at one moment.
    ///
    /// # Errors
    ///
    /// See [`List`].
    pub fn snapshot(&self) -> Result<Vec<T>> {
        self.object.act(Action::Snapshot).and_then(values_of)
    }
}

fn beyond(index: usize) -> Error {
    Error::config(format!("the list has no value at index {index}"))
}
