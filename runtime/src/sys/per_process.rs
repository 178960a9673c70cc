//! Values of which each process makes its own. A copy of a process (`fork`) does not touch what it has inherited: the numbers of
//! descriptors and processes may mean something else there, and locks held by other threads stay locked forever.
//!
//! The engines of pools and processes, and the count of our threads are such values. An inherited value is leaked, never dropped.
#![expect(unsafe_code, reason = "references to values that live as long as what holds them")]

use std::{
    fmt,
    marker::PhantomData,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use super::generation::generation;

/// A value of this process. A value that a copy has inherited is never read and never dropped.
pub(crate) struct PerProcess<T>(AtomicPtr<ProcessValue<T>>, PhantomData<T>);

struct ProcessValue<T> {
    /// The generation of the process that made the value.
    generation: u32,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// Creates an empty one.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()), PhantomData)
    }

    /// Returns this process's value, if it has one. Takes no lock.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // SYNC(per-process): pairs with the exchange in `get_or_init`.
        let slot = self.0.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw`, written before it was published. While `self` is borrowed nothing frees it: what is
        // replaced is leaked.
        let slot = unsafe { slot.as_ref() }?;
        (slot.generation == generation()).then_some(&slot.value)
    }

    /// Returns this process's value and makes it if there is none. If two threads make one at the same time, one of the values is
    /// dropped.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        // The present value belongs to another process, or another thread has just stored it.
        let before = self.0.load(Ordering::Relaxed);
        let value = make();
        if let Some(value) = self.get() {
            return value;
        }
        let made = Box::into_raw(Box::new(ProcessValue { generation: generation(), value }));
        // SYNC(per-process): pairs with the Acquire load in `get`, and with itself where two threads come at once.
        if self.0.compare_exchange(before, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: it comes from `Box::into_raw` just above, and no other code has seen it.
            drop(unsafe { Box::from_raw(made) });
        }
        self.get().expect("it is this process's own, and stays as long as this is borrowed")
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let slot = *self.0.get_mut();
        // SAFETY: as in `get`; what is exclusively borrowed is not replaced meanwhile.
        let is_own = unsafe { slot.as_ref() }.is_some_and(|slot| slot.generation == generation());
        if is_own {
            // SAFETY: it comes from `Box::into_raw`, and there is no reference to it, because references borrow `self`.
            drop(unsafe { Box::from_raw(slot) });
        }
    }
}

impl<T: fmt::Debug + Send + Sync> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerProcess").field(&self.get()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn a_value_is_made_once_seen_by_all_and_dropped() {
        let value = Arc::new(7);
        let own = PerProcess::new();
        assert!(own.get().is_none());
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(**own.get_or_init(|| value.clone()), 7);
                });
            }
        });
        assert_eq!(Arc::strong_count(&value), 2, "all but one of those that were made are dropped");
        assert!(own.get().is_some());
        drop(own);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
