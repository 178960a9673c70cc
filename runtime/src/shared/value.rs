//! Defines [`Shared`], a value that is encoded once and decoded once in each process.

use std::{borrow::Cow, fmt, io::Write as _, marker::PhantomData, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};

use super::handle::{self, Decoded, Part};
use crate::{
    codec,
    error::{Error, Result},
    segment::{Attachments, Bury, Draft, Kind, Segment, attached_by, digest, inlined, outliving, set_why},
};

/// A value that many tasks use, of which each worker gets one copy.
///
/// The value is encoded once, into memory that workers map. A worker decodes it when a task needs it for the first time, and keeps
/// it as long as the caller has the `Shared`. Clones share the same memory, which is freed with the last of them, wherever it is.
///
/// A function does not notice: where it takes a `&T`, its callers may give a `&Shared<T>`. A `Shared<T>` can also be a parameter or a part
/// of other values, and a result.
///
/// [`Deref`] decodes the value in the calling process when it is first used there. `Shared<[u8]>` and `Shared<str>` are never decoded:
/// their bytes are used where they are.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
///
/// use procession::{Pool, Shared, parallel, worker};
///
/// #[worker]
/// fn look_up(prices: &HashMap<String, u32>, name: &str) -> Option<u32> {
///     prices.get(name).copied()
/// }
///
/// let prices = HashMap::from([("apple".to_owned(), 3), ("fig".to_owned(), 5)]);
/// let prices = Shared::new(&prices)?;
/// let pool = Pool::new(2)?;
/// let found = parallel!(pool = &pool; look_up(&prices, name) for name in ["apple", "pear", "fig"])?;
/// assert_eq!(found, [Some(3), None, Some(5)]);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Shared<T: ?Sized> {
    memory: Memory,
    of: PhantomData<fn() -> Box<T>>,
    _bury: Bury,
}

/// The memory of a shared value.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Memory(Arc<Segment>);

/// Types that [`Shared`] can contain: those that can be arguments and be used by several threads, `[u8]` and `str`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared",
    label = "this type cannot be encoded and decoded, or cannot be used by several threads",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it; for elements like `f32`, use `SharedSlice`"
)]
pub trait Share: Send + Sync {
    #[doc(hidden)]
    fn to_memory(&self) -> Result<Memory>;

    #[doc(hidden)]
    fn from_contents(bytes: &[u8]) -> Result<Memory>;

    /// Returns the encoding, with the contents of what it has handles of.
    #[doc(hidden)]
    fn contents(memory: &Memory) -> Result<Cow<'_, [u8]>, String> {
        Ok(Cow::Borrowed(memory.0.data()))
    }

    /// Returns whether the memory is of such a value.
    #[doc(hidden)]
    fn is_in(memory: &Memory) -> bool;

    #[doc(hidden)]
    fn of(memory: &Memory) -> Result<&Self, String>;
}

impl Memory {
    fn new(kind: Kind, digest: u64, bytes: &[u8], inner: Attachments) -> Result<Self> {
        let made = Draft::new(kind, digest, bytes.len()).and_then(|mut draft| {
            draft.write_all(bytes)?;
            draft.finish(inner)
        });
        made.map(Self).map_err(|error| Error::system("memory for a shared value cannot be made", error))
    }

