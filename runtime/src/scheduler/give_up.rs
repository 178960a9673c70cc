//! Decides what follows when a worker cannot be started: another attempt after a pause, or the end of the attempts.
//!
//! How long to pause, and how many failures are too many, is decided by `restarts`.

use std::time::Instant;

use super::{
    queues::GivenUp,
    restarts::{Others, Streak, Verdict},
    state::Scheduler,
};
use crate::{error::TaskErrorKind, id::WorkerId, launch::LaunchError, supervisor::state::Supervisor};

impl Scheduler {
    /// Handles an error of the launcher.
    pub(crate) fn launch_failed(&mut self, now: Instant, error: LaunchError) {
        match error {
            error if error.is_shortage() => self.start_lacks_resources(now, now, &error),
            LaunchError::Refused(why) => {
                let kind = TaskErrorKind::NotStarted { why, cause: None };
                if self.others(now) != Others::None {
                    self.restarts.pause(now);
                    self.fail_pinned(&kind);
                } else {
                    self.give_up_for_now(kind, now);
                }
            }
            error => self.start_failed(now, now, error.to_string(), None),
        }
    }

    /// Handles a start, begun at `begun`, that failed because the system lacks a resource.
    pub(super) fn start_lacks_resources(&mut self, begun: Instant, now: Instant, of: &dyn std::fmt::Display) {
        let others = self.others(now);
        if let Verdict::GiveUp { starts, time } = self.restarts.short(begun, others, now) {
            let why = format!("{of}; gave up after {starts} attempts in {time:.1?}");
            self.give_up_for_now(TaskErrorKind::NotStarted { why, cause: None }, now);
        } else if others == Others::Serve && self.pinned_waited_enough(begun, now) {
            self.fail_pinned(&TaskErrorKind::NotStarted { why: of.to_string(), cause: None });
        }
    }

    /// Returns whether pinned tasks have waited long enough for a worker that does not start. While other workers serve, starts
    /// are tried without end, but pinned tasks must not wait for that.
    fn pinned_waited_enough(&mut self, begun: Instant, now: Instant) -> bool {
        if !self.has_pinned_for_vacant() {
            self.pinned = None;
            return false;
        }
        let start_timeout = self.config.spawn.start_timeout;
        let is_enough = Streak::add(&mut self.pinned, begun, now, start_timeout) >= start_timeout;
        self.pinned.take_if(|_| is_enough);
        is_enough
    }

    fn has_pinned_for_vacant(&self) -> bool {
        self.queues.pinned.keys().any(|id| self.workers[id.0 as usize].is_vacant())
    }

    /// Fails the pinned tasks of vacant places.
    fn fail_pinned(&mut self, kind: &TaskErrorKind) {
        let vacant = |id: &&WorkerId| self.workers[id.0 as usize].is_vacant();
        let ids: Vec<WorkerId> = self.queues.pinned.keys().filter(vacant).copied().collect();
        for id in ids {
            for batch in self.queues.pinned.remove(&id).into_iter().flatten() {
                self.queues.fail(batch, kind, None, &mut self.effects);
            }
        }
    }

    /// Handles a failed start that was begun at `begun`: pauses before the next start, or gives up.
    pub(super) fn start_failed(
        &mut self,
        begun: Instant,
        now: Instant,
        why: String,
        cause: Option<TaskErrorKind>,
    ) {
        let others = self.others(now);
        let verdict = if self.queues.is_given_up(now) {
            Verdict::Retry
        } else {
            self.restarts.failed(begun, others, now)
        };
        let Verdict::GiveUp { starts, time } = verdict else {
            if others == Others::Serve && self.pinned_waited_enough(begun, now) {
                self.fail_pinned(&TaskErrorKind::NotStarted { why, cause: cause.map(Box::new) });
            }
            return;
        };
        let why = format!("{why}; gave up after {starts} failed starts in {time:.1?}");
        let kind = TaskErrorKind::NotStarted { why, cause: cause.map(Box::new) };
        self.give_up(kind, None, now);
    }

    /// Fails what waits and what the open calls will add. Later calls and single tasks are tried again.
    fn give_up_for_now(&mut self, kind: TaskErrorKind, now: Instant) {
        self.give_up(kind, Some(self.next_call), now);
    }

    fn give_up(&mut self, kind: TaskErrorKind, next_call: Option<u64>, now: Instant) {
        self.fail_queued(&kind);
        self.queues.given_up = Some(GivenUp { kind, until: Some(self.restarts.over_at(now)), next_call });
    }

    /// Returns whether a worker could run tasks.
    fn some_serve(&self) -> bool {
        let initializing = &self.queues.initializing;
        let is_initializing = |worker: &&Supervisor| worker.is_live() && initializing.contains(&worker.id());
        self.workers.live() > self.workers.active().filter(is_initializing).count()
    }

    /// Returns what the pool has besides a start that failed.
    fn others(&self, now: Instant) -> Others {
        if self.some_serve() {
            return Others::Serve;
        }
        let initializing = &self.queues.initializing;
        let begun = self
            .workers
            .active()
            .filter(|worker| {
                worker.is_starting() || (worker.is_live() && initializing.contains(&worker.id()))
            })
            .filter_map(Supervisor::launched_at)
            .filter(|&at| now.saturating_duration_since(at) < self.config.spawn.start_timeout);
        begun.min().map_or(Others::None, Others::Start)
    }
}
