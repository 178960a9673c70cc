//! The requests that wait, and the replies that are due.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::Ticket;
use crate::manager::request::Reply;

/// A request that waits.
#[derive(Debug)]
struct Wait {
    /// The object that has its place in the row.
    object: u64,
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Waits {
    waits: BTreeMap<Ticket, Wait>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    pub(super) replies: Vec<(Ticket, Reply)>,
}

impl Waits {
    /// Notes that a request waits for an object.
    pub(super) fn add(&mut self, ticket: Ticket, object: u64, deadline: Option<Instant>) {
        self.waits.insert(ticket, Wait { object, deadline });
        self.deadlines.extend(deadline.map(|deadline| (deadline, ticket)));
    }

    /// Forgets a request that waits. Returns its object.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<u64> {
        let Wait { object, deadline } = self.waits.remove(&ticket)?;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        Some(object)
    }

    /// Replies to a request, which may have waited.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.remove(ticket);
        self.replies.push((ticket, reply));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Forgets a request that has waited for long enough, if there is one. Returns it and its object.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<(Ticket, u64)> {
        let (deadline, ticket) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.remove(ticket).map(|object| (ticket, object))
    }

    /// Returns the requests of a client that wait.
    pub(super) fn of_client(&self, client: u64) -> Vec<Ticket> {
        let ticket = |connection| Ticket { client, connection };
        self.waits.range(ticket(0)..=ticket(u64::MAX)).map(|(ticket, _)| *ticket).collect()
    }
}

/// How a request may wait.
pub(super) struct Waiting {
    pub(super) from: Ticket,
    pub(super) object: u64,
    pub(super) is_now: bool,
    pub(super) deadline: Option<Instant>,
}

impl Waiting {
    /// Lets the request wait, unless it has no time to.
    pub(super) fn wait(&self, waits: &mut Waits, enter: impl FnOnce()) -> Option<Reply> {
        if self.is_now {
            return Some(Reply::TimedOut);
        }
        enter();
        waits.add(self.from, self.object, self.deadline);
        None
    }
}
