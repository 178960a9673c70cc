//! Retires workers in good order: after their last task, when they have grown too large, were idle for too long, are too many, or
//! when the pool is joined.
//!
//! A retiring worker gets no more tasks, runs the finalizer if there is one, and is drained. The tasks that it has not begun go
//! back to their queues. Nothing here kills a process.

use std::time::Instant;

use super::state::Scheduler;
use crate::{
    batch::{Batch, QueueId, Recipient},
    codec::OwnedResult,
    error::{Result, TaskError},
    observe::levels::levels,
    protocol::{EncodedTasks, RunFlags},
    supervisor::state::Supervisor,
    task::{EncodedCall, SentTask, travels},
};

impl Scheduler {
    /// Returns how many more tasks may be sent to this worker.
    #[inline]
    pub(crate) fn quota(&self, worker: &Supervisor) -> usize {
        self.config.lives.quota(worker.given())
    }

    /// Has this worker run a function for the pool. It belongs to no caller and is not counted as a task.
    pub(crate) fn run_own(&mut self, place: usize, call: EncodedCall, now: Instant) {
        let Ok(SentTask { function, args, attachments, .. }) = travels(call, None) else { return };
        let batch = Batch {
            queue: QueueId::Pinned,
            // It has no number of its own, and uses up none of the callers' numbers.
            first: u64::MAX,
            records: EncodedTasks::of(function, args).with_attachments(&attachments),
            to: Recipient::Unclaimed,
            attempts: 1,
        };
        let worker = &mut self.workers[place];
        let is_initializer = self.queues.initializing.contains(&worker.id());
        let flags = RunFlags { levels: levels(), seed: self.seed, is_initializer, ..RunFlags::default() };
        worker.run(batch, flags);
        worker.do_not_count(1);
        worker.ring(now);
    }

    /// Retires idle workers that must leave. Called before tasks are sent.
    pub(crate) fn retire_due(&mut self, now: Instant) {
        if self.leaving.all || self.config.lives.max_tasks.is_some() {
            for place in 0..self.workers.len() {
                let worker = &self.workers[place];
                if worker.is_idle() && (self.leaving.all || self.quota(worker) == 0) {
                    self.retire(place, now);
                }
            }
        }
        if !self.leaving.who.is_empty() {
            for id in self.leaving.who.clone() {
                self.retire(id.0 as usize, now);
            }
        }
    }

    /// Retires workers that have been idle for too long. Called after tasks were sent, so that a worker that is still idle is not
    /// needed.
    pub(crate) fn retire_idle(&mut self, now: Instant) {
        let Some(timeout) = self.config.lives.idle_timeout else { return };
        if self.leaving.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.leaving.look_at = None;
        for place in 0..self.workers.len() {
            let Some(at) = self.workers[place].idle_since().map(|since| since + timeout) else { continue };
            if at <= now {
                self.retire(place, now);
            } else if self.leaving.look_at.is_none_or(|look_at| at < look_at) {
                self.leaving.look_at = Some(at);
            }
        }
    }

    /// Notes that a worker has finished something and may be idle now.
    #[inline]
    pub(crate) fn schedule_idle_check(&mut self, now: Instant) {
        if let (Some(timeout), None) = (self.config.lives.idle_timeout, self.leaving.look_at) {
            self.leaving.look_at = Some(now + timeout);
        }
    }

    /// Retires an idle worker: sends it the finalizer if there is one that it has not run, or else drains it.
    pub(crate) fn retire(&mut self, place: usize, now: Instant) {
        let worker = &self.workers[place];
        let id = worker.id();
        if !worker.is_idle() {
            return;
        }
        if let Some(finalizer) = &self.config.lives.finalizer
            && self.leaving.finalizing.insert(id)
        {
            self.leaving.who.insert(id);
            return self.run_own(place, finalizer.call.clone(), now);
        }
        self.workers[place].drain(now);
    }

    /// Has all workers leave as soon as they are idle. No more tasks may be submitted.
    pub(crate) fn retire_all(&mut self) {
        self.leaving.all = true;
    }

    /// Removes and returns the outcomes of finalizers.
    pub(crate) fn take_exits(&mut self) -> Vec<Result<OwnedResult, TaskError>> {
        std::mem::take(&mut self.leaving.exits)
    }

    /// Retires the worker if it has grown too large.
    pub(crate) fn check_memory(&mut self, place: usize, now: Instant) {
        let Some(most) = self.config.lives.max_rss else { return };
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        if self.leaving.contains(id) {
            return;
        }
        let Some(bytes) = worker.weigh(now).filter(|&bytes| bytes > most) else { return };
        self.leaving.who.insert(id);
        self.recall(place, now);
        if !std::mem::replace(&mut self.leaving.said_grown, true) {
            self.effects.notes.push(format!(
                "worker {id} (pid {pid}) has grown to {} MiB, past the {} MiB of max_worker_rss, and is replaced; \
                 further replacements for this reason are not logged",
                bytes >> 20,
                most >> 20
            ));
        }
    }
}
