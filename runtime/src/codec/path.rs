//! Encodes paths that are not valid UTF-8, for fields of arguments and results.
//!
//! serde refuses a path that is not valid UTF-8. With `#[serde(with = "procession::path")]`, a field may hold any path, or paths in an
//! `Option`, `Vec` or `Result`. A `PathBuf` that is itself an argument or a result does not need this module.
//!
//! # Examples
//!
//! ```
//! use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};
//!
//! use procession::{delayed, worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Found {
//!     #[serde(with = "procession::path")]
//!     file: PathBuf,
//!     #[serde(with = "procession::path")]
//!     links: Vec<PathBuf>,
//! }
//!
//! #[worker]
//! fn find(folder: PathBuf) -> Found {
//!     Found { links: vec![folder.join("link")], file: folder }
//! }
//!
//! let folder = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff"));
//! let found = delayed!(find(folder.clone())).call()?;
//! assert_eq!((found.links[0].parent(), &found.file), (Some(&*folder), &folder));
//! # Ok::<(), procession::TaskError>(())
//! ```

use std::{
    any::Any,
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use crate::error::RemoteError;

/// Serializes paths that contain arbitrary bytes. Used by `#[serde(with = "procession::path")]`.
///
/// # Errors
///
/// Returns the errors of the serializer.
pub fn serialize<P: Paths, S: Serializer>(paths: &P, serializer: S) -> Result<S::Ok, S::Error> {
    paths.serialize_paths(serializer)
}

/// Deserializes paths that contain arbitrary bytes. Used by `#[serde(with = "procession::path")]`.
///
/// # Errors
///
/// Returns the errors of the deserializer.
pub fn deserialize<'de, P: Paths, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    P::deserialize_paths(deserializer)
}

/// Types that consist of paths: `PathBuf`, and `Option`, `Vec` and `Result` of such types.
pub trait Paths: Sized {
    #[doc(hidden)]
    fn serialize_paths<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    #[doc(hidden)]
    fn deserialize_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

impl Paths for PathBuf {
    fn serialize_paths<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_os_str().as_bytes())
    }

    fn deserialize_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = PathBuf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a path")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<PathBuf, E> {
                Ok(OsStr::from_bytes(bytes).into())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<PathBuf, E> {
                Ok(OsString::from_vec(bytes).into())
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

impl<P: Paths> Paths for Option<P> {
    fn serialize_paths<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Lent).serialize(serializer)
    }

    fn deserialize_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(|Owned(paths)| paths))
    }
}

impl<P: Paths> Paths for Vec<P> {
    fn serialize_paths<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Lent))
    }

    fn deserialize_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().map(|Owned(paths)| paths).collect())
    }
}

impl<P: Paths, E: Serialize + for<'de> Deserialize<'de>> Paths for Result<P, E> {
    fn serialize_paths<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Lent).serialize(serializer)
    }

    fn deserialize_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Result::deserialize(deserializer)?.map(|Owned(paths)| paths))
    }
}

/// Encodes as [`Paths`].
pub(super) struct Lent<'a, P>(pub(super) &'a P);

impl<P: Paths> Serialize for Lent<'_, P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_paths(serializer)
    }
}

/// Decodes as [`Paths`].
pub(super) struct Owned<P>(pub(super) P);

impl<'de, P: Paths> Deserialize<'de> for Owned<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        P::deserialize_paths(deserializer).map(Self)
    }
}

/// Calls a macro with the types of results that are paths. Their encoding is the same as serde's, for all paths that serde can
/// encode.
macro_rules! with_path_types {
    ($then:ident) => {
        $then! {
            PathBuf, Option<PathBuf>, Vec<PathBuf>, Result<PathBuf, RemoteError>, Result<Option<PathBuf>, RemoteError>,
            Result<Vec<PathBuf>, RemoteError>
        }
    };
}

/// Encodes a value if its type consists of paths, which is known at compile time.
#[inline(always)]
pub(super) fn encode_as_paths<T: 'static, B: super::Buffer>(
    value: &T,
    out: &mut B,
) -> Option<Result<(), String>> {
    macro_rules! encode {
        ($($paths:ty),*) => { $(
            if let Some(paths) = (value as &dyn Any).downcast_ref::<$paths>() {
                return Some(super::encode(&Lent(paths), out));
            }
        )* };
    }
    with_path_types!(encode);
    None
}

/// Decodes a value if its type consists of paths, which is known at compile time.
#[inline(always)]
pub(super) fn decode_as_paths<T: 'static>(bytes: &[u8]) -> Option<Result<T, String>> {
    let mut slot: Option<T> = None;
    macro_rules! decode {
        ($($paths:ty),*) => { $(
            if let Some(slot) = (&mut slot as &mut dyn Any).downcast_mut::<Option<$paths>>() {
                match super::decode::<Owned<$paths>>(bytes) {
                    Ok(Owned(paths)) => *slot = Some(paths),
                    Err(words) => return Some(Err(words)),
                }
            }
        )* };
    }
    with_path_types!(decode);
    slot.map(Ok)
}
