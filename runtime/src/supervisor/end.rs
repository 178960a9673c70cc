//! Drains, kills, loses and reaps a worker.
//!
//! A process is signalled through its pidfd, and only until it was reaped. What becomes of its tasks is decided by the caller of
//! [`Supervisor::reap`].

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use super::{
    event::{ExitReport, Phase},
    state::{State, Supervisor},
};
use crate::batch::Batch;

/// The time that a worker has to end by itself after its connection has ended.
pub(super) const END_GRACE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Asks an idle worker to leave: Idle → Draining.
    pub(crate) fn drain(&mut self, now: Instant) {
        debug_assert!(self.is_idle(), "only an idle worker is drained");
        if let Some(link) = self.live_mut() {
            link.launched.sender.close();
            link.state = State::Draining { deadline: now + END_GRACE };
        }
    }

    /// Kills the process. Its exit report follows when it is reaped.
    pub(crate) fn kill(&mut self) {
        if let Some(link) = &mut self.link {
            link.killed = true;
            link.launched.peer.kill();
        }
    }

    /// Kills a worker that cannot be used: any live state → Lost.
    pub(crate) fn dismiss(&mut self, now: Instant) {
        self.kill();
        self.lose(now, None);
        if let Some(link) = &mut self.link {
            link.launched.stop_reading();
        }
    }

    /// Kills a worker that is late to start, to leave or to end.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        if self.is_live() || self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.is_starting() {
            self.lose(now, Some("it did not complete the handshake in time".to_owned()));
        }
        if let Some(link) = &mut self.link {
            if let State::Draining { deadline } | State::Lost { deadline, .. } = &mut link.state {
                *deadline = now + END_GRACE;
            }
            // The system refused to signal it before, and it did not end when its connection ended.
            link.given_up = link.launched.peer.is_refused();
            link.launched.peer.kill();
        }
    }

    /// Reaps the process if it has ended, and repairs what it has left in shared state. The place is vacant then, and the exit report is
    /// returned.
    ///
    /// Everything that the worker sent before its end must have been read.
    pub(crate) fn reap(&mut self, now: Instant) -> Option<ExitReport> {
        let link = self.link.as_mut()?;
        let exit = match link.launched.peer.try_reap() {
            Some(exit) => exit,
            None if link.given_up => {
                link.launched.peer.give_up();
                Err("it could not be ended, because the system refuses to signal it")
            }
            None => return None,
        };
        self.lose(now, None);
        let mut link = self.link.take()?;
        let State::Lost { was, reason, .. } = link.state else { unreachable!("`lose` has just made it so") };
        link.launched.unwatch();
        let shared = link.segments.values().chain(link.returned.values()).filter_map(Weak::upgrade);
        shared.for_each(|segment| segment.recover(link.launched.peer.pid()));
        let oldest = link.in_flight.batches.front().map(|(seq, _)| *seq);
        let mut exit_report = ExitReport {
            pid: link.launched.peer.pid(),
            launched_at: link.launched_at,
            was,
            exit,
            cause: link.launched.peer.cause(exit),
            was_short: was == Phase::Starting
                && link.last_words.as_ref().is_some_and(|refused| refused.is_short),
            reason: reason.or(link.last_words.map(|refused| refused.reason)),
            panic: link.ledger.panic.filter(|(seq, _)| oldest == Some(*seq)).map(|(_, panic)| panic),
            killed: link.killed,
            stopped: link.in_flight.stop.take().map(|stop| stop.kind),
            running: None,
            output: None,
            waiting: Vec::new(),
            unknown: Vec::new(),
            was_useful: link.ledger.results > 0,
        };
        if let Some(begun) = link.launched.peer.begun() {
            // A worker publishes a result before it begins the next task, so at most one task has begun without a result. Any
            // other value was not written by a worker of ours and means nothing.
            if oldest == Some(begun) || begun == link.ledger.ended_seq {
                exit_report.waiting = link.in_flight.split_begun(begun);
                exit_report.running = link.in_flight.batches.pop_front().map(|(_, batch)| batch);
            }
        }
        exit_report.unknown = link.in_flight.batches.into_iter().map(|(_, batch)| batch).collect();
        if let Some(mut transcript) = link.transcript {
            let seq = oldest.filter(|_| exit_report.had_begun()).unwrap_or(link.ledger.next_seq);
            exit_report.output = transcript.take(seq);
        }
        Some(exit_report)
    }

    /// Notes that the connection has ended and the process is about to: any live state → Lost.
    pub(super) fn lose(&mut self, now: Instant, reason: Option<String>) {
        let Some(link) = &mut self.link else { return };
        let was = match link.state {
            State::Starting { .. } => Phase::Starting,
            State::Live => Phase::Serving,
            State::Draining { .. } => Phase::Draining,
            State::Lost { .. } => return,
        };
        link.state = State::Lost { deadline: now + END_GRACE, was, reason };
    }

    /// Abandons the process because the numbers of its descriptors may belong to other files: any state → Vacant. Nothing is
    /// closed or signalled. Returns the process's pid and the tasks without an outcome.
    pub(crate) fn abandon(&mut self) -> Option<(u32, impl Iterator<Item = Batch> + use<>)> {
        let mut link = self.link.take()?;
        let batches = std::mem::take(&mut link.in_flight.batches);
        let pid = link.launched.peer.pid();
        std::mem::forget(link);
        Some((pid, batches.into_iter().map(|(_, batch)| batch)))
    }
}
