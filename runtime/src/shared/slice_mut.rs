//! Defines [`SharedSliceMut`], elements that workers write where they are, and [`Part`], a part of one that is lent to a task.

use std::{
    fmt, io,
    iter::FusedIterator,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{
    SharedSlice,
    handle::{self, Decoded, Handle},
};
use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::{Claim, LentRange, Mode, PartMut, To, digest, mode, set_why},
};

/// Elements of plain data in memory that workers write and the caller reads. They are never copied to a worker or back.
///
/// Elements can be of any type that is [`bytemuck::Pod`]: numbers, arrays of them, and structs for which it is derived.
///
/// A function with a parameter `&mut [T]` writes into the slice that it is given. In a call that goes to a worker, that argument is a part of
/// a `SharedSliceMut`: a [`Part`], or the whole slice as `&mut slice`. The borrow checker ensures that the parts of a call do not overlap, and
/// a call returns, fails or unwinds only when its parts are back. Every other use of the function, on a thread or in a test, takes any slice.
///
/// A task with a [`Handle`](crate::Handle) may run longer than the part was borrowed. While a part is lent, an access to its elements panics with
/// the name of the function. It is back when the task has its outcome. If a task fails, its part may have been written in part.
///
/// A `SharedSliceMut` can also be moved to a task, as an argument of that type or as a part of another value, and be its result. The slice
/// then belongs to the task until it is returned, and is lost if the task fails. It is not copied on the way.
///
/// A task that is retried after its worker has died has the same elements again, as the first attempt has left them. A function that only
/// assigns them may be retried; one that adds to them would add twice.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedSlice, SharedSliceMut, parallel, worker};
///
/// #[worker]
/// fn brighten(source: &[u8], by: u8, target: &mut [u8]) {
///     for (to, from) in target.iter_mut().zip(source) {
///         *to = from.saturating_add(by);
///     }
/// }
///
/// let pixels = SharedSlice::from_iter(1000, (0..).map(|n| n as u8))?;
/// let mut brighter = SharedSliceMut::zeroed(1000)?;
/// let pool = Pool::new(2)?;
/// let parts = pixels.chunks(300).zip(brighter.chunks_mut(300));
/// parallel!(pool = &pool; brighten(source, 100, part) for (source, part) in parts)?;
/// assert_eq!((brighter[0], brighter[200]), (100, 255));
/// let brighter: SharedSlice<u8> = brighter.freeze();
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedSliceMut<T> {
    claim: Claim,
    of: PhantomData<T>,
}

/// A part of a [`SharedSliceMut`], which can be lent to one task.
///
/// It is what a parameter `&mut [T]` takes in a call that goes to a worker. It is moved into the call, so it cannot be used a second time.
/// Until then it can be read and written as the slice that it is.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedSliceMut, parallel, worker};
///
/// #[worker]
/// fn double(numbers: &mut [u64]) {
///     numbers.iter_mut().for_each(|number| *number *= 2);
/// }
///
/// let mut numbers = SharedSliceMut::from_slice(&[1, 2, 3, 4])?;
/// let (mut left, right) = numbers.split_at_mut(1);
/// left[0] = 10;
/// let pool = Pool::new(2)?;
/// parallel!(pool = &pool; double(left), double(right))?;
/// assert_eq!(*numbers, [20, 4, 6, 8]);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Part<'a, T> {
    part: PartMut<'a>,
    of: PhantomData<&'a mut [T]>,
}

/// Iterates over parts of equal length. Created by [`SharedSliceMut::chunks_mut`].
pub struct ChunksMut<'a, T> {
    /// The rest.
    part: Option<Part<'a, T>>,
    chunk: usize,
}

fn failed(error: io::Error) -> Error {
    Error::system("memory for a shared slice that can be changed cannot be made", error)
}

