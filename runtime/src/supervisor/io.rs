//! Sends, flushes, parks and wakes the connection of a worker.

use std::{io, time::Instant};

use super::{
    ledger::Load,
    state::{State, Supervisor},
};
use crate::sys::poll::Poller;

impl<T: Load> Supervisor<T> {
    /// Has the worker see what it was sent.
    pub(crate) fn ring(&mut self, now: Instant, poller: &Poller) {
        let key = self.key();
        if let State::Live { link, in_flight } = &mut self.state {
            link.launched.sender.ring();
            if link.ledger.look_at.is_none() {
                // It had nothing.
                link.ledger.count_anew(now);
            }
            // It may have had one task, and have more now.
            if link.ledger.look_at.is_none_or(|at| at > now + link.ledger.look_after) {
                link.ledger.look_later(in_flight.tasks, now);
            }
            link.await_room(key, poller);
        }
    }

    /// Wakes it before there is something for it.
    pub(crate) fn rouse(&mut self) {
        if let State::Live { link, .. } = &mut self.state {
            link.launched.sender.ring();
        }
    }

    /// Sends more of what is queued, when there is room.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        let key = self.key();
        if let State::Live { link, .. } = &mut self.state
            && link.launched.sender.queued_bytes() > 0
        {
            if let Err(error) = link.launched.sender.flush()
                && error.kind() == io::ErrorKind::InvalidData
            {
                link.launched.process.held().kill();
            }
            link.await_room(key, poller);
        }
    }

    /// The worker has said something that no poller tells of. One look.
    pub(crate) fn has_arrivals(&self) -> bool {
        match &self.state {
            // What a lost worker has left unread nobody will read.
            State::Vacant | State::Lost { .. } => false,
            State::Starting { link, .. } | State::Draining { link, .. } | State::Live { link, .. } => {
                link.launched.receiver.has_arrivals()
            }
        }
    }

    /// A large frame is on its way to the worker, or from it.
    pub(crate) fn is_streaming(&self) -> bool {
        let State::Live { link, .. } = &self.state else { return false };
        link.launched.sender.queued_bytes() > 0 || link.launched.receiver.is_midway()
    }

    /// There is room for some of what is queued for the worker. One look.
    pub(crate) fn has_room(&mut self) -> bool {
        match &mut self.state {
            State::Live { link, .. } => link.launched.sender.has_room(),
            _ => false,
        }
    }

    /// The poller need tell no more: somebody looks.
    pub(crate) fn unpark(&mut self) {
        if let State::Live { link, .. } = &mut self.state {
            link.launched.receiver.unpark();
        }
    }

    /// Has the poller tell of whatever the worker says from now on. `false`: it has said something already.
    pub(crate) fn park(&mut self) -> bool {
        match &mut self.state {
            State::Vacant | State::Lost { .. } => true,
            State::Starting { link, .. } | State::Draining { link, .. } | State::Live { link, .. } => {
                link.launched.receiver.park()
            }
        }
    }
}
