//! Handles the end of workers: retries or fails their tasks, and decides about further starts.
//!
//! A worker's tasks are settled only here, after its process was reaped, because only then can it not run anything more. How long
//! to pause before the next start is decided by `restarts`.

use std::{mem, time::Instant};

use super::{
    batch::Batch,
    queues::GivenUp,
    restarts::{Others, Streak, Verdict},
    state::Scheduler,
};
use crate::{
    codec::Encoded,
    error::{Exit, POOL_ENDED, TaskErrorKind},
    id::WorkerId,
    launch::{CLOSED_WITHIN, LaunchError},
    panic::RemotePanic,
    protocol::Outcome,
    supervisor::{
        event::{ExitReport, Phase},
        exit::{crash, is_killed_for_memory, killed_for_memory, why_not_started},
        ledger::InFlightTasks,
        state::Supervisor,
    },
    sys::identified::CLOSED,
    task::Call,
    transport::Cause,
};

/// Returns the failure that an initializer's result describes, if it does.
pub(super) fn failure(
    initializer: Option<&(Call, Outcome)>,
    result: &Encoded<'_>,
) -> Option<(String, Option<TaskErrorKind>)> {
    let (call, outcome) = initializer?;
    outcome.check("initializer", call.entry.name, result).map_err(|words| (words, None)).err()
}

pub(super) fn the_initializer(initializer: Option<&(Call, Outcome)>) -> String {
    format!("the initializer `{}`", initializer.map_or("", |(call, _)| call.entry.name))
}

