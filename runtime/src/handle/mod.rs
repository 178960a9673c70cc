//! Defines [`Handle`], which returns the result of one task, and its private counterpart, the [`Completer`].
//!
//! `pool` and `process` create handles. A handle never drives a pool that belongs to another process, as after a fork.

mod completer;
mod decode;
mod wait;

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, MutexGuard, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;

pub(crate) use completer::{Completer, Outcome};
pub(crate) use decode::Decode;
pub(crate) use wait::{Drive, Waiter, Wakes};

use crate::{
    captured::Captured,
    error::{TaskError, TaskErrorKind, TaskLocation},
    id::TaskId,
    sync::if_free,
    sys::generation::generation,
};
use completer::Slot;

/// Returns the result of a submitted task. Created by [`Pool::submit`](crate::Pool::submit).
///
/// [`join`](Self::join) blocks until the task has ended. A handle is also a [`Future`], which works on any executor and does not
/// block its thread. Dropping a handle cancels nothing, even while it is being awaited.
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
/// let handle = pool.submit(delayed!(square(7)));
/// assert_eq!(handle.join()?, 49);
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use = "dropping a handle neither waits for the task nor cancels it"]
pub struct Handle<T> {
    shared: Arc<Completer>,
    /// The pool. If it has ended, every task has its outcome.
    exchange: Option<Weak<dyn Drive>>,
    function: &'static str,
    task: TaskId,
    /// It was polled as a future and may have left a waker.
    is_awaited: bool,
    /// The generation of the process that it belongs to. In a copy of that process, locks of other threads stay locked, and the
    /// result goes to the original.
    generation: u32,
    result: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + 'static> Handle<T> {
    pub(crate) fn new(
        shared: Arc<Completer>,
        exchange: Option<Weak<dyn Drive>>,
        function: &'static str,
        task: TaskId,
    ) -> Self {
        Self {
            shared,
            exchange,
            function,
            task,
            is_awaited: false,
            generation: generation(),
            result: PhantomData,
        }
    }

    /// Waits for the task and returns its result.
    ///
    /// # Errors
    ///
    /// Returns an error if the task failed, was cancelled, or did not finish before its pool ended.
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
    /// # fn main() -> procession::Result<()> {
    /// let pool = Pool::new(2)?;
    /// let (five, six) = (pool.submit(delayed!(square(5))), pool.submit(delayed!(square(6))));
    /// assert_eq!(five.join()? + six.join()?, 61);
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(self) -> Result<T, TaskError> {
        self.wait(None);
        self.finish().expect("the wait without a deadline ends with a result")
    }

    /// Waits for the task and returns its outcome together with what it wrote to stdout and stderr.
    ///
    /// Output is recorded if the pool's [`Output`](crate::Output) is `Capture` or `Log`. Output that this method returns is not
    /// printed.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn warn(n: u32) -> u32 {
    ///     eprintln!("{n} is a lot");
    ///     n
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).stderr(Output::Capture).build()?;
    /// let (result, wrote) = pool.submit(delayed!(warn(9))).join_captured();
    /// assert_eq!(result?, 9);
    /// assert_eq!((wrote.stdout(), wrote.stderr()), ("", "9 is a lot\n"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join_captured(self) -> (Result<T, TaskError>, Captured) {
        self.wait(None);
        let result = self.take().expect("the wait without a deadline ends with a result");
        (result, self.shared.output.get().map(|output| Captured::clone(output)).unwrap_or_default())
    }

    /// Waits for the task for at most `timeout`. Returns `None` if the task has not ended by then.
    ///
    /// A timeout of zero does not wait. A timeout does not end the task: use [`cancel`](Self::cancel) for that.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`join`](Self::join).
    ///
    /// # Panics
    ///
    /// Panics if the result was already returned.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn nap(millis: u64) -> u64 {
    ///     std::thread::sleep(Duration::from_millis(millis));
    ///     millis
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let mut handle = pool.submit(delayed!(nap(50)));
    /// let slept = loop {
    ///     match handle.join_timeout(Duration::from_millis(10)) {
    ///         Some(result) => break result?,
    ///         None => println!("not yet"),
    ///     }
    /// };
    /// assert_eq!(slept, 50);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, TaskError>> {
        assert!(!self.is_taken(), "the result of this handle was already taken");
        if timeout.is_zero() {
            if !self.is_finished() {
                return None;
            }
        } else {
            // A deadline that cannot be represented is no deadline.
            self.wait(Instant::now().checked_add(timeout));
        }
        self.finish()
    }

    /// Returns whether the task has ended, so that [`join`](Self::join) would not wait.
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
    /// let handle = pool.submit(delayed!(square(7)));
    /// while !handle.is_finished() {
    ///     std::thread::yield_now(); // something useful
    /// }
    /// assert_eq!(handle.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if let (false, Some(exchange)) = (self.is_done(), self.exchange()) {
            exchange.poll_once();
        }
        self.is_done()
    }

    /// Cancels the task. A queued task never runs. A running task is told through [`is_cancelled`](crate::is_cancelled), and its
    /// process is terminated if it does not end.
    ///
    /// The task then fails as cancelled ([`is_cancelled`](TaskError::is_cancelled)), unless it had already ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn wait_for_ever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let handle = pool.submit(delayed!(wait_for_ever()));
    /// handle.cancel();
    /// assert!(handle.join().unwrap_err().is_cancelled());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn cancel(&self) {
        if let Some(exchange) = self.exchange() {
            exchange.cancel(self.task, self.function);
        }
    }

    /// Returns the task's ID. In the worker, [`procession::task_id`](crate::task_id) returns the same ID.
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
    /// let (first, second) = (pool.submit(delayed!(square(1))), pool.submit(delayed!(square(2))));
    /// assert_ne!(first.task_id(), second.task_id());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        self.task
    }

    /// Returns whether this process submitted the task, and is not a copy of the one that did.
    fn is_own(&self) -> bool {
        self.generation == generation()
    }

    /// Locks the slot. Returns `None` in a copy of the process that submitted the task, where another thread may have held the
    /// lock.
    fn slot(&self) -> Option<MutexGuard<'_, Slot>> {
        if self.is_own() { Some(self.shared.lock()) } else { if_free(self.shared.slot.try_lock()) }
    }

    fn is_taken(&self) -> bool {
        self.slot().is_some_and(|slot| matches!(*slot, Slot::Taken))
    }

    fn is_done(&self) -> bool {
        self.slot().is_some_and(|slot| matches!(*slot, Slot::Done(_) | Slot::Taken))
    }

    /// Returns what produces the result in this process, unless it has ended.
    fn exchange(&self) -> Option<Arc<dyn Drive>> {
        self.exchange.as_ref().filter(|_| self.is_own()).and_then(Weak::upgrade)
    }

    fn wait(&self, deadline: Option<Instant>) {
        if !self.is_done()
            && let Some(exchange) = self.exchange()
        {
            exchange.wait(&mut || self.shared.is_done_or_wait(), deadline);
        }
    }

    fn finish(&self) -> Option<Result<T, TaskError>> {
        let result = self.take()?;
        if let Some(output) = self.shared.output.get() {
            output.show();
        }
        Some(result)
    }

    fn take(&self) -> Option<Result<T, TaskError>> {
        let taken = self.slot().and_then(|mut slot| slot.take_outcome());
        let outcome = match taken {
            Some(outcome) => outcome,
            None if self.is_own() => return None,
            None => Err(inherited(self.function)),
        };
        // There is a result, so the task was started.
        let place = TaskLocation { attempts: 1, ..TaskLocation::default() };
        Some(outcome.and_then(|mut result| T::decode(self.function, result.as_encoded(), place)))
    }
}

