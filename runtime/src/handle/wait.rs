//! Defines what a waiting thread does: [`Drive`] drives the source of results meanwhile, and [`Wakes`] collects the waiters to
//! wake.
//!
//! A driver implements [`Drive`], and so does what runs a function on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
    thread::Thread,
    time::Instant,
};

#[cfg(feature = "tracing")]
use crate::caller::Caller;
use crate::{id::TaskId, sys::generation::generation};

/// The waiters to wake after the pool was unlocked.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    threads: Vec<Thread>,
    wakers: Vec<Waker>,
    /// The callers of tasks that have ended. Their spans belong to a subscriber, so they are dropped while no lock is held.
    #[cfg(feature = "tracing")]
    pub(super) callers: Vec<Caller>,
}

impl Wakes {
    pub(crate) fn add(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Thread(thread) => self.threads.push(thread),
            Waiter::Waker(waker) => self.wakers.push(waker),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(feature = "tracing")]
        if !self.callers.is_empty() {
            return false;
        }
        self.threads.is_empty() && self.wakers.is_empty()
    }

    pub(crate) fn wake_all(self) {
        let original = generation();
        self.threads.into_iter().for_each(|thread| thread.unpark());
        let mut wakers = self.wakers.into_iter();
        while let Some(waker) = wakers.next() {
            // An executor that panics when it is woken must not prevent the wake-up of others.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            if generation() != original {
                // The waker has copied this process, and the others are the original's to wake.
                std::mem::forget(wakers);
                #[cfg(feature = "tracing")]
                std::mem::forget(self.callers);
                return;
            }
        }
        // The last of them drops its subscriber, which is code of users.
        #[cfg(feature = "tracing")]
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.callers)));
    }
}

/// A waiter for a result that another thread produces.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A thread that lets another one drive.
    Thread(Thread),
    /// A future or a stream.
    Waker(Waker),
}

/// Produces results while threads wait for them.
pub(crate) trait Drive: Send + Sync {
    /// Works on the exchange, or waits for the thread that does, until `ready` or the deadline. Returns whether it is ready.
    /// Returns `false` at once in a copy of the process that it belongs to.
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool;

    /// Does the work that is available now, unless another thread is doing it. Does not wait.
    fn poll_once(&self) {}

    /// Ensures progress for a future that waits for a result, because no thread drives for it.
    fn watch(&self) {}

    /// Cancels a task of this function: it never begins, or its process is killed.
    fn cancel(&self, _task: TaskId, _function: &'static str) {}
}
