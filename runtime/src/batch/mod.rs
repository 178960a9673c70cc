//! Defines batches of tasks, single tasks, and the recipients of their results.
//!
//! A batch is the unit in which tasks wait, are sent and come back. The queues and the supervisors split and join batches. A
//! batch never mixes tasks of different queues, and does not know at which worker it is.

pub(crate) mod inbox;

use std::{collections::VecDeque, ops::Range, sync::Arc};

use self::inbox::Inbox;
use crate::{
    caller::Caller,
    captured::Captured,
    codec::{Encoded, ShortBytes},
    error::{TaskError, TaskErrorKind, TaskLocation},
    handle::{Completer, Wakes},
    id::{FunctionId, WorkerId},
    protocol::{EncodedTasks, Results},
    registry,
    segment::Attachments,
};

/// Batches that name more segments are not joined.
const MOST_SEGMENTS: usize = 64;

/// Identifies a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QueueId {
    /// One call.
    Call(u64),
    /// The single tasks of one thread.
    Thread(u64),
    /// Tasks that only one worker may run.
    Pinned,
}

/// Consecutive tasks that wait or run together, and the recipient of their results.
pub(crate) struct Batch {
    pub(crate) queue: QueueId,
    /// The number of the first task: its index in its call, or its number in the pool.
    pub(crate) first: u64,
    pub(crate) records: EncodedTasks,
    pub(crate) to: Recipient,
    pub(crate) attempts: u32,
}

/// The tasks that a cancellation applies to.
#[derive(Clone, Copy)]
pub(crate) enum Cancelled {
    /// All tasks of a call.
    Call(QueueId),
    /// The task with this number, which has a handle.
    Task(u64),
}

impl Cancelled {
    /// Returns which tasks of a batch were cancelled.
    pub(crate) fn within(self, batch: &Batch) -> Option<Range<u32>> {
        match self {
            Self::Call(id) => (batch.queue == id).then_some(0..batch.len()),
            Self::Task(number) => {
                let at = number.checked_sub(batch.first).and_then(|at| u32::try_from(at).ok())?;
                let is_handle = matches!(batch.to, Recipient::Handles(_));
                (is_handle && at < batch.len()).then_some(at..at + 1)
            }
        }
    }

    /// Returns the error of a task that has not begun.
    pub(crate) fn kind(self) -> TaskErrorKind {
        let why = match self {
            Self::Call(_) => "its call has ended",
            Self::Task(_) => "it was taken back before it began",
        };
        TaskErrorKind::Cancelled { why }
    }
}

/// A task with a handle, before it is queued.
pub(crate) struct Single {
    pub(crate) queue: QueueId,
    pub(crate) number: u64,
    pub(crate) function: FunctionId,
    pub(crate) args: ShortBytes,
    pub(crate) attachments: Attachments,
    pub(crate) to: Arc<Completer>,
}

impl From<Single> for Batch {
    fn from(task: Single) -> Self {
        Self {
            queue: task.queue,
            first: task.number,
            records: EncodedTasks::of(task.function, task.args).with_attachments(&task.attachments),
            to: Recipient::Handles(VecDeque::from([task.to])),
            attempts: 0,
        }
    }
}

/// The recipient of results.
pub(crate) enum Recipient {
    /// A call. The numbers of the tasks are their indices in it.
    Call(Arc<Inbox>),
    /// One handle for each task, in their order.
    Handles(VecDeque<Arc<Completer>>),
    /// The handle of one member of a broadcast. The number of the task is its index.
    Member {
        handle: Arc<Completer>,
        /// The seed of the broadcast.
        seed: u64,
    },
    /// No handle: the scheduler itself looks at the results of initializers and finalizers.
    Unclaimed,
}

