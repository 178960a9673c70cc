//! Defines [`Fd`], a file, socket or other descriptor that tasks are given.

use std::{
    any::type_name,
    fmt, io,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::handle::{self, Decoded, Part};
use crate::{
    segment::{Kind, Mode, Segment, digest, mode, set_why},
    sys::limits::explained,
};

/// A file, socket or other descriptor that can be an argument, a part of other values, and a result.
///
/// `T` is an [`OwnedFd`], [`File`](std::fs::File), [`TcpStream`](std::net::TcpStream), [`UnixStream`](std::os::unix::net::UnixStream), or
/// any other type that is made from a descriptor.
///
/// Each task that is given an `Fd` has a descriptor of its own of the same file or connection, and so has each attempt of a task that is
/// retried. They share what the kernel keeps for the file: its position, its status flags, and the end of a connection. The
/// caller keeps its own descriptor. A connection is at its end when all of them are closed. A worker keeps one as long as the caller has the
/// `Fd` or a task with it, and closes it soon after. To end a connection at once, shut it down
/// ([`TcpStream::shutdown`](std::net::TcpStream::shutdown)).
///
/// # Examples
///
/// ```
/// use std::{
///     io::{Read as _, Write as _},
///     os::unix::net::UnixStream,
/// };
///
/// use procession::{Fd, Pool, delayed, worker};
///
/// #[worker]
/// fn greet(stream: Fd<UnixStream>, name: &str) -> bool {
///     write!(stream.into_inner(), "hello {name}\n").is_ok()
/// }
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let pool = Pool::new(1)?;
/// assert!(pool.submit(delayed!(greet(Fd::new(theirs), "you"))).join()?);
/// let mut greeting = String::new();
/// (&ours).read_to_string(&mut greeting)?;
/// assert_eq!(greeting, "hello you\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fd<T> {
    inner: T,
    /// What travels beside the bytes, once it was encoded.
    segment: OnceLock<Arc<Segment>>,
}

impl<T> Fd<T> {
    /// Makes a descriptor ready to be given to tasks.
    #[must_use]
    pub fn new(inner: T) -> Self {
        Self { inner, segment: OnceLock::new() }
    }

    /// Returns the file or connection.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsFd> Fd<T> {
    /// Returns the segment with which a duplicate of the descriptor travels.
    fn segment(&self) -> io::Result<&Arc<Segment>> {
        if let Some(segment) = self.segment.get() {
            return Ok(segment);
        }
        let segment = Segment::of_descriptor(digest::<T>(), self.inner.as_fd().try_clone_to_owned()?)?;
        Ok(self.segment.get_or_init(|| segment))
    }
}

impl<T> From<T> for Fd<T> {
    fn from(inner: T) -> Self {
        Self::new(inner)
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for Fd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fd").field(&self.inner).finish()
    }
}

impl<T: AsFd> Serialize for Fd<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if mode() == Mode::Closed {
            return Err(ser::Error::custom("a descriptor can only be sent by the calls of procession"));
        }
        let refused = |why: &dyn fmt::Display| format!("a `{}` cannot be sent: {why}", type_name::<T>());
        let segment =
            self.segment().map_err(|error| ser::Error::custom(set_why(refused(&explained(error)))))?;
        let part = Part { segment, offset_bytes: 0, len_bytes: 0 };
        part.serialize_or(serializer, || {
            Err(refused(&"a descriptor has no contents, and it does not travel with these bytes"))
        })
    }
}

impl<'de, T: AsFd + From<OwnedFd>> Deserialize<'de> for Fd<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Decoded::Part { segment, .. } = handle::decode(deserializer)? else {
            return Err(de::Error::custom(set_why("a descriptor has no contents".to_owned())));
        };
        if segment.kind() != Kind::Descriptor || segment.digest() != digest::<T>() {
            let why = format!("the descriptor is not a `{}`", type_name::<T>());
            return Err(de::Error::custom(set_why(why)));
        }
        let own = segment.descriptor().and_then(|descriptor| descriptor.try_clone_to_owned());
        let own = own.map_err(|error| {
            de::Error::custom(set_why(format!("a `{}` cannot be received: {error}", type_name::<T>())))
        })?;
        Ok(Self::new(own.into()))
    }
}