impl<T: Pod> SharedSliceMut<T> {
    /// Makes `len` elements, all zero.
    ///
    /// # Errors
    ///
    /// There is not enough memory, or processes cannot share memory here.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut grid = procession::SharedSliceMut::<f64>::zeroed(100)?;
    /// grid[42] = 1.5;
    /// assert_eq!(grid.iter().sum::<f64>(), 1.5);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn zeroed(len: usize) -> Result<Self> {
        const { assert!(size_of::<T>() > 0, "elements without bytes cannot be shared: share their number") };
        let len_bytes = len.checked_mul(size_of::<T>());
        let len_bytes = len_bytes.ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        Claim::new(digest::<T>(), len_bytes, size_of::<T>()).map(Self::of).map_err(failed)
    }

    /// Copies elements into memory that workers can write.
    ///
    /// # Errors
    ///
    /// There is not enough memory, or processes cannot share memory here.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut primes = procession::SharedSliceMut::from_slice(&[2_u32, 3, 5, 8])?;
    /// primes[3] -= 1;
    /// assert_eq!(*primes, [2, 3, 5, 7]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let mut slice = Self::zeroed(elements.len())?;
        slice.copy_from_slice(elements);
        Ok(slice)
    }

    fn of(claim: Claim) -> Self {
        Self { claim, of: PhantomData }
    }

    /// Borrows all of the elements as one part.
    fn part(&mut self) -> Part<'_, T> {
        Part { part: self.claim.part(), of: PhantomData }
    }

    /// Returns an iterator over parts of `len` elements each. The last one has the rest.
    ///
    /// # Panics
    ///
    /// Panics if `len` is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, SharedSliceMut, parallel, worker};
    ///
    /// #[worker]
    /// fn fill(part: &mut [u8], with: u8) {
    ///     part.fill(with);
    /// }
    ///
    /// let mut bytes = SharedSliceMut::zeroed(5)?;
    /// let pool = Pool::new(2)?;
    /// parallel!(pool = &pool; fill(part, n) for (n, part) in (1..).zip(bytes.chunks_mut(2)))?;
    /// assert_eq!(*bytes, [1, 1, 2, 2, 3]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn chunks_mut(&mut self, len: usize) -> ChunksMut<'_, T> {
        assert!(len > 0, "the parts of a shared slice have at least one element");
        ChunksMut { part: Some(self.part()).filter(|part| !part.is_empty()), chunk: len }
    }

    /// Returns two parts, the second of which begins at the element `at`.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer elements.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut numbers = procession::SharedSliceMut::from_slice(&[1, 2, 3])?;
    /// let (mut left, right) = numbers.split_at_mut(1);
    /// left[0] = right[1];
    /// assert_eq!(*numbers, [3, 2, 3]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn split_at_mut(&mut self, at: usize) -> (Part<'_, T>, Part<'_, T>) {
        self.part().split_at(at)
    }

    /// Makes two slices of this one, the second of which begins at the element `at`. [`rejoin`](Self::rejoin) is the opposite.
    ///
    /// The halves can be moved to tasks, or lent to tasks with handles, independently of each other.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer elements, or if some of them are lent.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::SharedSliceMut;
    ///
    /// let (mut left, right) = SharedSliceMut::from_slice(&[1, 2, 3])?.split_at(1);
    /// left[0] = right[1];
    /// assert_eq!(*SharedSliceMut::rejoin([left, right])?, [3, 2, 3]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        let (left, right) = self.claim.split(at.saturating_mul(size_of::<T>()));
        (Self::of(left), Self::of(right))
    }

    /// Makes one slice of several, in this order. Those that [`split_at`](Self::split_at) has made of one are not copied.
    ///
    /// # Errors
    ///
    /// Some must be copied, and there is not enough memory.
    ///
    /// # Panics
    ///
    /// Panics if some of the elements are lent.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::SharedSliceMut;
    ///
    /// let (left, right) = SharedSliceMut::from_slice(&[1, 2, 3])?.split_at(1);
    /// assert_eq!(*SharedSliceMut::rejoin([right, left])?, [2, 3, 1]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn rejoin(parts: impl IntoIterator<Item = Self>) -> Result<Self> {
        let mut joined: Vec<Claim> = Vec::new();
        for Self { claim, .. } in parts {
            match joined.pop() {
                None => joined.push(claim),
                Some(last) => match last.join(claim) {
                    Ok(both) => joined.push(both),
                    Err((last, claim)) => joined.extend([last, claim]),
                },
            }
        }
        if joined.len() == 1 {
            return Ok(Self::of(joined.remove(0)));
        }
        let len_bytes: usize = joined.iter().map(|claim| claim.bytes().len()).sum();
        let mut all = Self::zeroed(len_bytes / size_of::<T>())?;
        let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
        for claim in joined {
            let (first, others) = rest.split_at_mut(claim.bytes().len());
            first.copy_from_slice(claim.bytes());
            rest = others;
        }
        Ok(all)
    }

    /// Makes a [`SharedSlice`] of the elements, which cannot be changed any more, without a copy.
    ///
    /// Processes then refuse to write to the memory, and workers that have written to it give up the mapping by which they did. A half that
    /// [`split_at`](Self::split_at) has made is copied.
    ///
    /// # Panics
    ///
    /// Panics if some of the elements are lent, or if there is not enough memory or address space.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{SharedSlice, SharedSliceMut};
    ///
    /// let mut squares = SharedSliceMut::zeroed(4)?;
    /// (0_u64..).zip(&mut *squares).for_each(|(n, square)| *square = n * n);
    /// let squares: SharedSlice<u64> = squares.freeze();
    /// assert_eq!(*squares, [0, 1, 4, 9]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn freeze(self) -> SharedSlice<T> {
        let frozen = match self.claim.freeze() {
            Ok(segment) => segment.map(SharedSlice::of).map_err(failed),
            Err(claim) => SharedSlice::from_slice(bytemuck::cast_slice(claim.bytes())),
        };
        frozen.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<T: Pod> Deref for SharedSliceMut<T> {
    type Target = [T];

    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.claim.bytes())
    }
}

