//! Defines [`SharedSlice`], elements that processes use where they are.
#![expect(unsafe_code, reason = "`map_file`, whose caller promises that the file does not change")]

use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, Read as _, Write as _},
    marker::PhantomData,
    ops::{Deref, RangeBounds},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use bytemuck::Pod;
use nix::fcntl::OFlag;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::handle::{self, Decoded, Part};
use crate::{
    error::{Error, Result},
    segment::{Attachments, Draft, Kind, Segment, digest, set_why},
};

/// The number of elements that are collected before they are written.
const CHUNK_BYTES: usize = 64 << 10;

/// Elements of plain data in memory that workers map. They are never copied to a worker, whatever their number.
///
/// Elements can be of any type that is [`bytemuck::Pod`]: numbers, arrays of them, and structs for which it is derived. They cannot be changed.
/// Clones and [slices](Self::slice) share the same memory, which is freed with the last of them, wherever it is.
///
/// A function does not notice: where it takes a `&[T]`, its callers may give a `&SharedSlice<T>`, or any part of one. A `SharedSlice` can
/// also be a parameter or a part of other values, and a result.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedSlice, parallel, worker};
///
/// #[worker]
/// fn sum(samples: &[f32]) -> f32 {
///     samples.iter().sum()
/// }
///
/// let samples = SharedSlice::from_iter(10_000, (0..).map(|n| n as f32))?;
/// let pool = Pool::new(2)?;
/// let sums = parallel!(pool = &pool; sum(part) for part in samples.chunks(2500))?;
/// assert_eq!(sums.len(), 4);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedSlice<T> {
    segment: Arc<Segment>,
    /// Where it begins among the segment's elements.
    start: usize,
    len: usize,
    of: PhantomData<fn() -> T>,
}

fn failed(error: io::Error) -> Error {
    Error::system("memory for a shared slice cannot be made", error)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::system(format!("{} cannot be shared", path.display()), error)
}

fn wrong(path: &Path, words: String) -> Error {
    unreadable(path, io::Error::new(io::ErrorKind::InvalidData, words))
}

/// Opens a file of elements. Returns its length, too.
fn open<T>(path: &Path) -> Result<(File, usize)> {
    const { assert!(size_of::<T>() > 0, "elements without bytes cannot be shared: share their number") };
    // A FIFO would be waited for.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let mut file = file.map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    if !metadata.is_file() {
        return Err(wrong(path, "it is not a regular file".to_owned()));
    }
    let too_large = |_| unreadable(path, io::ErrorKind::OutOfMemory.into());
    let (len_bytes, size) = (usize::try_from(metadata.len()).map_err(too_large)?, size_of::<T>());
    if len_bytes % size != 0 {
        return Err(wrong(
            path,
            format!("its {len_bytes} bytes are not a number of elements of {size} bytes"),
        ));
    }
    if len_bytes == 0 && file.read(&mut [0]).map_err(|error| unreadable(path, error))? > 0 {
        return Err(wrong(
            path,
            "its length is not known before it is read, so share what is read from it".to_owned(),
        ));
    }
    Ok((file, len_bytes))
}

