//! Defines [`SharedAtomicU64`] and its relatives, numbers that processes change by one atomic operation.
#![expect(unsafe_code, reason = "atomics in shared memory")]

use std::{
    ops::Deref,
    sync::atomic::{
        AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    },
};

use super::{Handle, handle};
use crate::{
    error::Result,
    segment::{Repair, StateHandle},
};

macro_rules! atomic {
    ($name:ident, $text:literal, $atomic:ident, $value:ty) => {
        #[doc = concat!("An [`", stringify!($atomic), "`] that threads of all processes use.")]
        ///
        /// It dereferences to the type of std, which has all the operations. Handles can be arguments, results, and parts of other values. All
        /// clones are handles of the same number, which is freed with the last of them, wherever it is. A process that dies has done each operation
        /// or has not.
        ///
        /// The memory of a number is its own, in pages, and needs a descriptor in each process. For many numbers, use a
        /// [`SharedMutex`](crate::SharedMutex) of an array.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::sync::atomic::Ordering;
        ///
        #[doc = concat!("use procession::{", stringify!($name), ", Pool, parallel, worker};")]
        ///
        /// #[worker]
        #[doc = concat!("fn add(n: ", stringify!($value), ", total: &", stringify!($name), ") {")]
        ///     total.fetch_add(n, Ordering::Relaxed);
        /// }
        ///
        #[doc = concat!("let total = ", stringify!($name), "::new(1)?;")]
        /// let pool = Pool::new(2)?;
        /// parallel!(pool = &pool; add(n, &total) for n in 2..5)?;
        /// assert_eq!(total.load(Ordering::Relaxed), 10);
        /// # Ok::<(), procession::Error>(())
        /// ```
        pub struct $name {
            state: StateHandle,
        }

        impl $name {
            /// Makes a number.
            ///
            /// # Errors
            ///
            /// Memory cannot be shared here, or there is not enough.
            pub fn new(value: $value) -> Result<Self> {
                let number: Self = Handle::zeroed("a shared atomic number", size_of::<$atomic>())?;
                number.store(value, Ordering::Relaxed);
                Ok(number)
            }
        }

        impl Deref for $name {
            type Target = $atomic;

            #[inline]
            fn deref(&self) -> &$atomic {
                // SAFETY: the state is as long as a number, as `zeroed` made it or `fits` has checked, aligned to a page, and lives as long as
                // `self`. Any bytes are a valid number, and it is accessed only by atomic operations.
                unsafe { self.state.data().cast().as_ref() }
            }
        }

        impl Handle for $name {
            const REPAIR: Option<Repair> = None;

            fn fits(len_bytes: usize) -> bool {
                len_bytes == size_of::<$atomic>()
            }

            fn of(state: StateHandle) -> Self {
                Self { state }
            }

            fn state(&self) -> &StateHandle {
                &self.state
            }
        }

        handle!([] $name, $text);
    };
}

atomic!(SharedAtomicU32, "SharedAtomicU32", AtomicU32, u32);
atomic!(SharedAtomicU64, "SharedAtomicU64", AtomicU64, u64);
atomic!(SharedAtomicUsize, "SharedAtomicUsize", AtomicUsize, usize);
atomic!(SharedAtomicI32, "SharedAtomicI32", AtomicI32, i32);
atomic!(SharedAtomicI64, "SharedAtomicI64", AtomicI64, i64);
atomic!(SharedAtomicIsize, "SharedAtomicIsize", AtomicIsize, isize);

/// A boolean that threads of all processes use, with the operations of [`AtomicBool`](std::sync::atomic::AtomicBool).
///
/// Handles are as those of [`SharedAtomicU64`].
///
/// # Examples
///
/// ```
/// use std::sync::atomic::Ordering;
///
/// let found = procession::SharedAtomicBool::new(false)?;
/// assert!(!found.swap(true, Ordering::Relaxed));
/// assert!(found.load(Ordering::Relaxed));
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedAtomicBool {
    state: StateHandle,
}

macro_rules! change {
    ($name:ident, $text:literal) => {
        #[doc = concat!("Stores ", $text, ". Returns the previous value.")]
        #[inline]
        pub fn $name(&self, value: bool, order: Ordering) -> bool {
            self.byte().$name(value.into(), order) != 0
        }
    };
}

impl SharedAtomicBool {
    /// Makes a boolean.
    ///
    /// # Errors
    ///
    /// Memory cannot be shared here, or there is not enough.
    pub fn new(value: bool) -> Result<Self> {
        let boolean: Self = Handle::zeroed("a shared atomic boolean", 1)?;
        boolean.store(value, Ordering::Relaxed);
        Ok(boolean)
    }

    #[inline]
    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the state has a byte, as `new` made it or `fits` has checked, and lives as long as `self`. Any byte is a valid number, and it is
        // accessed only by atomic operations.
        unsafe { self.state.data().cast().as_ref() }
    }

    /// Returns the value.
    #[inline]
    #[must_use]
    pub fn load(&self, order: Ordering) -> bool {
        self.byte().load(order) != 0
    }

    /// Stores a value.
    #[inline]
    pub fn store(&self, value: bool, order: Ordering) {
        self.byte().store(value.into(), order);
    }

    change!(swap, "the value");
    change!(fetch_and, "whether this value and the previous one are true");
    change!(fetch_or, "whether this value or the previous one is true");
    change!(fetch_xor, "whether this value differs from the previous one");

    /// Stores `new` if the value is `current`. Returns the previous value.
    ///
    /// # Errors
    ///
    /// The value is not `current`. The error contains it.
    pub fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        let changed = self.byte().compare_exchange(current.into(), new.into(), success, failure);
        changed.map(|previous| previous != 0).map_err(|value| value != 0)
    }
}

impl Handle for SharedAtomicBool {
    const REPAIR: Option<Repair> = None;

    fn fits(len_bytes: usize) -> bool {
        len_bytes == 1
    }

    fn of(state: StateHandle) -> Self {
        Self { state }
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }
}

handle!([] SharedAtomicBool, "SharedAtomicBool");
