//! Defines [`Dict`], a dictionary that a manager owns.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Stored,
    link::{
        decode_key, decode_value, done, encode_key, encode_value, exchanged, flag, handle, len_of, pairs_of,
        value_of, with_call,
    },
    request::Action,
};
use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::Attachments,
    task::Update,
};

handle! {
    /// A dictionary that a [`Manager`](super::Manager) owns. Created by [`Manager::dict`](super::Manager::dict).
    ///
    /// Two keys are the same if their encodings are. Where a `String` is a key, `&str` can be given, and so on for other types that borrow
    /// as one with the same encoding.
    ///
    /// # Errors
    ///
    /// Every operation returns an error if the manager has ended, or if a key or a value cannot be encoded or decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Dict, Manager};
    ///
    /// let manager = Manager::in_process();
    /// let prices: Dict<String, u32> = manager.dict()?;
    /// assert_eq!(prices.insert("apple".to_owned(), 3)?, None);
    /// assert_eq!(prices.insert("apple".to_owned(), 4)?, Some(3));
    /// assert_eq!(prices.get("apple")?, Some(4));
    /// assert_eq!(prices.remove("apple")?, Some(4));
    /// assert!(prices.is_empty()?);
    /// # Ok::<(), procession::Error>(())
    /// ```
    Dict<K, V>
}

const VALUE: &str = "the value of a dict";

impl<K: Serialize, V: Stored> Dict<K, V> {
    /// Returns the value of a key.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let (key, with) = keyed(key)?;
        self.object.act_with(Action::Get(Bytes(&key)), &with).and_then(value_of)
    }

    /// Sets the value of a key. Returns the one that it replaces.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        let mut with = Attachments::default();
        let (key, value) = (encode_key(&key, &mut with)?, encode_value(VALUE, &value, &mut with)?);
        self.object.act_with(Action::Insert(Bytes(&key), Bytes(&value)), &with).and_then(value_of)
    }

    /// Removes a key. Returns its value.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let (key, with) = keyed(key)?;
        self.object.act_with(Action::Remove(Bytes(&key)), &with).and_then(value_of)
    }

    /// Returns whether the key has a value.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn contains<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        let (key, with) = keyed(key)?;
        self.object.act_with(Action::Contains(Bytes(&key)), &with).and_then(flag)
    }

    /// Returns the number of keys.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn len(&self) -> Result<usize> {
        self.object.act(Action::Len).and_then(len_of)
    }

    /// Returns whether there are no keys.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Removes all keys.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn clear(&self) -> Result<()> {
        self.object.act(Action::Clear).and_then(done)
    }

    /// Returns a copy of all keys and values, as they are at one moment.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    pub fn snapshot(&self) -> Result<HashMap<K, V>>
    where
        K: DeserializeOwned + Eq + Hash,
    {
        let pairs = self.object.act(Action::Snapshot).and_then(pairs_of)?;
        pairs.iter().map(|(key, value)| Ok((decode_key(key)?, decode_value(value)?))).collect()
    }

    /// Sets the value of a key to `new` if it is `current`. `None` stands for no value. The encodings of the values are compared.
    ///
    /// Returns the present value in an `Err` if it is another one. It has not been changed then.
    ///
    /// # Errors
    ///
    /// See [`Dict`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let manager = procession::Manager::in_process();
    /// let owners = manager.dict::<String, u32>()?;
    /// assert_eq!(owners.compare_exchange("door", None, Some(7))?, Ok(()));
    /// assert_eq!(owners.compare_exchange("door", None, Some(8))?, Err(Some(7)));
    /// assert_eq!(owners.compare_exchange("door", Some(&7), None)?, Ok(()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn compare_exchange<Q: Serialize + ?Sized>(
        &self,
        key: &Q,
        current: Option<&V>,
        new: Option<V>,
    ) -> Result<Result<(), Option<V>>>
    where
        K: Borrow<Q>,
    {
        let (key, mut with) = keyed(key)?;
        let current = current.map(|value| encode_value(VALUE, value, &mut with)).transpose()?;
        let new = new.map(|value| encode_value(VALUE, &value, &mut with)).transpose()?;
        let [current, new] = [&current, &new].map(|value| value.as_deref().map(Bytes));
        let action = Action::CompareExchange { key: Bytes(&key), current, new };
        match self.object.act_with(action, &with).and_then(exchanged)? {
            Ok(()) => Ok(Ok(())),
            Err(present) => present.as_ref().map(decode_value).transpose().map(Err),
        }
    }

    /// Replaces the value of a key by what a function makes of it. Returns the new value.
    ///
    /// The function runs in the manager, so no update of another process is lost. `delayed!` makes the update, with `_` for the value.
    /// All other requests to the manager wait for the function. It cannot use a manager itself.
    ///
    /// # Errors
    ///
    /// Returns an error if the key has no value ([`entry`](Self::entry) inserts one), or if the function has panicked
    /// ([`TaskError::panic`](crate::TaskError::panic)). The value is not changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Manager, delayed, worker};
    ///
    /// #[worker]
    /// fn add(a: u64, b: u64) -> u64 {
    ///     a + b
    /// }
    ///
    /// let manager = Manager::in_process();
    /// let counts = manager.dict::<String, u64>()?;
    /// counts.insert("apple".to_owned(), 2)?;
    /// assert_eq!(counts.update("apple", delayed!(add(_, 1)))?, 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn update<Q: Serialize + ?Sized>(&self, key: &Q, update: Update<V>) -> Result<V>
    where
        K: Borrow<Q>,
    {
        let (key, mut with) = keyed(key)?;
        let reply = with_call(&update, &mut with, |call, with| {
            self.object.act_with(Action::Update(Bytes(&key), call), with)
        })?;
        value_of(reply)?.ok_or_else(|| {
            Error::config("the dict has no such key to update: `entry` inserts a value if there is none")
        })
    }

    /// Returns the entry of a key, to insert a value if there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// # let manager = procession::Manager::in_process();
    /// let sizes = manager.dict::<String, u32>()?;
    /// assert_eq!(sizes.entry("door".to_owned()).or_insert(3)?, 3);
    /// assert_eq!(sizes.entry("door".to_owned()).or_insert(4)?, 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn entry(&self, key: K) -> Entry<'_, K, V> {
        Entry { dict: self, key, update: None }
    }
}