/// Returns the error of a task that was submitted before this process was forked from the one that submitted it.
pub(crate) fn inherited(function: &'static str) -> TaskError {
    TaskError::new(function, inherited_kind(), TaskLocation::default())
}

pub(crate) fn inherited_kind() -> TaskErrorKind {
    let message = "it was submitted by the process that this one was forked from, which receives its result: submit \
                   it again here";
    TaskErrorKind::Lost { message: message.to_owned() }
}

impl<T: DeserializeOwned + 'static> Handle<T> {
    /// Polls without leaving a waker. Returns `None` if a waker has to be left.
    fn poll_done(&self, waker: &Waker) -> Option<Poll<Result<T, TaskError>>> {
        if self.is_own() {
            match &*self.shared.lock() {
                Slot::Done(_) => {}
                Slot::Taken => panic!("a handle was polled after it had returned its result"),
                Slot::Awaited(Waiter::Waker(left)) if left.will_wake(waker) => return Some(Poll::Pending),
                Slot::Waiting | Slot::Awaited(_) => return None,
            }
        }
        self.finish().map(Poll::Ready)
    }
}

impl<T: DeserializeOwned + 'static> Future for Handle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.is_awaited = true;
        if let Some(result) = self.poll_done(context.waker()) {
            return result;
        }
        // Cloning runs code of an executor, which may wait for a thread that waits for this lock. Nothing is locked here.
        let waker = context.waker().clone();
        let Some(mut slot) = self.slot() else { return self.finish().map_or(Poll::Pending, Poll::Ready) };
        let before = match &*slot {
            Slot::Waiting | Slot::Awaited(_) => {
                std::mem::replace(&mut *slot, Slot::Awaited(Waiter::Waker(waker)))
            }
            // It has arrived meanwhile.
            Slot::Done(_) | Slot::Taken => {
                drop(slot);
                drop(waker);
                return self.finish().map_or(Poll::Pending, Poll::Ready);
            }
        };
        drop(slot);
        // Dropping a waker runs code of an executor, too.
        drop(before);
        if let Some(exchange) = self.exchange() {
            exchange.watch();
        }
        // An executor or a logger may have copied this process meanwhile.
        if self.is_own() { Poll::Pending } else { self.finish().map_or(Poll::Pending, Poll::Ready) }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        if self.is_awaited && self.generation == generation() {
            // A waker keeps resources of its executor alive until the task ends, and it is not needed any more.
            let mut slot = self.shared.lock();
            if let Slot::Awaited(_) = *slot {
                let waiter = std::mem::take(&mut *slot);
                drop(slot);
                drop(waiter);
            }
        }
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("function", &self.function)
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}
