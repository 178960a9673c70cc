//! Defines the lazy iterators [`IMap`], in the order of the input, and [`IMapUnordered`], in the order of completion, and the
//! streams [`ResultStream`] and [`ResultStreamUnordered`] for asynchronous code.
//!
//! They read the input within the window of their [`Call`], and decode and order the results. Input is never read while the
//! window is full.

#[cfg(feature = "futures")]
use std::pin::Pin;
#[cfg(feature = "futures")]
use std::task::{Context, Poll};
use std::{collections::VecDeque, fmt, iter::Fuse, ops::ControlFlow};

#[cfg(feature = "futures")]
use futures_core::Stream;

use serde::de::DeserializeOwned;

use super::Pool;
use crate::{
    call::state::{Call, CallOptions},
    codec::Encoded,
    error::{Error, TaskError, TaskErrorKind, TaskLocation},
    handle::{decode, decode_many},
    scheduler::inbox::Arrival,
    setting::no_chunk,
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
pub struct IMap<T, I: Iterator> {
    engine: Engine<I>,
    results: InOrder<T>,
}

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
pub struct IMapUnordered<T, I: Iterator> {
    engine: Engine<I>,
    ready: VecDeque<(usize, Result<T, TaskError>)>,
}

/// Results that wait for an earlier one.
struct InOrder<T> {
    /// The results from the next one on. `None` is a result that has not arrived.
    ready: VecDeque<Option<Result<T, TaskError>>>,
    /// The number of results that have arrived.
    held: usize,
    given: usize,
}

impl<T> InOrder<T> {
    fn new() -> Self {
        Self { ready: VecDeque::new(), held: 0, given: 0 }
    }

    /// Returns the next result, if it has arrived.
    #[inline]
    fn next(&mut self) -> Option<Result<T, TaskError>> {
        let Some(Some(_)) = self.ready.front() else { return None };
        self.held -= 1;
        self.given += 1;
        self.ready.pop_front().flatten()
    }

    #[inline]
    fn put(&mut self, index: usize, result: Result<T, TaskError>) {
        let at = index - self.given;
        match self.ready.get_mut(at) {
            Some(place) => *place = Some(result),
            None => {
                self.ready.resize_with(at, || None);
                self.ready.push_back(Some(result));
            }
        }
        self.held += 1;
    }
}

/// The part that all iterators have in common: the input and the call.
pub(crate) struct Engine<I: Iterator> {
    call: Call,
    input: Fuse<I>,
    ended: bool,
    function: &'static str,
    /// Why a setting of the iterator was refused.
    refused: Option<Error>,
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Engine<I> {
    fn new(pool: &Pool, input: I) -> Self {
        Self {
            call: pool.open(CallOptions::default()),
            input: input.fuse(),
            ended: false,
            function: "",
            refused: None,
        }
    }

    fn set_chunk_size(&mut self, tasks: usize) {
        match tasks {
            0 => self.refused = Some(no_chunk("chunk_size(0)")),
            _ => self.call.set_chunk_size(tasks),
        }
    }

    /// Ends the input if a setting was refused. Returns the error of the task that would be next.
    fn refuse(&mut self) -> Option<(usize, TaskError)> {
        let kind = TaskErrorKind::lost(&self.refused.take()?);
        let task = self.input.next();
        self.ended = true;
        let index = self.call.pushed();
        let place = TaskLocation { index: Some(index), ..TaskLocation::default() };
        Some((index, TaskError::new(task?.function(), kind, place)))
    }

    /// In a fork of the process that made the call, ends the call. Returns the error once.
    fn disown(&mut self) -> Option<TaskError> {
        let error = self.call.disown()?;
        self.ended = true;
        Some(error)
    }

    /// Reads as much input as the window allows.
    fn fill(&mut self, held: usize) {
        let Self { call, input, ended, function, .. } = self;
        call.set_held(held);
        if !*ended && call.has_room() {
            // `try_for_each` instead of a `for` loop: iterators that push from within are faster.
            let left_off = input.try_for_each(|task| {
                if call.push_simple(&task.call) {
                    return ControlFlow::Continue(());
                }
                *function = task.function();
                call.push(task.call);
                if call.has_room() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            *ended = left_off.is_continue();
        }
        self.call.flush();
    }

    fn is_done(&self) -> bool {
        self.ended && self.call.outstanding() == 0
    }

    /// Passes on the results that have arrived.
    fn receive(&mut self, mut put: impl FnMut(usize, Result<T, TaskError>)) {
        let function = self.function;
        self.call.receive(|first, arrival| match arrival {
            Arrival::Many(results) => decode_many(function, first, results, |index, result| {
                put(index, result);
                ControlFlow::Continue(())
            }),
            Arrival::One(outcome) => put(first, decode_at(function, first, outcome)),
        });
    }
}

#[inline]
fn decode_at<T: DeserializeOwned + 'static>(
    function: &'static str,
    index: usize,
    outcome: Result<Encoded<'_>, TaskError>,
) -> Result<T, TaskError> {
    let place = TaskLocation { index: Some(index), attempts: 1, worker: None };
    decode(function, outcome?, place)
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> IMap<T, I> {
    pub(super) fn new(pool: &Pool, input: I) -> Self {
        Self { engine: Engine::new(pool, input), results: InOrder::new() }
    }

    /// Sets how many tasks are sent to a worker together. By default, the number is found by measuring.
    ///
    /// With zero, the next item is an error, and no more input is read.
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
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.engine.set_chunk_size(tasks);
        self
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Iterator for IMap<T, I> {
    type Item = Result<T, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((_, error)) = self.engine.refuse() {
            return Some(Err(error));
        }
        loop {
            if let Some(result) = self.results.next() {
                return Some(result);
            }
            if let Some(error) = self.engine.disown() {
                self.results = InOrder::new();
                return Some(Err(error));
            }
            self.engine.fill(self.results.held);
            if self.engine.is_done() {
                return None;
            }
            self.engine.call.wait();
            let Self { engine, results } = self;
            engine.receive(|index, result| results.put(index, result));
        }
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> IMapUnordered<T, I> {
    pub(super) fn new(pool: &Pool, input: I) -> Self {
        Self { engine: Engine::new(pool, input), ready: VecDeque::new() }
    }

    /// Sets how many tasks are sent to a worker together. By default, the number is found by measuring.
    ///
    /// With zero, the next item is an error, and no more input is read.
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
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.engine.set_chunk_size(tasks);
        self
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Iterator for IMapUnordered<T, I> {
    type Item = (usize, Result<T, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((index, error)) = self.engine.refuse() {
            return Some((index, Err(error)));
        }
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if let Some(error) = self.engine.disown() {
                return Some((self.engine.call.pushed(), Err(error)));
            }
            self.engine.fill(0);
            if self.engine.is_done() {
                return None;
            }
            self.engine.call.wait();
            let Self { engine, ready } = self;
            engine.receive(|index, result| ready.push_back((index, result)));
        }
    }
}

impl<T, I: Iterator> fmt::Debug for IMap<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IMap").field("given", &self.results.given).finish_non_exhaustive()
    }
}

impl<T, I: Iterator> fmt::Debug for IMapUnordered<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IMapUnordered").finish_non_exhaustive()
    }
}

/// Streams the results of a call in the order of the input. Created by [`Pool::stream`].
#[cfg(feature = "futures")]
#[must_use = "a stream does nothing until it is read"]
pub struct ResultStream<T, I: Iterator> {
    engine: Engine<I>,
    results: InOrder<T>,
}

/// Streams the results of a call as they become ready, with their index in the input. Created by [`Pool::stream_unordered`].
#[cfg(feature = "futures")]
#[must_use = "a stream does nothing until it is read"]
pub struct ResultStreamUnordered<T, I: Iterator> {
    engine: Engine<I>,
    ready: VecDeque<(usize, Result<T, TaskError>)>,
}

#[cfg(feature = "futures")]
impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> ResultStream<T, I> {
    pub(super) fn new(pool: &Pool, input: I) -> Self {
        Self { engine: Engine::new(pool, input), results: InOrder::new() }
    }

    /// Sets how many tasks are sent to a worker together. By default, the number is found by measuring.
    ///
    /// With zero, the next item is an error, and no more input is read.
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.engine.set_chunk_size(tasks);
        self
    }
}

#[cfg(feature = "futures")]
impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> ResultStreamUnordered<T, I> {
    pub(super) fn new(pool: &Pool, input: I) -> Self {
        Self { engine: Engine::new(pool, input), ready: VecDeque::new() }
    }

    /// Sets how many tasks are sent to a worker together. By default, the number is found by measuring.
    ///
    /// With zero, the next item is an error, and no more input is read.
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        self.engine.set_chunk_size(tasks);
        self
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
        let Self { engine, results } = self.get_mut();
        if let Some((_, error)) = engine.refuse() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            if let Some(result) = results.next() {
                return Poll::Ready(Some(result));
            }
            if let Some(error) = engine.disown() {
                *results = InOrder::new();
                return Poll::Ready(Some(Err(error)));
            }
            engine.fill(results.held);
            if engine.is_done() {
                return Poll::Ready(None);
            }
            if !engine.call.poll_wait(context.waker()) {
                return Poll::Pending;
            }
            engine.receive(|index, result| results.put(index, result));
        }
    }
}

#[cfg(feature = "futures")]
impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Stream for ResultStreamUnordered<T, I> {
    type Item = (usize, Result<T, TaskError>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { engine, ready } = self.get_mut();
        if let Some((index, error)) = engine.refuse() {
            return Poll::Ready(Some((index, Err(error))));
        }
        loop {
            if let Some(item) = ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            if let Some(error) = engine.disown() {
                return Poll::Ready(Some((engine.call.pushed(), Err(error))));
            }
            engine.fill(0);
            if engine.is_done() {
                return Poll::Ready(None);
            }
            if !engine.call.poll_wait(context.waker()) {
                return Poll::Pending;
            }
            engine.receive(|index, result| ready.push_back((index, result)));
        }
    }
}

#[cfg(feature = "futures")]
impl<T, I: Iterator> fmt::Debug for ResultStream<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultStream").field("given", &self.results.given).finish_non_exhaustive()
    }
}

#[cfg(feature = "futures")]
impl<T, I: Iterator> fmt::Debug for ResultStreamUnordered<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultStreamUnordered").finish_non_exhaustive()
    }
}