/// Encodes a key. Returns it with its handles.
fn keyed<Q: Serialize + ?Sized>(key: &Q) -> Result<(Vec<u8>, Attachments)> {
    let mut with = Attachments::default();
    Ok((encode_key(key, &mut with)?, with))
}

/// The entry of a key of a [`Dict`]. Created by [`Dict::entry`].
///
/// # Examples
///
/// ```
/// use procession::{Manager, delayed, worker};
///
/// #[worker]
/// fn add(a: u64, b: u64) -> u64 {
///     a + b
/// }
///
/// let manager = Manager::in_process();
/// let counts = manager.dict::<char, u64>()?;
/// for letter in "banana".chars() {
///     counts.entry(letter).and_modify(delayed!(add(_, 1))).or_insert(1)?;
/// }
/// assert_eq!(counts.get(&'a')?, Some(3));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an entry does nothing until `or_insert`"]
pub struct Entry<'a, K, V> {
    dict: &'a Dict<K, V>,
    key: K,
    update: Option<Update<V>>,
}

impl<K: Serialize, V: Stored> Entry<'_, K, V> {
    /// Updates the value if there is one, like [`Dict::update`]. Replaces an update that was given before.
    pub fn and_modify(self, update: Update<V>) -> Self {
        Self { update: Some(update), ..self }
    }

    /// Inserts a value if there is none. Returns the value that the key has then. All of this is one operation.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`Dict::update`], except that the key may have no value.
    pub fn or_insert(self, value: V) -> Result<V> {
        let mut with = Attachments::default();
        let object = &self.dict.object;
        let (key, value) = (encode_key(&self.key, &mut with)?, encode_value(VALUE, &value, &mut with)?);
        let (key, or) = (Bytes(&key), Bytes(&value));
        let reply = match &self.update {
            None => object.act_with(Action::Enter { key, update: None, or }, &with),
            Some(update) => with_call(update, &mut with, |call, with| {
                object.act_with(Action::Enter { key, update: Some(call), or }, with)
            }),
        }?;
        value_of(reply)?.ok_or_else(|| Error::config("the manager has inserted no value"))
    }
}