impl<T: Pod> SharedSlice<T> {
    fn draft(len: usize) -> Result<Draft> {
        const { assert!(size_of::<T>() > 0, "elements without bytes cannot be shared: share their number") };
        let too_many = || failed(io::ErrorKind::OutOfMemory.into());
        let len_bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_many)?;
        Draft::new(Kind::Slice, digest::<T>(), len_bytes).map_err(failed)
    }

    fn finish(draft: Draft) -> Result<Self> {
        draft.finish(Attachments::default()).map(Self::of).map_err(failed)
    }

    pub(super) fn of(segment: Arc<Segment>) -> Self {
        let len = segment.data().len().checked_div(size_of::<T>()).unwrap_or(0);
        Self { segment, start: 0, len, of: PhantomData }
    }

    /// Copies elements into memory that is to be shared.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    ///
    /// # Examples
    ///
    /// ```
    /// let primes = procession::SharedSlice::from_slice(&[2_u32, 3, 5, 7])?;
    /// assert_eq!(primes.iter().sum::<u32>(), 17);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let mut draft = Self::draft(elements.len())?;
        draft.write_all(bytemuck::cast_slice(elements)).map_err(failed)?;
        Self::finish(draft)
    }

    /// Writes the first `len` elements of an iterator into memory that is to be shared. If there are fewer, the others are zero.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    ///
    /// # Examples
    ///
    /// ```
    /// let squares = procession::SharedSlice::from_iter(4, (0_u64..).map(|n| n * n))?;
    /// assert_eq!(*squares, [0, 1, 4, 9]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn from_iter(len: usize, elements: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut draft = Self::draft(len)?;
        let mut elements = elements.into_iter().take(len);
        let most = (CHUNK_BYTES / size_of::<T>().max(1)).max(1);
        let mut chunk = Vec::with_capacity(most.min(len));
        loop {
            chunk.clear();
            chunk.extend(elements.by_ref().take(most));
            if chunk.is_empty() {
                return Self::finish(draft);
            }
            draft.write_all(bytemuck::cast_slice(&chunk)).map_err(failed)?;
        }
    }

    /// Copies a file of elements into memory that is to be shared. The kernel copies it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, its length is not a multiple of an element's, or there is not enough memory.
    ///
    /// # Examples
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("procession-{}", std::process::id()));
    /// std::fs::write(&path, [1, 0, 2, 0])?;
    /// let numbers = procession::SharedSlice::<u16>::from_file(&path)?;
    /// assert_eq!(*numbers, [u16::from_le(1), u16::from_le(2)]);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut file, len_bytes) = open::<T>(path)?;
        let mut draft = Self::draft(len_bytes / size_of::<T>())?;
        // One byte more would show that it grows.
        let copied = draft.copy_from(&mut file, len_bytes as u64 + 1);
        if copied.map_err(|error| unreadable(path, error))? != len_bytes as u64 {
            return Err(wrong(path, format!("it had {len_bytes} bytes and changed while it was read")));
        }
        Self::finish(draft)
    }

    /// Maps a file of elements, for data that is larger than memory. Nothing is copied: the processes that use a part of it read that part from
    /// the disk, and share what was read.
    ///
    /// Workers are given the file itself, so it may be deleted while they use it. In a result, a message or a managed value, a slice of a
    /// file is sent as a copy, because its receiver must not rely on a file that another process can change.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or mapped, or its length is not a multiple of an element's.
    ///
    /// # Safety
    ///
    /// Nothing may change the contents of the file, or make it shorter, while a process has the slice, one of its clones, or a part of it. A worker may
    /// have it as long as the caller does, and for a moment longer. Otherwise elements change while they are borrowed, which is undefined
    /// behaviour, or accessing them ends the process with SIGBUS. So does an error of the disk.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, SharedSlice, parallel, worker};
    ///
    /// #[worker]
    /// fn count_lines(text: &[u8]) -> usize {
    ///     text.iter().filter(|&&byte| byte == b'\n').count()
    /// }
    ///
    /// # let path = std::env::temp_dir().join(format!("procession-map-{}", std::process::id()));
    /// # std::fs::write(&path, "line\n".repeat(1000))?;
    /// // SAFETY: nothing writes to this file any more.
    /// let log = unsafe { SharedSlice::<u8>::map_file(&path) }?;
    /// # std::fs::remove_file(&path)?;
    /// let pool = Pool::new(2)?;
    /// let counts = parallel!(pool = &pool; count_lines(part) for part in log.chunks(2048))?;
    /// assert_eq!(counts.iter().sum::<usize>(), 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn map_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, len_bytes) = open::<T>(path)?;
        if len_bytes == 0 {
            return Self::zeroed(0);
        }
        // SAFETY: by this function's conditions.
        let mapped = unsafe { Segment::of_file(digest::<T>(), file.into(), len_bytes) };
        mapped.map(Self::of).map_err(|error| unreadable(path, error))
    }

    /// Makes `len` elements, all zero.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    ///
    /// # Examples
    ///
    /// ```
    /// let silence = procession::SharedSlice::<i16>::zeroed(48_000)?;
    /// assert!(silence.iter().all(|&sample| sample == 0));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn zeroed(len: usize) -> Result<Self> {
        Self::finish(Self::draft(len)?)
    }

    /// Returns a handle of some of the elements.
    ///
    /// # Panics
    ///
    /// Panics if the range goes beyond the end.
    ///
    /// # Examples
    ///
    /// ```
    /// let primes = procession::SharedSlice::from_slice(&[2_u32, 3, 5, 7])?;
    /// assert_eq!(*primes.slice(1..3), [3, 5]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        // Panics with the words of std.
        let part = &self[(range.start_bound().cloned(), range.end_bound().cloned())];
        let start = (part.as_ptr().addr() - self.as_ptr().addr()) / size_of::<T>();
        Self { segment: self.segment.clone(), start: self.start + start, len: part.len(), of: PhantomData }
    }

    fn part(&self) -> Part<'_> {
        let size = size_of::<T>();
        Part { segment: &self.segment, offset_bytes: self.start * size, len_bytes: self.len * size }
    }
}

impl<T> Clone for SharedSlice<T> {
    /// Returns another handle of the same elements.
    fn clone(&self) -> Self {
        Self { segment: self.segment.clone(), start: self.start, len: self.len, of: PhantomData }
    }
}

impl<T: Pod> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // The data begins at a page, so it is aligned.
        let Part { segment, offset_bytes, len_bytes } = self.part();
        bytemuck::cast_slice(&segment.data()[offset_bytes..][..len_bytes])
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSlice").field(&&**self).finish()
    }
}

impl<T: Pod> Serialize for SharedSlice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Part { segment, offset_bytes, len_bytes } = self.part();
        let contents = || Ok(Cow::Borrowed(&segment.data()[offset_bytes..][..len_bytes]));
        self.part().serialize_or(serializer, contents)
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let size = size_of::<T>().max(1);
        let wrong = || de::Error::custom(set_why("the shared slice has other elements".to_owned()));
        let refused = |error: Error| de::Error::custom(set_why(error.to_string()));
        match handle::decode(deserializer)? {
            Decoded::Part { segment, offset_bytes, len_bytes } => {
                let is_ours = segment.kind() == Kind::Slice && segment.digest() == digest::<T>();
                if !is_ours || offset_bytes % size != 0 || len_bytes % size != 0 {
                    return Err(wrong());
                }
                Ok(Self { segment, start: offset_bytes / size, len: len_bytes / size, of: PhantomData })
            }
            Decoded::Contents(bytes) => {
                if bytes.len() % size != 0 {
                    return Err(wrong());
                }
                let mut draft = Self::draft(bytes.len() / size).map_err(refused)?;
                draft.write_all(bytes).map_err(|error| refused(failed(error)))?;
                Self::finish(draft).map_err(refused)
            }
        }
    }
}
