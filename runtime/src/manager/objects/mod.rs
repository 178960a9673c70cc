//! The objects of a manager, and the requests that wait for them. A state machine: it has no clock, no threads and no connections.
//!
//! The manager's process and the manager within a process feed it requests, the time, and the ends of clients, and deliver its replies.

mod act;
mod kinds;
#[cfg(all(test, not(loom)))]
mod tests;
mod waits;

use std::{collections::HashMap, time::Instant};

use super::request::{Action, Call, Create, Reply, Request, Value};
use crate::{codec::Bytes, error::Fault, segment::Attachments};
use act::{Context, NoSuchAction};
use kinds::{Mutex, Object, Queue, Semaphore};
use waits::Waits;

/// The request that a reply is for. A connection makes one request at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket {
    /// The process that has made the request.
    pub(super) client: u64,
    pub(super) connection: u64,
}

/// Calls a function with a value and further arguments. Returns the new value.
pub(super) type Run<'r> = &'r dyn Fn(&Call<'_>, &Attachments, &Value) -> Result<Value, Fault>;

/// The objects of a manager.
#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: HashMap<u64, Object>,
    created: u64,
    waits: Waits,
}

impl Objects {
    /// Handles a request, which came with these attachments. The reply is among the [replies](Self::take_replies), now or later.
    pub(super) fn handle(
        &mut self,
        from: Ticket,
        request: &Request<'_>,
        with: &Attachments,
        now: Instant,
        run: Run<'_>,
    ) {
        let reply = match request {
            Request::Create(create) => Some(self.create(create, with)),
            Request::Use { object, action } => {
                let context = Context { from, object: *object, with, now, run };
                self.act(&context, action)
            }
        };
        if let Some(reply) = reply {
            self.waits.reply(from, reply);
        }
    }

    /// Returns the replies that are due.
    pub(super) fn take_replies(&mut self) -> Vec<(Ticket, Reply)> {
        std::mem::take(&mut self.waits.replies)
    }

