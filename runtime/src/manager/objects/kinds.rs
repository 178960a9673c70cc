//! The kinds of objects, and those for which requests wait in a row.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    Ticket,
    waits::{Waiting, Waits},
};
use crate::{
    manager::request::{Reply, Value},
    segment::Attachments,
};

/// An object. Requests that wait for it are in the order in which they came.
#[derive(Debug)]
pub(super) enum Object {
    Dict(Entries),
    List(Vec<Value>),
    Counter(i64),
    Queue(Queue),
    Mutex(Mutex),
    Semaphore(Semaphore),
    Event {
        is_set: bool,
        waiting: VecDeque<Ticket>,
    },
    Barrier {
        parties: u64,
        waiting: VecDeque<Ticket>,
    },
    /// Each request with the number of its mutex.
    Condvar(VecDeque<(Ticket, u64)>),
}

/// The keys and values of a dict.
pub(super) type Entries = HashMap<Box<[u8]>, Entry>;

/// The value of a key.
#[derive(Debug)]
pub(super) struct Entry {
    /// What the key contains handles of.
    pub(super) key_with: Attachments,
    pub(super) value: Value,
}

impl Object {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Dict(_) => "dict",
            Self::List(_) => "list",
            Self::Counter(_) => "counter",
            Self::Queue(_) => "queue",
            Self::Mutex(_) => "mutex",
            Self::Semaphore(_) => "semaphore",
            Self::Event { .. } => "event",
            Self::Barrier { .. } => "barrier",
            Self::Condvar(_) => "condition variable",
        }
    }

    /// Removes a request from the row. Returns the mutex that it gave back in order to wait.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> Option<u64> {
        match self {
            Self::Queue(queue) => {
                queue.taking.retain(|other| *other != ticket);
                queue.putting.retain(|(other, _)| *other != ticket);
            }
            Self::Mutex(mutex) => mutex.waiting.retain(|(other, _)| *other != ticket),
            Self::Semaphore(semaphore) => semaphore.waiting.retain(|other| *other != ticket),
            Self::Event { waiting, .. } | Self::Barrier { waiting, .. } => {
                waiting.retain(|other| *other != ticket);
            }
            Self::Condvar(waiting) => {
                let at = waiting.iter().position(|(other, _)| *other == ticket)?;
                return waiting.remove(at).map(|(_, mutex)| mutex);
            }
            Self::Dict(_) | Self::List(_) | Self::Counter(_) => {}
        }
        None
    }
}

/// A queue of values. If it is empty, requests wait to take one, and if it is full, to put one in.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    values: VecDeque<Value>,
    taking: VecDeque<Ticket>,
    putting: VecDeque<(Ticket, Value)>,
}

impl Queue {
    pub(super) fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        Self { capacity, values: VecDeque::new(), taking: VecDeque::new(), putting: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn put(
        &mut self,
        from: Ticket,
        value: Value,
        waiting: Waiting,
        waits: &mut Waits,
    ) -> Option<Reply> {
        if let Some(taker) = self.taking.pop_front() {
            waits.reply(taker, Reply::Value(Some(value)));
        } else if self.values.len() < self.capacity {
            self.values.push_back(value);
        } else {
            return waiting.wait(waits, || self.putting.push_back((from, value)));
        }
        Some(Reply::Done)
    }

    pub(super) fn take(&mut self, from: Ticket, waiting: Waiting, waits: &mut Waits) -> Option<Reply> {
        let Some(value) = self.values.pop_front() else {
            return waiting.wait(waits, || self.taking.push_back(from));
        };
        if let Some((putter, next)) = self.putting.pop_front() {
            self.values.push_back(next);
            waits.reply(putter, Reply::Done);
        }
        Some(Reply::Value(Some(value)))
    }
}

/// A mutex with a value, which changes when it is released.
#[derive(Debug)]
pub(super) struct Mutex {
    value: Value,
    pub(super) holder: Option<u64>,
    /// Each request with whether its wait for a condition variable has timed out.
    waiting: VecDeque<(Ticket, bool)>,
}

impl Mutex {
    pub(super) fn new(value: Value) -> Self {
        Self { value, holder: None, waiting: VecDeque::new() }
    }

    pub(super) fn acquire(&mut self, from: Ticket, waiting: Waiting, waits: &mut Waits) -> Option<Reply> {
        if self.holder.is_some() {
            return waiting.wait(waits, || self.waiting.push_back((from, false)));
        }
        self.holder = Some(from.client);
        Some(Reply::Locked { value: self.value.clone(), timed_out: false })
    }

    pub(super) fn release(&mut self, changed: Option<Value>, waits: &mut Waits) {
        self.holder = None;
        if let Some(value) = changed {
            self.value = value;
        }
        self.serve_next(waits);
    }

    /// Lets a request wait that has waited for a condition variable.
    pub(super) fn lock_again(&mut self, ticket: Ticket, timed_out: bool, waits: &mut Waits) {
        self.waiting.push_back((ticket, timed_out));
        self.serve_next(waits);
    }

    fn serve_next(&mut self, waits: &mut Waits) {
        if self.holder.is_none()
            && let Some((next, timed_out)) = self.waiting.pop_front()
        {
            self.holder = Some(next.client);
            waits.reply(next, Reply::Locked { value: self.value.clone(), timed_out });
        }
    }
}

/// A number of permits.
#[derive(Debug)]
pub(super) struct Semaphore {
    free: u64,
    /// The number of permits that each client has.
    held: BTreeMap<u64, u64>,
    waiting: VecDeque<Ticket>,
}

impl Semaphore {
    pub(super) fn new(permits: u64) -> Self {
        Self { free: permits, held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    pub(super) fn free(&self) -> usize {
        usize::try_from(self.free).unwrap_or(usize::MAX)
    }

    pub(super) fn acquire(&mut self, from: Ticket, waiting: Waiting, waits: &mut Waits) -> Option<Reply> {
        if self.free == 0 {
            return waiting.wait(waits, || self.waiting.push_back(from));
        }
        self.free -= 1;
        *self.held.entry(from.client).or_default() += 1;
        Some(Reply::Done)
    }

    pub(super) fn release(&mut self, client: u64, waits: &mut Waits) -> Reply {
        match self.held.get_mut(&client) {
            Some(held) if *held > 1 => *held -= 1,
            Some(_) => _ = self.held.remove(&client),
            None => return Reply::refused("this process has no permit of the semaphore"),
        }
        self.add(1, waits);
        Reply::Done
    }

    /// Takes back the permits of a client that has ended.
    pub(super) fn release_all(&mut self, client: u64, waits: &mut Waits) {
        let permits = self.held.remove(&client).unwrap_or_default();
        self.add(permits, waits);
    }

    fn add(&mut self, permits: u64, waits: &mut Waits) {
        self.free += permits;
        while self.free > 0
            && let Some(next) = self.waiting.pop_front()
        {
            self.free -= 1;
            *self.held.entry(next.client).or_default() += 1;
            waits.reply(next, Reply::Done);
        }
    }
}
