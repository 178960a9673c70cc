//! The lazy iterators: [`IMap`] in the order of the input, [`IMapUnordered`] in the order of the results.

use std::{collections::VecDeque, fmt, iter::Fuse};

use serde::de::DeserializeOwned;

use super::{Call, Pool};
use crate::{
    codec::Encoded,
    error::{Place, TaskError},
    handle::decode,
    task::Task,
};

/// What [`Pool::imap`] returns.
#[must_use = "an iterator does nothing until it is read"]
pub struct IMap<T, I: Iterator> {
    engine: Engine<I>,
    /// Results from the next to be given on; `None` where one has not come yet.
    ready: VecDeque<Option<Result<T, TaskError>>>,
    /// How many of them have come.
    held: usize,
    given: usize,
}

/// What [`Pool::imap_unordered`] returns.
#[must_use = "an iterator does nothing until it is read"]
pub struct IMapUnordered<T, I: Iterator> {
    engine: Engine<I>,
    ready: VecDeque<(usize, Result<T, TaskError>)>,
}

/// What the two have in common: input and call.
struct Engine<I: Iterator> {
    call: Call,
    input: Fuse<I>,
    ended: bool,
    function: &'static str,
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Engine<I> {
    fn new(pool: &Pool, input: I) -> Self {
        Self { call: Call::new(pool, None, None), input: input.fuse(), ended: false, function: "" }
    }

    /// Reads as much input as the window allows.
    fn fill(&mut self, held: usize) {
        while !self.ended && self.call.has_room(held) {
            match self.input.next() {
                Some(task) => {
                    self.function = task.function();
                    self.call.push(task.call);
                }
                None => self.ended = true,
            }
        }
        self.call.flush();
    }

    fn is_done(&self) -> bool {
        self.ended && self.call.outstanding() == 0
    }
}

#[inline]
fn decode_at<T: DeserializeOwned + 'static>(
    function: &'static str,
    index: usize,
    outcome: Result<Encoded<'_>, TaskError>,
) -> Result<T, TaskError> {
    let place = Place { index: Some(index), attempts: 1, worker: None };
    decode(function, outcome?, place)
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> IMap<T, I> {
    pub(super) fn new(pool: &Pool, input: I) -> Self {
        Self { engine: Engine::new(pool, input), ready: VecDeque::new(), held: 0, given: 0 }
    }

    /// Has so many tasks travel together, at least one, instead of as many as measuring suggests.
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
        self.engine.call.set_chunk_size(tasks);
        self
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Iterator for IMap<T, I> {
    type Item = Result<T, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(Some(_)) = self.ready.front() {
                self.held -= 1;
                self.given += 1;
                return self.ready.pop_front().flatten();
            }
            self.engine.fill(self.held);
            if self.engine.is_done() {
                return None;
            }
            self.engine.call.wait();
            let Self { engine, ready, held, given } = self;
            let function = engine.function;
            engine.call.receive(|index, outcome| {
                let (at, outcome) = (index - *given, Some(decode_at(function, index, outcome)));
                match ready.get_mut(at) {
                    Some(place) => *place = outcome,
                    None => {
                        ready.resize_with(at, || None);
                        ready.push_back(outcome);
                    }
                }
                *held += 1;
            });
        }
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> IMapUnordered<T, I> {
    pub(super) fn new(pool: &Pool, input: I) -> Self {
        Self { engine: Engine::new(pool, input), ready: VecDeque::new() }
    }

    /// Has so many tasks travel together, at least one, instead of as many as measuring suggests.
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
        self.engine.call.set_chunk_size(tasks);
        self
    }
}

impl<T: DeserializeOwned + 'static, I: Iterator<Item = Task<T>>> Iterator for IMapUnordered<T, I> {
    type Item = (usize, Result<T, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            self.engine.fill(0);
            if self.engine.is_done() {
                return None;
            }
            self.engine.call.wait();
            let Self { engine, ready } = self;
            let function = engine.function;
            engine
                .call
                .receive(|index, outcome| ready.push_back((index, decode_at(function, index, outcome))));
        }
    }
}

impl<T, I: Iterator> fmt::Debug for IMap<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IMap").field("given", &self.given).finish_non_exhaustive()
    }
}

impl<T, I: Iterator> fmt::Debug for IMapUnordered<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IMapUnordered").finish_non_exhaustive()
    }
}