impl Scheduler {
    /// Reaps a worker whose process has ended, and settles the tasks that it had.
    pub(super) fn reap(&mut self, place: usize, now: Instant) {
        let worker = &mut self.workers[place];
        let id = worker.id();
        let exit_report = worker.reap(now);
        let Some(exit_report) = exit_report else { return };
        let had_begun = exit_report.running.is_some() || !exit_report.unknown.is_empty();
        self.queues.tally(id).ended(now, had_begun);
        self.queues.progress.remove(&id);
        self.queues.overdue.remove(&id);
        let initializing = self.queues.initializing.remove(&id);
        let finalizing = self.forget_leaving(id);
        let ExitReport {
            pid,
            launched_at,
            was,
            exit,
            cause,
            reason,
            was_short,
            mut panic,
            killed,
            stopped,
            running,
            output,
            waiting,
            unknown,
            was_useful,
        } = exit_report;
        #[cfg(feature = "tracing")]
        self.effects.ended.push(pid);
        if let Some(timeline) = &self.queues.timeline {
            let how = exit.map_or_else(|_| "unknown".to_owned(), |exit| exit.to_string());
            let name = if was == Phase::Draining || exit.is_ok_and(|exit| exit.code() == Some(0)) {
                "end"
            } else {
                "crash"
            };
            timeline.instant(id, name, &[("process", &pid.to_string()), ("how", &how)]);
        }
        // Which task ended a worker is known only if the worker could note what it began.
        let was_idle = running.is_none() && unknown.is_empty();
        if was_idle && cause == Some(Cause::DescriptorsClosed) && !mem::replace(&mut self.said_closed, true) {
            self.effects.notes.push(format!(
                "worker {id} (pid {pid}) is replaced: {CLOSED_WITHIN}; further cases are not logged"
            ));
        }
        if let Some(output) = output.as_ref().filter(|_| was_idle || initializing || finalizing) {
            self.effects.shows.push(output.clone());
        }
        if initializing {
            if !killed {
                let by_kernel = self.is_killed_for_memory(exit);
                let kind = self.crash((exit, cause, reason), panic.take(), by_kernel);
                let words = kind.of(&the_initializer(self.config.initializer.as_ref()));
                self.initializer_failed(launched_at, now, (words, Some(kind)));
            }
            return;
        }
        if finalizing {
            // An idle worker had finished its finalizer.
            if !was_idle || !waiting.is_empty() {
                let kind = stopped
                    .unwrap_or_else(|| crash((exit, cause, reason), panic, self.config.surroundings.memory));
                let error = self.queues.exit_error(self.config.lives.finalizer.as_ref(), kind, (id, pid));
                self.leaving.add_exit(Err(error));
            }
            return;
        }
        let by_kernel = !killed && self.is_killed_for_memory(exit);
        let mut waiting = waiting;
        let mut running = running;
        if running.is_none() && cause == Some(Cause::OutOfMemory) && !waiting.is_empty() {
            // The worker ran out of memory while it read the next task.
            let mut next = waiting.remove(0);
            running = Some(next.take_first(1));
            if next.len() > 0 {
                waiting.insert(0, next);
            }
        }
        self.queues.take_home(waiting, id);
        if let Some(task) = running {
            self.queues.leave(&task, id);
            let retries = self.queues.options_of(task.queue).retries.unwrap_or(0);
            let kind = if let Some(kind) = &stopped {
                kind.clone()
            } else if let Some(reason) = reason.as_ref().filter(|_| killed) {
                TaskErrorKind::Lost { message: format!("its worker was killed: {reason}") }
            } else {
                self.crash((exit, cause, reason.clone()), panic.take(), by_kernel)
            };
            let died = matches!(kind, TaskErrorKind::Crash { .. } | TaskErrorKind::OutOfMemory { .. });
            let again = task.attempts <= retries && died && !self.closing;
            if again {
                self.effects.shows.extend(output.clone());
                if let Some(timeline) = &self.queues.timeline {
                    let (function, number) = (task.function(), task.first.to_string());
                    timeline.instant(id, "retry", &[("function", function), ("index", &number)]);
                }
                self.queues.put_first(task, id);
            } else {
                task.tell(output.clone(), &mut self.effects);
                let by = (id, pid, output.as_ref());
                self.queues.fail(task, &kind, Some(by), &mut self.effects);
            }
        }
        if self.closing {
            // The tasks that the worker had not begun are queued again, and a closing pool runs no more tasks.
            self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        } else if let Some(given_up) = &self.queues.given_up {
            // The pool was given up while this worker was ending.
            let kind = given_up.kind.clone();
            self.fail_queued(&kind);
        }
        for batch in unknown {
            self.queues.leave(&batch, id);
            let how = match (exit, &reason) {
                (Ok(exit), _) if cause == Some(Cause::DescriptorsClosed) => {
                    format!(" ({exit}): {CLOSED_WITHIN}")
                }
                (Ok(exit), Some(reason)) => format!(" ({exit}): {reason}"),
                (Ok(exit), None) => format!(" ({exit})"),
                (Err(why), _) => format!(" ({why})"),
            };
            // Without a board at most one task is in flight.
            let kind = stopped.clone().unwrap_or_else(|| TaskErrorKind::Lost {
                message: format!("its worker has ended{how}, and it is unknown whether it ran"),
            });
            batch.tell(output.clone(), &mut self.effects);
            self.queues.fail(batch, &kind, Some((id, pid, output.as_ref())), &mut self.effects);
        }
        let died_at_start = was == Phase::Starting || (was == Phase::Serving && was_idle && !was_useful);
        // A reason says that the worker was killed for what it sent.
        if died_at_start && (!killed || reason.is_some()) && !self.closing {
            if was_short && let Some(reason) = &reason {
                return self.is_short(launched_at, now, reason);
            }
            let why = why_not_started(&format!("worker {id} (pid {pid})"), exit, cause, reason);
            self.start_failed(launched_at, now, why, None);
        }
    }

    fn is_killed_for_memory(&mut self, exit: Result<Exit, &'static str>) -> bool {
        is_killed_for_memory(exit, &mut self.oom_kills, || self.launcher.oom_kills())
    }

