//! Defines [`Namespace`], values of any type by name.

use std::any::type_name;

use super::{
    Stored,
    link::{decode_key, decode_value, done, encode_key, encode_value, flag, handle, pairs_of},
    request::{Action, Reply, Value},
};
use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::{Attachments, digest},
};

handle! {
    /// Values of any type by name, which a [`Manager`](super::Manager) owns. Created by [`Manager::namespace`](super::Manager::namespace).
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if a value cannot be encoded or decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// let manager = procession::Manager::in_process();
    /// let settings = manager.namespace()?;
    /// settings.set("name", "Ada".to_owned())?;
    /// settings.set("size", 3_u32)?;
    /// assert_eq!(settings.get::<u32>("size")?, Some(3));
    /// assert!(settings.get::<String>("size").is_err(), "it is a number");
    /// assert!(settings.remove("name")?);
    /// assert_eq!(settings.names()?, ["size"]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    Namespace
}

impl Namespace {
    /// Returns the value of a name.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type.
    pub fn get<T: Stored>(&self, name: &str) -> Result<Option<T>> {
        let key = encode_key(name, &mut Attachments::default())?;
        let Reply::Value(Some(value)) = self.object.act(Action::Get(Bytes(&key)))? else { return Ok(None) };
        let (of, its_type, rest) = split(&value.bytes).unwrap_or_default();
        if of != digest::<T>() {
            let words = format!("the value `{name}` is a `{its_type}`, and not a `{}`", type_name::<T>());
            return Err(Error::config(words));
        }
        decode_value(&Value::new(rest, &value.with)).map(Some)
    }

    /// Sets the value of a name. A value that it replaces may have another type.
    ///
    /// # Errors
    ///
    /// See [`Namespace`].
    pub fn set<T: Stored>(&self, name: &str, value: T) -> Result<()> {
        let mut with = Attachments::default();
        let key = encode_key(name, &mut with)?;
        let mut bytes = encode_key(&(digest::<T>(), type_name::<T>()), &mut with)?;
        bytes.extend(encode_value("the value of a name", &value, &mut with)?);
        self.object.act_with(Action::Insert(Bytes(&key), Bytes(&bytes)), &with).map(drop)
    }

    /// Removes a name. Returns whether it had a value.
    ///
    /// # Errors
    ///
    /// See [`Namespace`].
    pub fn remove(&self, name: &str) -> Result<bool> {
        let key = encode_key(name, &mut Attachments::default())?;
        Ok(matches!(self.object.act(Action::Remove(Bytes(&key)))?, Reply::Value(Some(_))))
    }

    /// Returns whether the name has a value.
    ///
    /// # Errors
    ///
    /// See [`Namespace`].
    pub fn contains(&self, name: &str) -> Result<bool> {
        let key = encode_key(name, &mut Attachments::default())?;
        self.object.act(Action::Contains(Bytes(&key))).and_then(flag)
    }

    /// Returns the names that have values, in alphabetical order.
    ///
    /// # Errors
    ///
    /// See [`Namespace`].
    pub fn names(&self) -> Result<Vec<String>> {
        let pairs = self.object.act(Action::Snapshot).and_then(pairs_of)?;
        let mut names = pairs.iter().map(|(name, _)| decode_key(name)).collect::<Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    /// Removes all names.
    ///
    /// # Errors
    ///
    /// See [`Namespace`].
    pub fn clear(&self) -> Result<()> {
        self.object.act(Action::Clear).and_then(done)
    }
}

/// Returns the digest and the name of a value's type, and its encoding.
fn split(bytes: &[u8]) -> Option<(u64, &str, &[u8])> {
    let ((of, its_type), rest) = postcard::take_from_bytes(bytes).ok()?;
    Some((of, its_type, rest))
}
