//! When workers leave in good order: after so many tasks, grown too large, idle for too long, or not wanted any more. The part of the
//! [`Scheduler`] that sees them off, each with the pool's finalizer.

use std::{collections::BTreeSet, time::Instant};

use super::{
    batch::{LaneId, Parcel, Recipient},
    state::Scheduler,
};
use crate::{
    codec::OwnedResult,
    error::{Result, TaskError},
    id::WorkerId,
    observe::levels::levels,
    protocol::{Orders, Records},
    registry,
    supervisor::state::Supervisor,
    sys::poll::Poller,
    task::Call,
};

/// Who leaves, and what those who have left have said.
#[derive(Default)]
pub(crate) struct Leaving {
    /// Workers that get no more tasks, and leave when they are idle.
    who: BTreeSet<WorkerId>,
    /// Those of them that have been given the finalizer.
    finalizing: BTreeSet<WorkerId>,
    /// What finalizers came to, in the order in which the workers left.
    exits: Vec<Result<OwnedResult, TaskError>>,
    /// All leave: the pool ends in good order.
    all: bool,
    /// When a worker may have been idle for too long.
    look_at: Option<Instant>,
    /// It was said that workers have grown.
    said_grown: bool,
}

impl Leaving {
    /// This worker is given no more tasks.
    #[inline]
    pub(crate) fn contains(&self, id: WorkerId) -> bool {
        !self.who.is_empty() && self.who.contains(&id)
    }

    /// This worker has the finalizer, or has had it.
    #[inline]
    pub(crate) fn is_finalizing(&self, id: WorkerId) -> bool {
        !self.finalizing.is_empty() && self.finalizing.contains(&id)
    }

    /// A finalizer came to this.
    pub(crate) fn add_exit(&mut self, exit: Result<OwnedResult, TaskError>) {
        self.exits.push(exit);
    }

    /// When something is due.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }
}

impl Scheduler {
    /// How many more tasks this worker may be given.
    #[inline]
    pub(crate) fn quota(&self, worker: &Supervisor<Parcel>) -> usize {
        self.config.lives.quota(worker.given())
    }

    /// A task that this worker runs for the pool: nobody's, and not counted among its tasks.
    pub(crate) fn run_own(&mut self, place: usize, call: Call, poller: &Poller, now: Instant) {
        let (Some(function), Ok(args)) = (registry::id_of(call.entry), call.args) else { return };
        let parcel = Parcel {
            lane: LaneId::Pinned,
            // It has no number, and takes none from those that are somebody's.
            first: u64::MAX,
            records: Records::of(function, args),
            to: Recipient::Nobody,
            attempts: 1,
            retries: 0,
        };
        let worker = &mut self.workers[place];
        worker.run(parcel, Orders { levels: levels(), seed: self.seed, ..Orders::default() });
        worker.do_not_count(1);
        worker.ring(now, poller);
    }

    /// Sees off whoever is to leave and has nothing to do. Before work is given out.
    pub(crate) fn see_off(&mut self, poller: &Poller, now: Instant) {
        if self.leaving.all || self.config.lives.max_tasks.is_some() {
            for place in 0..self.workers.len() {
                let worker = &self.workers[place];
                if worker.is_idle() && (self.leaving.all || self.quota(worker) == 0) {
                    self.retire(place, poller, now);
                }
            }
        }
        if !self.leaving.who.is_empty() {
            for id in self.leaving.who.clone() {
                self.retire(id.0 as usize, poller, now);
            }
        }
    }

    /// Sees off whoever has been idle for too long. After work was given out: what could be done is being done.
    pub(crate) fn see_off_the_idle(&mut self, poller: &Poller, now: Instant) {
        let Some(timeout) = self.config.lives.idle_timeout else { return };
        if self.leaving.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.leaving.look_at = None;
        for place in 0..self.workers.len() {
            let Some(at) = self.workers[place].idle_since().map(|since| since + timeout) else { continue };
            if at <= now {
                self.retire(place, poller, now);
            } else if self.leaving.look_at.is_none_or(|look_at| at < look_at) {
                self.leaving.look_at = Some(at);
            }
        }
    }

    /// A worker has done something, and may be idle now.
    #[inline]
    pub(crate) fn look_for_the_idle(&mut self, now: Instant) {
        if let (Some(timeout), None) = (self.config.lives.idle_timeout, self.leaving.look_at) {
            self.leaving.look_at = Some(now + timeout);
        }
    }

    /// Has an idle worker leave in good order: it runs the finalizer first, if there is one.
    pub(crate) fn retire(&mut self, place: usize, poller: &Poller, now: Instant) {
        let worker = &self.workers[place];
        let id = worker.id();
        if !worker.is_idle() {
            return;
        }
        if let Some(finalizer) = &self.config.lives.finalizer
            && self.leaving.finalizing.insert(id)
        {
            self.leaving.who.insert(id);
            return self.run_own(place, finalizer.call.clone(), poller, now);
        }
        self.workers[place].drain(now);
    }

    /// All workers leave as soon as they have nothing to do; no more tasks will come.
    pub(crate) fn retire_all(&mut self) {
        self.leaving.all = true;
    }

    /// What finalizers came to.
    pub(crate) fn take_exits(&mut self) -> Vec<Result<OwnedResult, TaskError>> {
        std::mem::take(&mut self.leaving.exits)
    }

    /// Has the worker leave if it has grown too large.
    pub(crate) fn weigh(&mut self, place: usize, now: Instant) {
        let Some(most) = self.config.lives.max_rss else { return };
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        if self.leaving.contains(id) {
            return;
        }
        let Some(bytes) = worker.weigh(now).filter(|&bytes| bytes > most) else { return };
        self.leaving.who.insert(id);
        self.book.take_home(worker.take_back(), id);
        if !std::mem::replace(&mut self.leaving.said_grown, true) {
            self.after.notes.push(format!(
                "worker {id} (pid {pid}) has grown to {} MiB, past the {} MiB of max_worker_rss, and is replaced; of others that grow \
                 nothing more is said",
                bytes >> 20,
                most >> 20
            ));
        }
    }

    /// A worker has ended; returns whether it was at the finalizer, or had done with it.
    pub(crate) fn forget_leaving(&mut self, id: WorkerId) -> bool {
        self.leaving.who.remove(&id);
        self.leaving.finalizing.remove(&id)
    }
}
