//! Waiting for a result: what drives the pool meanwhile, and what is woken.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
    thread::Thread,
    time::Instant,
};

#[cfg(feature = "tracing")]
use crate::caller::Caller;
use crate::id::TaskId;

/// Who is to be woken once the pool is unlocked.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    threads: Vec<Thread>,
    wakers: Vec<Waker>,
    /// Whose tasks have ended: their spans are a subscriber's, and let go with nothing locked.
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

    pub(crate) fn wake_all(&mut self) {
        self.threads.drain(..).for_each(|thread| thread.unpark());
        for waker in self.wakers.drain(..) {
            // An executor that panics when it is woken must not cost others their wake-up.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// Who waits for a result that somebody else brings about.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A thread that lets another drive.
    Thread(Thread),
    /// A future, or a stream.
    Waker(Waker),
}

/// Who brings results about while somebody waits for them.
pub(crate) trait Exchange: Send + Sync {
    /// Works on the exchange, or waits for whoever does, until `ready` or the deadline. Returns whether it is ready.
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool;

    /// Works on what there is to do now, unless somebody is at it; waits for nothing.
    fn glance(&self);

    /// A future waits for a result: nobody will drive for it.
    fn watch(&self);

    /// Takes a task of this function back: it never begins, or its process is killed.
    fn cancel(&self, task: TaskId, function: &'static str);
}
