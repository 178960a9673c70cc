//! IDs. Each is a newtype, so that one is never used as another.

use std::fmt;

/// Returns whether sequence number `a` comes before `b`.
///
/// Each task that is sent to a worker has a sequence number, counted from 1. Numbers wrap around. At most a small part of their range
/// is in flight at a time, so the wrapping difference orders them.
pub(crate) fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// Returns whether a worker that has begun `begun` has begun `seq`.
pub(crate) fn has_begun(seq: u32, begun: u32) -> bool {
    !before(begun, seq)
}

/// A function's place in the table of this executable.
///
/// It is valid only together with the build identity that the handshake compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FunctionId(pub(crate) u32);

impl FunctionId {
    /// The bit of an ID that says that there are handles among the arguments.
    const HAS_HANDLES: u32 = 1 << 31;

    /// Returns the ID of the same function for a task with handles among its arguments.
    pub(crate) fn with_handles(self) -> Self {
        Self(self.0 | Self::HAS_HANDLES)
    }

    /// Returns whether there are handles among the arguments.
    #[inline]
    pub(crate) fn has_handles(self) -> bool {
        self.0 & Self::HAS_HANDLES != 0
    }

    /// Returns the ID of the same function for a task without handles, which is its place in the table.
    #[inline]
    pub(crate) fn without_handles(self) -> Self {
        Self(self.0 & !Self::HAS_HANDLES)
    }
}

/// The ID of a task. IDs are unique within a pool and increase in the order of submission.
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// let pool = Pool::new(1)?;
/// println!("{}", pool.submit(delayed!(square(7))).task_id());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// Returns the ID as a number.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// println!("{}", pool.submit(delayed!(square(7))).task_id().get());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A worker's place in its pool, from 0. A replacement takes the place of the worker that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId(pub(crate) u32);

impl WorkerId {
    /// A process for one function, which has no place in a pool.
    pub(crate) const ALONE: Self = Self(u32::MAX);
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