impl<T: Pod> DerefMut for SharedSliceMut<T> {
    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.claim.part().into_bytes())
    }
}

impl<'a, T: Pod> Part<'a, T> {
    /// Makes two parts of this one, the second of which begins at the element `at`.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer elements.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut numbers = procession::SharedSliceMut::from_slice(&[1, 2, 3])?;
    /// let (_, right) = numbers.split_at_mut(1);
    /// let (middle, last) = right.split_at(1);
    /// assert_eq!((middle[0], last[0]), (2, 3));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        let len = self.len();
        assert!(at <= len, "a shared slice of {len} elements cannot be split at {at}");
        let (left, right) = self.part.split(at * size_of::<T>());
        (Self { part: left, of: PhantomData }, Self { part: right, of: PhantomData })
    }

    /// Returns the number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.part.len_bytes() / size_of::<T>()
    }

    /// Returns whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Pod> Deref for Part<'_, T> {
    type Target = [T];

    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.part.bytes())
    }
}

impl<T: Pod> DerefMut for Part<'_, T> {
    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.part.bytes_mut())
    }
}

impl<'a, T: Pod> Iterator for ChunksMut<'a, T> {
    type Item = Part<'a, T>;

    fn next(&mut self) -> Option<Part<'a, T>> {
        let part = self.part.take()?;
        if part.len() <= self.chunk {
            return Some(part);
        }
        let (first, rest) = part.split_at(self.chunk);
        self.part = Some(rest);
        Some(first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.part.as_ref().map_or(0, |part| part.len().div_ceil(self.chunk));
        (left, Some(left))
    }
}

impl<T: Pod> ExactSizeIterator for ChunksMut<'_, T> {}
impl<T: Pod> FusedIterator for ChunksMut<'_, T> {}

/// What a parameter `&mut [T]` takes in a call that goes to a worker: a [`Part`], or a whole [`SharedSliceMut`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be lent to a worker",
    label = "this is not a part of a `SharedSliceMut<{T}>`",
    note = "a worker can write only into memory that it shares with the caller: make a `procession::SharedSliceMut`, and \
            give one of its `chunks_mut` or all of it, as `&mut slice`"
)]
pub trait LendMut<T> {
    #[doc(hidden)]
    fn lend(self, function: &'static str) -> LentRange;
}

impl<T: Pod> LendMut<T> for Part<'_, T> {
    fn lend(self, function: &'static str) -> LentRange {
        self.part.lend(function)
    }
}

impl<T: Pod> LendMut<T> for &mut SharedSliceMut<T> {
    fn lend(self, function: &'static str) -> LentRange {
        self.part().lend(function)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedSliceMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSliceMut").field(&&**self).finish()
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Part<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&&**self).finish()
    }
}

impl<T> fmt::Debug for ChunksMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunksMut").field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

impl<T: Pod> Serialize for SharedSliceMut<T> {
    /// Moves the slice to the task or to its caller, who can have it only after this one was dropped.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refused = |why: String| ser::Error::custom(set_why(why));
        match mode() {
            Mode::Closed => {
                let why =
                    "shared memory can only be sent by the calls of procession: encode its contents instead";
                Err(refused(why.to_owned()))
            }
            Mode::Attach { to, .. } if to != To::Reader => {
                self.claim.attach().map_err(refused)?;
                let (segment, range) = self.claim.place();
                let (id, offset_bytes, len_bytes) = (segment.id(), range.start, range.len());
                Handle::Part { id, offset_bytes, len_bytes }.serialize(serializer)
            }
            Mode::Attach { .. } | Mode::Inline => {
                Handle::Contents(Bytes(self.claim.bytes())).serialize(serializer)
            }
        }
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedSliceMut<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = |why: String| de::Error::custom(set_why(why));
        let size = size_of::<T>().max(1);
        match handle::decode(deserializer)? {
            Decoded::Part { segment, offset_bytes, len_bytes } => {
                let is_ours = segment.digest() == digest::<T>();
                if !is_ours || offset_bytes % size != 0 || len_bytes % size != 0 {
                    return Err(refused("the shared slice has other elements".to_owned()));
                }
                let range = offset_bytes..offset_bytes + len_bytes;
                Claim::of(segment, range, size).map(Self::of).map_err(refused)
            }
            Decoded::Contents(bytes) => {
                let mut slice =
                    Self::zeroed(bytes.len() / size).map_err(|error| refused(error.to_string()))?;
                let to: &mut [u8] = bytemuck::cast_slice_mut(&mut slice);
                if to.len() != bytes.len() {
                    return Err(refused("the shared slice has other elements".to_owned()));
                }
                to.copy_from_slice(bytes);
                Ok(slice)
            }
        }
    }
}