    /// Returns the cause of a worker's death, like [`crash`], with what the pool knows about its memory.
    fn crash(
        &self,
        end: (Result<Exit, &'static str>, Option<Cause>, Option<String>),
        panic: Option<RemotePanic>,
        by_kernel: bool,
    ) -> TaskErrorKind {
        if by_kernel {
            return killed_for_memory(end.0);
        }
        crash(end, panic, self.config.surroundings.memory)
    }

    /// Handles an error of the launcher.
    pub(crate) fn launch_failed(&mut self, now: Instant, error: LaunchError) {
        match error {
            error if error.is_shortage() => self.is_short(now, now, &error),
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
    fn is_short(&mut self, begun: Instant, now: Instant, of: &dyn std::fmt::Display) {
        let others = self.others(now);
        if let Verdict::GiveUp { starts, time } = self.restarts.short(begun, others, now) {
            let why = format!("{of}; gave up after {starts} attempts in {time:.1?}");
            self.give_up_for_now(TaskErrorKind::NotStarted { why, cause: None }, now);
        } else if others == Others::Serve && self.is_enough_for_pinned(begun, now) {
            self.fail_pinned(&TaskErrorKind::NotStarted { why: of.to_string(), cause: None });
        }
    }

    /// Returns whether pinned tasks have waited long enough for a worker that does not start. While other workers serve, starts
    /// are tried without end, but pinned tasks must not wait for that.
    fn is_enough_for_pinned(&mut self, begun: Instant, now: Instant) -> bool {
        if !self.has_pinned_for_vacant() {
            self.pinned = None;
            return false;
        }
        let start_timeout = self.config.start_timeout;
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
        for batch in
            ids.into_iter().filter_map(|id| self.queues.pinned.remove(&id)).flatten().collect::<Vec<_>>()
        {
            self.queues.fail(batch, kind, None, &mut self.effects);
        }
    }

    /// Handles a failed initializer, described in words and as a task's error.
    pub(super) fn initializer_failed(
        &mut self,
        begun: Instant,
        now: Instant,
        (why, kind): (String, Option<TaskErrorKind>),
    ) {
        self.start_failed(begun, now, why, kind);
    }

    /// Handles a failed start that was begun at `begun`: pauses before the next start, or gives up.
    fn start_failed(&mut self, begun: Instant, now: Instant, why: String, cause: Option<TaskErrorKind>) {
        let others = self.others(now);
        let verdict = if self.queues.is_given_up(now) {
            Verdict::Retry
        } else {
            self.restarts.failed(begun, others, now)
        };
        let Verdict::GiveUp { starts, time } = verdict else {
            if others == Others::Serve && self.is_enough_for_pinned(begun, now) {
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
        let is_initializing =
            |worker: &&Supervisor<Batch>| worker.is_live() && initializing.contains(&worker.id());
        self.workers.live() > self.workers.up().filter(is_initializing).count()
    }

    /// Returns what the pool has besides a start that failed.
    fn others(&self, now: Instant) -> Others {
        if self.some_serve() {
            return Others::Serve;
        }
        let initializing = &self.queues.initializing;
        let begun = self
            .workers
            .up()
            .filter(|worker| {
                worker.is_starting() || (worker.is_live() && initializing.contains(&worker.id()))
            })
            .filter_map(Supervisor::launched_at)
            .filter(|&at| now.saturating_duration_since(at) < self.config.start_timeout);
        begun.min().map_or(Others::None, Others::Start)
    }

    /// Fails all present and future tasks, because other code has closed the pool's descriptors.
    ///
    /// The descriptors' numbers may belong to other files, so the workers are not touched. They end by themselves, as their
    /// connections have ended.
    pub(crate) fn break_down(&mut self) {
        let kind = TaskErrorKind::Lost { message: CLOSED.to_owned() };
        self.queues.given_up = Some(GivenUp { kind: kind.clone(), until: None, next_call: None });
        self.unread.clear();
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next) {
            next = place + 1;
            let id = self.workers[place].id();
            let Some((pid, batches)) = self.workers[place].abandon() else { continue };
            let was_own = self.queues.initializing.remove(&id) | self.forget_leaving(id);
            self.queues.progress.remove(&id);
            self.queues.overdue.remove(&id);
            for batch in batches.filter(|_| !was_own) {
                self.queues.leave(&batch, id);
                self.queues.fail(batch, &kind, Some((id, pid, None)), &mut self.effects);
            }
        }
        self.fail_queued(&kind);
    }

    /// Fails everything that waits.
    pub(crate) fn fail_queued(&mut self, kind: &TaskErrorKind) {
        let queues = &mut self.queues;
        for id in Vec::from(queues.turns.clone()) {
            for batch in queues.take_all(id) {
                queues.fail(batch, kind, None, &mut self.effects);
            }
            queues.tidy(id);
        }
        for batch in std::mem::take(&mut queues.pinned).into_values().flatten() {
            queues.fail(batch, kind, None, &mut self.effects);
        }
    }
}
