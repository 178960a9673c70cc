//! Takes back tasks that have not begun, and stops a task that has: tells it to end, and ends its process step by step if it does not.
//!
//! Timeouts, cancellation and failed calls all stop a task in this way. The tasks behind it must have been taken back before. A worker
//! on this machine shares a board with the host, so what it has begun is known at once. Another one answers by a message.

use std::time::{Duration, Instant};

use super::{
    end::END_GRACE,
    ledger::{Stage, Stop},
    state::{Link, Supervisor},
};
use crate::{batch::Batch, error::TaskErrorKind, launch::Launched};

/// The time that a task has to return after it was told to end. Its process is terminated after that.
const TELL_GRACE: Duration = Duration::from_millis(100);

/// The time that a process has to end after SIGTERM. It is killed after that.
const TERM_GRACE: Duration = Duration::from_millis(250);

/// The time for which a stop is put off because the worker has sent more than was read. What the connection holds is read in less,
/// unless the user's logger is slow.
const MOST_PUT_OFF: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Returns whether tasks that the worker has not begun can be taken back. If so, the task that it was running when it died is
    /// known.
    pub(crate) fn can_recall(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.can_recall)
    }

    /// Takes back every task that has not begun, oldest first. Returns `None` if the worker answers later. Then nothing may be sent to it,
    /// and the tasks come with [`WorkerEvent::Recalled`] or, if the worker ends, with its exit report.
    ///
    /// [`WorkerEvent::Recalled`]: super::event::WorkerEvent::Recalled
    pub(crate) fn take_back(&mut self, now: Instant) -> Option<Vec<Batch>> {
        // A lost worker may still begin its tasks, until its process has ended.
        let Some(Link { launched, can_recall, ledger, in_flight, .. }) = &mut self.link else {
            return Some(Vec::new());
        };
        if in_flight.recall_due.is_some() {
            return None;
        }
        if !*can_recall || in_flight.all_begun || in_flight.tasks == 0 {
            return Some(Vec::new());
        }
        let Some(begun) = launched.peer.recall(ledger.next_seq) else {
            ledger.recalls += 1;
            in_flight.recall_due = Some(now + END_GRACE);
            return None;
        };
        // The worker can write to the claim word, too. If its value makes no sense, the worker will run the tasks.
        Some(ledger.recall(begun, in_flight).unwrap_or_default())
    }

    /// Stops the newest task in flight, which has begun: it is told to end, then its process is terminated, then killed, each
    /// after a while. The task fails with `kind` even if it returns. The tasks that have not begun must have been taken back.
    pub(crate) fn stop(&mut self, kind: TaskErrorKind, now: Instant) {
        if let Some(Link { launched, in_flight, .. }) = &mut self.link
            && in_flight.stop.is_none()
            && let Some((seq, batch)) = in_flight.batches.back()
        {
            let newest = seq.wrapping_add(batch.len()).wrapping_sub(1);
            if !launched.peer.tell_to_end(newest) {
                launched.sender.close();
            }
            in_flight.stop = Some(Stop { kind, stage: Stage::Told, due: now + TELL_GRACE });
        }
    }

    /// Kills the process immediately. The running task fails with `kind`.
    pub(crate) fn stop_now(&mut self, kind: TaskErrorKind, now: Instant) {
        if let Some(Link { in_flight, .. }) = &mut self.link
            && in_flight.tasks > 0
        {
            in_flight.stop = Some(Stop { kind, stage: Stage::Killed, due: now + END_GRACE });
        }
        self.kill();
    }

    /// Returns whether nothing may be sent behind the tasks of this worker, because one is being stopped or they are being recalled.
    pub(crate) fn is_stopping(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|Link { in_flight, .. }| in_flight.stop.is_some() || in_flight.recall_due.is_some())
    }

    /// Returns whether a deadline may be enforced: the worker was just now read to the end, as `to_the_end` says, or it has sent
    /// more than was read for too long.
    pub(crate) fn may_enforce(&mut self, to_the_end: bool, now: Instant) -> bool {
        let Some(link) = &mut self.link else { return true };
        to_the_end || now >= *link.put_off_since.get_or_insert(now) + MOST_PUT_OFF
    }

    /// Returns when [`stop_further`](Self::stop_further) is due.
    pub(crate) fn stop_due(&self) -> Option<Instant> {
        self.link.as_ref()?.in_flight.stop.as_ref().map(|stop| stop.due)
    }

    /// Takes the next step, because the task has not ended.
    pub(crate) fn stop_further(&mut self, now: Instant) {
        let Some(Link { launched: Launched { peer, .. }, in_flight, killed, .. }) = &mut self.link else {
            return;
        };
        let Some(stop) = &mut in_flight.stop else { return };
        *killed = true;
        (stop.stage, stop.due) = match stop.stage {
            Stage::Told => {
                peer.terminate();
                (Stage::Terminated, now + TERM_GRACE)
            }
            Stage::Terminated | Stage::Killed => {
                peer.kill();
                (Stage::Killed, now + END_GRACE)
            }
        };
    }

    /// Returns when [`check_limit`](Self::check_limit) must be called for a task with this time limit.
    pub(crate) fn limit_check_due(&self, limit: Duration) -> Option<Instant> {
        let Link { ledger, in_flight, .. } = self.live()?;
        let is_counting = in_flight.tasks > 0 && in_flight.stop.is_none();
        is_counting.then(|| ledger.next_count(limit))
    }

    /// Counts the running time of the oldest task in flight until now. Returns whether it has exceeded the limit.
    pub(crate) fn check_limit(&mut self, limit: Duration, now: Instant) -> bool {
        // A worker that does not say what it has begun counts as running.
        let has_begun = self.has_begun() || self.peer().is_some_and(|peer| peer.begun().is_none());
        self.live_mut().is_some_and(|Link { ledger, in_flight, .. }| {
            in_flight.tasks > 0 && in_flight.stop.is_none() && ledger.count(limit, has_begun, now)
        })
    }
}
