//! Defines the lazy iterators [`IMap`], in the order of the input, and [`IMapUnordered`], in the order of completion, and the
//! streams [`ResultStream`] and [`ResultStreamUnordered`] for asynchronous code.
//!
//! They read the input within the window of their [`Call`], and decode and order the results. Input is never read while the
//! window is full.

use std::{collections::VecDeque, convert::Infallible, fmt, iter::Fuse, ops::ControlFlow, task::Poll};
#[cfg(feature = "futures")]
use std::{
    pin::Pin,
    task::{Context, Waker},
};

#[cfg(feature = "futures")]
use futures_core::Stream;

use serde::de::DeserializeOwned;

use super::Pool;
use crate::{
    call::{collect::receive, order::ReorderBuffer, state::Call},
    error::{Error, TaskError, TaskErrorKind, TaskLocation},
    scheduler::config::CallOptions,
    setting,
    task::Task,
};

/// Iterates over the results of a call in the order of the input. Created by [`Pool::imap`].
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
/// let mut squares = pool.imap((1..).map(|n| delayed!(square(n))));
/// assert_eq!(squares.next().transpose()?, Some(1));
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use = "an iterator does nothing until it is read"]
pub struct IMap<T, I: Iterator>(LazyCall<Result<T, TaskError>, I>);

/// Iterates over the results of a call as they become ready, with their index in the input. Created by [`Pool::imap_unordered`].
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
/// let squares = pool.imap_unordered((0..3).map(|n| delayed!(square(n))));
/// assert_eq!(squares.count(), 3);
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use = "an iterator does nothing until it is read"]
pub struct IMapUnordered<T, I: Iterator>(LazyCall<(usize, Result<T, TaskError>), I>);

/// Streams the results of a call in the order of the input. Created by [`Pool::stream`].
///
/// # Examples
///
/// ```
/// use std::{future::poll_fn, pin::Pin};
/// use futures_core::Stream; // or `StreamExt::next` of the crate `futures`
/// use procession::{Pool, delayed, worker};
///
/// # #[worker]
/// # fn square(n: u64) -> u64 {
/// #     n * n
/// # }
/// # pollster::block_on(async {
/// let pool = Pool::new(2)?;
/// let mut squares = pool.stream([3, 1, 2].map(|n| delayed!(square(n))));
/// let first = poll_fn(|context| Pin::new(&mut squares).poll_next(context)).await;
/// assert_eq!(first.transpose()?, Some(9));
/// # Ok::<(), procession::Error>(())
/// # }).unwrap();
/// ```
#[cfg(feature = "futures")]
#[must_use = "a stream does nothing until it is read"]
pub struct ResultStream<T, I: Iterator>(LazyCall<Result<T, TaskError>, I>);

/// Streams the results of a call as they become ready, with their index in the input. Created by [`Pool::stream_unordered`].
///
/// # Examples
///
/// ```
/// use std::{future::poll_fn, pin::Pin};
/// use futures_core::Stream; // or `StreamExt::next` of the crate `futures`
/// use procession::{Pool, delayed, worker};
///
/// # #[worker]
/// # fn square(n: u64) -> u64 {
/// #     n * n
/// # }
/// # pollster::block_on(async {
/// let pool = Pool::new(2)?;
/// let mut squares = pool.stream_unordered([3, 1, 2].map(|n| delayed!(square(n))));
/// let next = poll_fn(|context| Pin::new(&mut squares).poll_next(context)).await;
/// let (index, square) = next.expect("there are three");
/// assert_eq!([9, 1, 4][index], square?);
/// # Ok::<(), procession::Error>(())
/// # }).unwrap();
/// ```
#[cfg(feature = "futures")]
#[must_use = "a stream does nothing until it is read"]
pub struct ResultStreamUnordered<T, I: Iterator>(LazyCall<(usize, Result<T, TaskError>), I>);

/// The parts of every iterator and stream: the input, the call, and the items that were received.
struct LazyCall<X, I: Iterator> {
    call: Call,
    input: Fuse<I>,
    ended: bool,
    function: &'static str,
    /// The error of a setting of the iterator that was refused.
    refused: Option<Error>,
    results: ReorderBuffer<X>,
    /// The next items.
    ready: VecDeque<X>,
}

/// An item: a result, with its index if results are yielded in the order of completion.
trait ResultItem {
    type Value: DeserializeOwned + 'static;

    const UNORDERED: bool;

    fn new(index: usize, result: Result<Self::Value, TaskError>) -> Self;
}

impl<T: DeserializeOwned + 'static> ResultItem for Result<T, TaskError> {
    type Value = T;

    const UNORDERED: bool = false;

    #[inline]
    fn new(_index: usize, result: Self) -> Self {
        result
    }
}

impl<T: DeserializeOwned + 'static> ResultItem for (usize, Result<T, TaskError>) {
    type Value = T;

    const UNORDERED: bool = true;

    #[inline]
    fn new(index: usize, result: Result<T, TaskError>) -> Self {
        (index, result)
    }
}

impl<X: ResultItem, I: Iterator<Item = Task<X::Value>>> LazyCall<X, I> {
    fn new(pool: &Pool, input: I) -> Self {
        Self {
            call: pool.open(CallOptions::default(), None),
            input: input.fuse(),
            ended: false,
            function: "",
            refused: None,
            results: ReorderBuffer::new(X::UNORDERED),
            ready: VecDeque::new(),
        }
    }

