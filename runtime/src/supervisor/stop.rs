//! Asks a task to end, and ends its process step by step if it does not.

use std::time::{Duration, Instant};

use super::{
    end::END_GRACE,
    ledger::{Load, Stage, Stop},
    state::{State, Supervisor},
};
use crate::error::TaskErrorKind;

/// A task that is to end is told so first, and has so long to end by itself; then its process is asked to end.
const TELL_GRACE: Duration = Duration::from_millis(100);

/// A process that was asked to end has so long to do so; then it is killed.
const TERM_GRACE: Duration = Duration::from_millis(250);

/// What a worker has to bear is put off this often because it has said more than was read: more than its connection holds of records.
pub(super) const MOST_PUT_OFF: u32 = 1000;

impl<T: Load> Supervisor<T> {
    /// Has the newest task in flight, which has begun, end: it is told so, then its process is asked to end, then killed, each after a
    /// while. The task comes to this, even if it ends by itself. What is not begun must have been taken back.
    pub(crate) fn stop(&mut self, kind: TaskErrorKind, now: Instant) {
        if let State::Live { link, in_flight } | State::Lost { link, in_flight, .. } = &mut self.state
            && in_flight.stop.is_none()
            && let Some((seq, load)) = in_flight.loads.back()
        {
            let newest = seq.wrapping_add(load.len()).wrapping_sub(1);
            match &link.launched.board {
                Some(board) => board.tell_to_end(newest),
                // The one word that it hears while it works: that nothing more will come.
                None => link.launched.sender.close(),
            }
            in_flight.stop = Some(Stop { kind, stage: Stage::Told, due: now + TELL_GRACE });
        }
    }

    /// As [`stop`](Self::stop), at once and with whatever else is in flight.
    pub(crate) fn stop_now(&mut self, kind: TaskErrorKind, now: Instant) {
        if let State::Live { in_flight, .. } | State::Lost { in_flight, .. } = &mut self.state
            && in_flight.tasks > 0
        {
            in_flight.stop = Some(Stop { kind, stage: Stage::Killed, due: now + END_GRACE });
        }
        self.kill();
    }

    /// A task of this worker is to end; nothing is to be sent behind it.
    pub(crate) fn is_stopping(&self) -> bool {
        self.in_flight_or_none().is_some_and(|in_flight| in_flight.stop.is_some())
    }

    /// What it has said is known, as far as that can be waited for. `to_the_end`: it was read to the end just now.
    pub(crate) fn is_heard(&mut self, to_the_end: bool) -> bool {
        let Some(link) = self.link_mut() else { return true };
        link.put_off = if to_the_end { 0 } else { link.put_off.saturating_add(1) };
        to_the_end || link.put_off > MOST_PUT_OFF
    }

    /// When [`stop_further`](Self::stop_further) is due.
    pub(crate) fn stop_due(&self) -> Option<Instant> {
        self.in_flight_or_none()?.stop.as_ref().map(|stop| stop.due)
    }

    /// The task that is to end has not: does the next thing about it.
    pub(crate) fn stop_further(&mut self, now: Instant) {
        let (State::Live { link, in_flight } | State::Lost { link, in_flight, .. }) = &mut self.state else {
            return;
        };
        let Some(stop) = &mut in_flight.stop else { return };
        link.killed = true;
        let process = link.launched.process.held();
        (stop.stage, stop.due) = match stop.stage {
            Stage::Told => {
                // One that has ended is seen to have ended.
                let _ = process.terminate();
                (Stage::Terminated, now + TERM_GRACE)
            }
            Stage::Terminated | Stage::Killed => {
                process.kill();
                (Stage::Killed, now + END_GRACE)
            }
        };
    }

    /// When [`is_over`](Self::is_over) is to be asked, for a task that may run so long.
    pub(crate) fn over_due(&self, limit: Duration) -> Option<Instant> {
        let State::Live { link, in_flight } = &self.state else { return None };
        let is_counting = in_flight.tasks > 0 && in_flight.stop.is_none();
        is_counting.then(|| link.ledger.next_count(limit))
    }

    /// Whether the oldest task in flight has run for longer than it may; counts the time until now.
    pub(crate) fn is_over(&mut self, limit: Duration, now: Instant) -> bool {
        let has_begun = self.has_begun() || !self.has_board();
        let State::Live { link, in_flight } = &mut self.state else { return false };
        in_flight.tasks > 0 && in_flight.stop.is_none() && link.ledger.count(limit, has_begun, now)
    }
}