    fn is(&self, kind: Kind, digest: u64) -> bool {
        self.0.kind() == kind && self.0.digest() == digest
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Share for T {
    fn to_memory(&self) -> Result<Memory> {
        let (mut bytes, mut inner) = (Vec::new(), Attachments::default());
        outliving(|| attached_by(&mut inner, || codec::encode(self, &mut bytes)))
            .map_err(|words| Error::config(format!("a value that is to be shared: {words}")))?;
        Memory::new(Kind::Value, digest::<T>(), &bytes, inner)
    }

    fn from_contents(bytes: &[u8]) -> Result<Memory> {
        Memory::new(Kind::Value, digest::<T>(), bytes, Attachments::default())
    }

    fn contents(memory: &Memory) -> Result<Cow<'_, [u8]>, String> {
        if memory.0.inner().is_empty() {
            return Ok(Cow::Borrowed(memory.0.data()));
        }
        let mut bytes = Vec::new();
        inlined(|| codec::encode(Self::of(memory)?, &mut bytes))?;
        Ok(Cow::Owned(bytes))
    }

    fn is_in(memory: &Memory) -> bool {
        memory.is(Kind::Value, digest::<T>())
    }

    fn of(memory: &Memory) -> Result<&Self, String> {
        memory.0.value(|bytes| codec::decode(bytes))
    }
}

impl Share for [u8] {
    fn to_memory(&self) -> Result<Memory> {
        Memory::new(Kind::Slice, digest::<u8>(), self, Attachments::default())
    }

    fn from_contents(bytes: &[u8]) -> Result<Memory> {
        bytes.to_memory()
    }

    fn is_in(memory: &Memory) -> bool {
        memory.is(Kind::Slice, digest::<u8>())
    }

    fn of(memory: &Memory) -> Result<&Self, String> {
        Ok(memory.0.data())
    }
}

impl Share for str {
    fn to_memory(&self) -> Result<Memory> {
        Memory::new(Kind::Slice, digest::<str>(), self.as_bytes(), Attachments::default())
    }

    fn from_contents(bytes: &[u8]) -> Result<Memory> {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::config(error.to_string()))?;
        text.to_memory()
    }

    fn is_in(memory: &Memory) -> bool {
        memory.is(Kind::Slice, digest::<str>()) && memory.0.text().is_some()
    }

    fn of(memory: &Memory) -> Result<&Self, String> {
        memory.0.text().ok_or_else(|| "it is not text".to_owned())
    }
}

impl<T: Share + ?Sized> Shared<T> {
    /// Encodes a value into memory that is to be shared.
    ///
    /// # Errors
    ///
    /// The value cannot be encoded, or there is not enough memory. Files without a name count towards the memory limit of the control
    /// group.
    ///
    /// # Examples
    ///
    /// ```
    /// let primes = procession::Shared::new(&vec![2, 3, 5, 7])?;
    /// assert_eq!(primes.len(), 4);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(value: &T) -> Result<Self> {
        value.to_memory().map(Self::from)
    }
}

impl<T: ?Sized> From<Memory> for Shared<T> {
    fn from(memory: Memory) -> Self {
        Self { memory, of: PhantomData, _bury: Bury }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    /// Returns another handle of the same memory.
    fn clone(&self) -> Self {
        self.memory.clone().into()
    }
}

impl<T: Share + ?Sized> Deref for Shared<T> {
    type Target = T;

    /// Returns the value, which is decoded once in each process.
    ///
    /// # Panics
    ///
    /// Panics if the value cannot be decoded, because its `Serialize` and `Deserialize` do not agree.
    fn deref(&self) -> &T {
        T::of(&self.memory).unwrap_or_else(|words| panic!("a shared value: {words}"))
    }
}

impl<T: Share + fmt::Debug + ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&&**self).finish()
    }
}

impl<T: Share + ?Sized> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let segment = &self.memory.0;
        let part = Part { segment, offset_bytes: 0, len_bytes: segment.data().len() };
        part.serialize_or(serializer, || T::contents(&self.memory))
    }
}

impl<'de, T: Share + ?Sized> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let memory = match handle::decode(deserializer)? {
            Decoded::Part { segment, .. } => Memory(segment),
            Decoded::Contents(bytes) => {
                T::from_contents(bytes).map_err(|error| de::Error::custom(set_why(error.to_string())))?
            }
        };
        T::is_in(&memory)
            .then(|| Self::from(memory))
            .ok_or_else(|| de::Error::custom(set_why("the shared value has another type".to_owned())))
    }
}
