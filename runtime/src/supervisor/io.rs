//! Sends, flushes, parks and wakes the connection of a worker.
//!
//! Nothing here blocks: frames that do not fit into the connection are queued in the sender.

use std::{io, time::Instant};

use super::state::Supervisor;

impl Supervisor {
    /// Wakes the worker for what it was sent.
    pub(crate) fn ring(&mut self, now: Instant) {
        if let Some(link) = self.live_mut() {
            link.launched.sender.ring();
            if link.ledger.look_at.is_none() {
                // The worker was idle.
                link.ledger.count_anew(now);
            }
            // The worker may have had one task and have more now.
            if link.ledger.look_at.is_none_or(|at| at > now + link.ledger.look_after) {
                link.ledger.look_later(link.in_flight.tasks, now);
            }
            link.await_room(now);
        }
    }

    /// Wakes the worker before there is something to send.
    pub(crate) fn wake_ahead(&mut self) {
        if let Some(link) = self.live_mut() {
            link.launched.sender.ring();
        }
    }

    /// Sends more of what is queued, if there is room.
    pub(crate) fn flush(&mut self, now: Instant) {
        if let Some(link) = self.live_mut()
            && link.launched.sender.queued_bytes() > 0
        {
            if let Err(error) = link.launched.sender.flush()
                && error.kind() == io::ErrorKind::InvalidData
            {
                link.launched.peer.kill();
            }
            link.await_room(now);
        }
    }

    /// Returns whether the worker's ring contains something. Looks once.
    pub(crate) fn has_arrivals(&self) -> bool {
        // What a lost worker has left in its ring is not read any more.
        self.link.as_ref().is_some_and(|link| !link.is_lost() && link.launched.receiver.has_arrivals())
    }

    /// Returns whether a large frame is on its way to or from the worker.
    pub(crate) fn is_streaming(&self) -> bool {
        self.live()
            .is_some_and(|link| link.launched.sender.queued_bytes() > 0 || link.launched.receiver.is_midway())
    }

    /// Returns whether there is room for what is queued for the worker. Looks once.
    pub(crate) fn has_room(&mut self) -> bool {
        self.live_mut().is_some_and(|link| link.launched.sender.has_room())
    }

    /// Stops the worker from waking the poller for its replies, because the leader looks at its ring.
    pub(crate) fn unpark(&mut self) {
        if let Some(link) = self.live_mut() {
            link.launched.receiver.unpark();
        }
    }

    /// Has the worker wake the poller for its replies from now on. Returns `false` if a reply has already arrived.
    pub(crate) fn park(&mut self) -> bool {
        self.link.as_mut().is_none_or(|link| link.is_lost() || link.launched.receiver.park())
    }
}
