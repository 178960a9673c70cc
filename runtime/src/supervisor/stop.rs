//! Stops a task: tells it to end, and ends its process step by step if it does not.
//!
//! Timeouts, cancellation and failed calls all stop a task in this way. Tasks that have not begun must have been taken back
//! before.

use std::time::{Duration, Instant};

use super::{
    end::END_GRACE,
    ledger::{InFlightTasks, Stage, Stop},
    state::{State, Supervisor},
};
use crate::error::TaskErrorKind;

/// The time that a task has to return after it was told to end. Its process is terminated after that.
const TELL_GRACE: Duration = Duration::from_millis(100);

/// The time that a process has to end after SIGTERM. It is killed after that.
const TERM_GRACE: Duration = Duration::from_millis(250);

/// The time for which a stop is put off because the worker has sent more than was read. What the connection holds is read in less,
/// unless the user's logger is slow.
const MOST_PUT_OFF: Duration = Duration::from_millis(500);

impl<T: InFlightTasks> Supervisor<T> {
    /// Stops the newest task in flight, which has begun: it is told to end, then its process is terminated, then killed, each
    /// after a while. The task fails with `kind` even if it returns. The tasks that have not begun must have been taken back.
    pub(crate) fn stop(&mut self, kind: TaskErrorKind, now: Instant) {
        if let State::Live { link, in_flight } | State::Lost { link, in_flight, .. } = &mut self.state
            && in_flight.stop.is_none()
            && let Some((seq, load)) = in_flight.loads.back()
        {
            let newest = seq.wrapping_add(load.len()).wrapping_sub(1);
            match &link.launched.board {
                Some(board) => board.tell_to_end(newest),
                // The end of the connection is the only message that it notices while it runs a task.
                None => link.launched.sender.close(),
            }
            in_flight.stop = Some(Stop { kind, stage: Stage::Told, due: now + TELL_GRACE });
        }
    }

    /// Kills the process immediately. The running task fails with `kind`.
    pub(crate) fn stop_now(&mut self, kind: TaskErrorKind, now: Instant) {
        if let State::Live { in_flight, .. } | State::Lost { in_flight, .. } = &mut self.state
            && in_flight.tasks > 0
        {
            in_flight.stop = Some(Stop { kind, stage: Stage::Killed, due: now + END_GRACE });
        }
        self.kill();
    }

    /// Returns whether a task of this worker is being stopped, so that nothing may be sent behind it.
    pub(crate) fn is_stopping(&self) -> bool {
        self.in_flight_or_none().is_some_and(|in_flight| in_flight.stop.is_some())
    }

    /// Returns whether the worker's messages are known as far as can be waited for. `to_the_end` says whether it was read to the
    /// end just now.
    pub(crate) fn is_heard(&mut self, to_the_end: bool, now: Instant) -> bool {
        to_the_end
            || self.link_mut().is_none_or(|link| now >= *link.put_off_since.get_or_insert(now) + MOST_PUT_OFF)
    }

    /// Returns when [`stop_further`](Self::stop_further) is due.
    pub(crate) fn stop_due(&self) -> Option<Instant> {
        self.in_flight_or_none()?.stop.as_ref().map(|stop| stop.due)
    }

    /// Takes the next step, because the task has not ended.
    pub(crate) fn stop_further(&mut self, now: Instant) {
        let (State::Live { link, in_flight } | State::Lost { link, in_flight, .. }) = &mut self.state else {
            return;
        };
        let Some(stop) = &mut in_flight.stop else { return };
        link.killed = true;
        let process = &link.launched.process;
        (stop.stage, stop.due) = match stop.stage {
            Stage::Told => {
                process.terminate();
                (Stage::Terminated, now + TERM_GRACE)
            }
            Stage::Terminated | Stage::Killed => {
                process.kill();
                (Stage::Killed, now + END_GRACE)
            }
        };
    }

    /// Returns when [`is_over`](Self::is_over) must be called for a task with this time limit.
    pub(crate) fn over_due(&self, limit: Duration) -> Option<Instant> {
        let State::Live { link, in_flight } = &self.state else { return None };
        let is_counting = in_flight.tasks > 0 && in_flight.stop.is_none();
        is_counting.then(|| link.ledger.next_count(limit))
    }

    /// Counts the running time of the oldest task in flight until now. Returns whether it has exceeded the limit.
    pub(crate) fn is_over(&mut self, limit: Duration, now: Instant) -> bool {
        let has_begun = self.has_begun() || !self.has_board();
        let State::Live { link, in_flight } = &mut self.state else { return false };
        in_flight.tasks > 0 && in_flight.stop.is_none() && link.ledger.count(limit, has_begun, now)
    }
}