    /// Returns the time at which the next request has waited for long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waits.next_deadline()
    }

    /// Ends the waits whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((ticket, at)) = self.waits.next_expired(now) {
            let Some(object) = self.objects.get_mut(&at) else { continue };
            match object.withdraw(ticket) {
                Some(mutex) => self.lock_again(ticket, mutex, true),
                None => self.waits.reply(ticket, Reply::TimedOut),
            }
        }
    }

    /// Forgets a request that waits, because its connection has ended.
    pub(super) fn connection_gone(&mut self, ticket: Ticket) {
        let Some(at) = self.waits.remove(ticket) else { return };
        let Some(object) = self.objects.get_mut(&at) else { return };
        object.withdraw(ticket);
        // The others would wait for one that does not come.
        if let Object::Barrier { waiting, .. } = object {
            let words = "the barrier is broken: a process that waited at it has ended";
            std::mem::take(waiting)
                .into_iter()
                .for_each(|other| self.waits.reply(other, Reply::refused(words)));
        }
    }

    /// Takes back what a client has, because it has ended: its locks, its permits, and its waits.
    pub(super) fn client_gone(&mut self, client: u64) {
        self.waits.of_client(client).into_iter().for_each(|ticket| self.connection_gone(ticket));
        for object in self.objects.values_mut() {
            match object {
                Object::Mutex(mutex) if mutex.holder == Some(client) => mutex.release(None, &mut self.waits),
                Object::Semaphore(semaphore) => semaphore.release_all(client, &mut self.waits),
                _ => {}
            }
        }
        // It may have waited at a barrier several times.
        self.waits.replies.retain(|(to, _)| to.client != client);
    }

    fn create(&mut self, create: &Create<'_>, with: &Attachments) -> Reply {
        let object = match *create {
            Create::Queue { capacity: 0 } => {
                return Reply::refused("a queue needs room for at least one value");
            }
            Create::Barrier { parties: 0 } => {
                return Reply::refused("a barrier needs at least one party");
            }
            Create::Dict => Object::Dict(HashMap::new()),
            Create::List => Object::List(Vec::new()),
            Create::Counter(start) => Object::Counter(start),
            Create::Queue { capacity } => Object::Queue(Queue::new(capacity)),
            Create::Mutex(Bytes(value)) => Object::Mutex(Mutex::new(Value::new(value, with))),
            Create::Semaphore { permits } => Object::Semaphore(Semaphore::new(permits)),
            Create::Event => Object::Event { is_set: false, waiting: Default::default() },
            Create::Barrier { parties } => Object::Barrier { parties, waiting: Default::default() },
            Create::Condvar => Object::Condvar(Default::default()),
        };
        self.created += 1;
        self.objects.insert(self.created, object);
        Reply::Number(self.created as i64)
    }

    /// Performs an action. Returns `None` if its request waits.
    fn act(&mut self, context: &Context<'_>, action: &Action<'_>) -> Option<Reply> {
        let Some(object) = self.objects.get_mut(&context.object) else {
            return Some(Reply::refused(format!("the manager has no object {}", context.object)));
        };
        let waits = &mut self.waits;
        let reply = match object {
            Object::Dict(dict) => context.dict(dict, action).map(Some),
            Object::List(list) => context.list(list, action).map(Some),
            Object::Counter(counter) => context.counter(counter, action).map(Some),
            Object::Queue(queue) => context.queue(queue, action, waits),
            Object::Mutex(mutex) => context.mutex(mutex, action, waits),
            Object::Semaphore(semaphore) => context.semaphore(semaphore, action, waits),
            Object::Event { is_set, waiting } => context.event(is_set, waiting, action, waits),
            Object::Barrier { parties, waiting } => context.barrier(*parties, waiting, action, waits),
            Object::Condvar(_) => return self.condvar(context, action),
        };
        reply.unwrap_or_else(|NoSuchAction| Some(no_such_action(object)))
    }

    /// Performs an action of a condition variable, which also needs its mutex.
    fn condvar(&mut self, context: &Context<'_>, action: &Action<'_>) -> Option<Reply> {
        match action {
            Action::WaitWith { mutex, changed, wait } => {
                match self.objects.get_mut(mutex) {
                    Some(Object::Mutex(mutex)) if mutex.holder == Some(context.from.client) => {
                        let changed = changed.as_ref().map(|value| context.value(value));
                        mutex.release(changed, &mut self.waits);
                    }
                    _ => return Some(Reply::refused("the mutex is not locked by this process")),
                }
                let Some(Object::Condvar(waiting)) = self.objects.get_mut(&context.object) else {
                    return None;
                };
                waiting.push_back((context.from, *mutex));
                // A wait that is over at once still gives the others their turn.
                self.waits.add(context.from, context.object, wait.map(|wait| context.deadline(wait)));
                None
            }
            Action::Notify { all } => {
                let Some(Object::Condvar(waiting)) = self.objects.get_mut(&context.object) else {
                    return None;
                };
                let woken = if *all { waiting.len() } else { waiting.len().min(1) };
                let woken: Vec<_> = waiting.drain(..woken).collect();
                woken.into_iter().for_each(|(ticket, mutex)| self.lock_again(ticket, mutex, false));
                Some(Reply::Done)
            }
            _ => self.objects.get(&context.object).map(no_such_action),
        }
    }

    /// Locks a mutex for a request that has waited for a condition variable.
    fn lock_again(&mut self, ticket: Ticket, mutex: u64, timed_out: bool) {
        self.waits.remove(ticket);
        if let Some(Object::Mutex(object)) = self.objects.get_mut(&mutex) {
            self.waits.add(ticket, mutex, None);
            object.lock_again(ticket, timed_out, &mut self.waits);
        }
    }
}

fn no_such_action(object: &Object) -> Reply {
    Reply::refused(format!("a {} has no such operation", object.name()))
}