    fn set_batch(&mut self, tasks: usize) {
        match setting::batch("chunk_size(0)", tasks) {
            Ok(tasks) => self.call.change(|options| options.batch = Some(tasks)),
            Err(error) => self.refused = Some(error),
        }
    }

    /// Returns the next item, or `None` after the last. [Waits](Call::wait) for results.
    #[inline]
    fn next(&mut self) -> Option<X> {
        loop {
            if let Poll::Ready(item) = self.poll() {
                return item;
            }
            self.call.wait();
            self.receive();
        }
    }

    /// Returns the next item, or `None` after the last. Wakes the waker when there is one.
    #[cfg(feature = "futures")]
    fn poll_next(&mut self, waker: &Waker) -> Poll<Option<X>> {
        loop {
            if let Poll::Ready(item) = self.poll() {
                return Poll::Ready(item);
            }
            if !self.call.poll_wait(waker) {
                return Poll::Pending;
            }
            self.receive();
        }
    }

    /// Returns the next item if it was received, or `None` after the last. Otherwise it has read as much input as the window
    /// allows, and results must be received.
    #[inline]
    fn poll(&mut self) -> Poll<Option<X>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(self.refuse(&error));
        }
        if let Some(item) = self.ready.pop_front() {
            return Poll::Ready(Some(item));
        }
        // In a fork of the process that made the call, the call ends with one error.
        if let Some(error) = self.call.disown() {
            self.ended = true;
            self.results = ReorderBuffer::new(X::UNORDERED);
            return Poll::Ready(Some(X::new(self.call.pushed(), Err(error))));
        }
        self.fill();
        let is_done = self.ended && self.call.outstanding() == 0;
        if is_done { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Receives the results that have arrived, when no item is left.
    fn receive(&mut self) {
        let Self { call, function, results, ready, .. } = self;
        let Ok(()) =
            receive(call, function, results, |index, result| Ok::<_, Infallible>(X::new(index, result)));
        let empty = std::mem::take(ready).into();
        *ready = results.take(empty).into();
    }

    /// Ends the input because a setting was refused. Returns the error of the task that would be next.
    fn refuse(&mut self, error: &Error) -> Option<X> {
        let kind = TaskErrorKind::lost(error);
        let task = self.input.next();
        self.ended = true;
        let index = self.call.pushed();
        let place = TaskLocation { index: Some(index), ..TaskLocation::default() };
        Some(X::new(index, Err(TaskError::new(task?.function(), kind, place))))
    }

    /// Reads as much input as the window allows.
    fn fill(&mut self) {
        let Self { call, input, ended, function, results, .. } = self;
        call.set_held(results.held());
        if !*ended && call.has_room() {
            // `try_for_each` instead of a `for` loop: iterators that push from within are faster.
            let left_off = input.try_for_each(|task| {
                if call.push_simple(&task.call) {
                    return ControlFlow::Continue(());
                }
                // The input may have copied this process.
                if !call.is_own() {
                    return ControlFlow::Break(());
                }
                *function = task.function();
                call.push(task.call);
                if call.has_room() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            *ended = left_off.is_continue();
        }
        self.call.flush();
    }
}

/// Defines what iterators and streams have in common. Each adds an example to the docs of its `chunk_size`.
macro_rules! results {
    ($(#[$example:meta])* $name:ident) => {
        impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> $name<T, I> {
            pub(super) fn new(pool: &Pool, input: I) -> Self {
                Self(LazyCall::new(pool, input))
            }

            /// Sets how many tasks are sent to a worker together. By default, the number is found by measuring.
            ///
            /// With zero, the next item is an error, and no more input is read.
            $(#[$example])*
            pub fn chunk_size(mut self, tasks: usize) -> Self {
                self.0.set_batch(tasks);
                self
            }
        }

        impl<T, I: Iterator> fmt::Debug for $name<T, I> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

results! {
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
    /// let pool = Pool::new(2)?;
    /// let squares = pool.imap((0..100).map(|n| delayed!(square(n)))).chunk_size(10);
    /// assert_eq!(squares.count(), 100);
    /// # Ok::<(), procession::Error>(())
    /// ```
    IMap
}

results! {
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
    /// let pool = Pool::new(2)?;
    /// let squares = pool.imap_unordered((0..100).map(|n| delayed!(square(n)))).chunk_size(10);
    /// assert_eq!(squares.count(), 100);
    /// # Ok::<(), procession::Error>(())
    /// ```
    IMapUnordered
}

#[cfg(feature = "futures")]
results!(ResultStream);
#[cfg(feature = "futures")]
results!(ResultStreamUnordered);

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Iterator for IMap<T, I> {
    type Item = Result<T, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Iterator for IMapUnordered<T, I> {
    type Item = (usize, Result<T, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

// Neither the input nor the results are ever pinned.
#[cfg(feature = "futures")]
impl<T, I: Iterator> Unpin for ResultStream<T, I> {}
#[cfg(feature = "futures")]
impl<T, I: Iterator> Unpin for ResultStreamUnordered<T, I> {}

#[cfg(feature = "futures")]
impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Stream for ResultStream<T, I> {
    type Item = Result<T, TaskError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_next(context.waker())
    }
}

#[cfg(feature = "futures")]
impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Stream for ResultStreamUnordered<T, I> {
    type Item = (usize, Result<T, TaskError>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_next(context.waker())
    }
}