impl Batch {
    /// Returns how many tasks are left.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.records.len()
    }

    /// Removes the first `n` tasks, which have their outcome.
    pub(crate) fn done(&mut self, n: u32) {
        self.records.advance(n);
        self.first = self.first.wrapping_add(u64::from(n));
    }

    /// Splits off the first `n` tasks.
    pub(crate) fn take_first(&mut self, n: u32) -> Self {
        let n = n.min(self.len());
        let to = match &mut self.to {
            Recipient::Call(inbox) => Recipient::Call(inbox.clone()),
            Recipient::Handles(handles) => {
                let n = n as usize;
                // The smaller part is moved.
                Recipient::Handles(if n < handles.len() / 2 {
                    handles.drain(..n).collect()
                } else {
                    let rest = handles.split_off(n);
                    std::mem::replace(handles, rest)
                })
            }
            Recipient::Member { handle, seed } => Recipient::Member { handle: handle.clone(), seed: *seed },
            Recipient::Unclaimed => Recipient::Unclaimed,
        };
        let first = Self {
            queue: self.queue,
            first: self.first,
            records: self.records.take_first(n),
            to,
            attempts: self.attempts,
        };
        self.first += u64::from(n);
        first
    }

    /// Returns the place of the first task, for its error.
    pub(crate) fn place(&self, worker: Option<(WorkerId, u32)>) -> TaskLocation {
        let index = match self.to {
            Recipient::Call(_) | Recipient::Member { .. } => usize::try_from(self.first).ok(),
            Recipient::Handles(_) | Recipient::Unclaimed => None,
        };
        TaskLocation { index, attempts: self.attempts, worker }
    }

    /// Returns the name of the first task's function.
    pub(crate) fn function(&self) -> &'static str {
        self.function_after(0)
    }

    /// Returns the name of the function of the task after the first `n`.
    pub(crate) fn function_after(&self, n: u32) -> &'static str {
        name_of(self.records.function_after(n))
    }

    /// Returns the names of the functions of all tasks, in order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &'static str> {
        self.records.functions().map(|function| name_of(Some(function)))
    }

    /// Appends the tasks of `next`. Returns `next` if the two cannot be one batch of at most this size.
    pub(crate) fn absorb(&mut self, mut next: Self, most_bytes: usize) -> Option<Self> {
        let fits = self.first + u64::from(self.len()) == next.first
            && self.attempts == next.attempts
            && !self.records.is_large()
            && !next.records.is_large()
            && self.records.attachments().len() + next.records.attachments().len() <= MOST_SEGMENTS
            && self.records.len_bytes() + next.records.len_bytes() <= most_bytes;
        match (&mut self.to, &mut next.to) {
            (Recipient::Call(_), Recipient::Call(_)) if fits => {}
            (Recipient::Handles(handles), Recipient::Handles(others)) if fits => handles.append(others),
            _ => return Some(next),
        }
        self.records.append(&next.records);
        None
    }
}

pub(crate) fn name_of(function: Option<FunctionId>) -> &'static str {
    function.and_then(registry::find).map_or("a function that is not in the table", |entry| entry.name)
}

impl Recipient {
    /// Returns the caller of the first task.
    pub(crate) fn caller(&self) -> Caller {
        match self {
            Self::Call(inbox) => inbox.caller.get(),
            Self::Handles(handles) => handles.front().map(|handle| handle.caller.get()).unwrap_or_default(),
            Self::Member { handle, .. } => handle.caller.get(),
            Self::Unclaimed => Caller::default(),
        }
    }

    /// Delivers the captured output of the first task, which has this number, before its outcome.
    pub(crate) fn give_output(&self, number: u64, output: Arc<Captured>, wakes: &mut Wakes) {
        match self {
            Self::Call(inbox) => inbox.give_output(number as usize, output, wakes),
            Self::Handles(handles) => {
                if let Some(handle) = handles.front() {
                    handle.give_output(output);
                }
            }
            Self::Member { handle, .. } => handle.give_output(output),
            Self::Unclaimed => {}
        }
    }

    /// Delivers the results of the first tasks, from the task with this number on.
    pub(crate) fn give(&mut self, first: u64, results: Results<'_>, wakes: &mut Wakes) {
        match self {
            Self::Call(inbox) => inbox.give(first as usize, results, wakes),
            // The others need no numbers.
            _ => results.for_each(|result| self.give_one(first, Ok(Encoded::Short(result)), wakes)),
        }
    }

    /// Returns the seed of the tasks if their queue has none.
    pub(crate) fn seed(&self) -> Option<u64> {
        match self {
            Self::Member { seed, .. } => Some(*seed),
            Self::Call(_) | Self::Handles(_) | Self::Unclaimed => None,
        }
    }

    /// Returns whether the progress of the tasks is displayed.
    pub(crate) fn wants_progress(&self) -> bool {
        matches!(self, Self::Call(inbox) if inbox.wants_progress)
    }

    /// Delivers the progress of the task with this number.
    pub(crate) fn give_progress(&mut self, number: u64, fraction: f64, wakes: &mut Wakes) {
        if let Self::Call(inbox) = self {
            inbox.give_progress(number as usize, fraction, wakes);
        }
    }

    /// Delivers the outcome of the first task, which has this number.
    pub(crate) fn give_one(
        &mut self,
        number: u64,
        outcome: Result<Encoded<'_>, TaskError>,
        wakes: &mut Wakes,
    ) {
        match self {
            Self::Call(inbox) => inbox.give_one(number as usize, outcome.map(Encoded::into_owned), wakes),
            Self::Handles(handles) => {
                if let Some(handle) = handles.pop_front() {
                    handle.complete(outcome.map(Encoded::into_owned), wakes);
                }
            }
            Self::Member { handle, .. } => handle.complete(outcome.map(Encoded::into_owned), wakes),
            Self::Unclaimed => {}
        }
    }
}
