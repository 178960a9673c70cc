//! Decisions of the scheduler: when to spin, to share, to start workers, and how much to send. Its constants, each with its reason.

use std::time::{Duration, Instant};

use super::{
    batch::{LaneId, Parcel},
    queue::Lane,
    queues::Book,
    state::Scheduler,
};
use crate::{
    id::WorkerId,
    supervisor::{ledger::Load, state::Supervisor},
};

/// A worker is given more before it is idle if what it has will take it less than this.
const PREFETCH: Duration = Duration::from_micros(400);

/// A worker that has shown nothing for so long, while others are idle, has to share what it has not begun.
pub(crate) const SHARE_AFTER: Duration = Duration::from_millis(1);

/// A worker that has only short tasks and has shown nothing for so long has met with a long one: had it only lost its core to another,
/// it would have it back.
const STALLS_AFTER: Duration = Duration::from_millis(4);

/// It is not waited for longer than this.
pub(super) const MOST_SHARE_AFTER: Duration = Duration::from_millis(100);

/// What another worker could do in less time is not worth moving.
pub(super) const WORTH_MOVING: Duration = Duration::from_micros(100);

/// A reply that is expected within this time is waited for without sleeping, if there is a core to wait on.
const NEAR: Duration = Duration::from_micros(50);

/// A caller that was told that its next task is wanted may have missed it for so long.
pub(super) const LOOK_AT_FEEDS_AFTER: Duration = Duration::from_millis(1);

/// So many workers a core that get on with short tasks are a crowd: whether they leave cores idle is looked at.
pub(super) const CROWD: usize = 2;

/// And so often: what the kernel says of a worker that is running may be a tick old.
const LOOK_AT_CORES_EVERY: Duration = Duration::from_millis(50);

/// Others could run what this worker has not begun. Pinned tasks, which none else may run, are sent to idle workers only, so that
/// they are the oldest; a call that uses as many workers as it may has no use for another.
pub(super) fn is_laden(worker: &Supervisor<Parcel>, book: &Book) -> bool {
    let may_move = |parcel: &Parcel| book.lanes.get(&parcel.lane).is_some_and(Lane::has_use_for_another);
    worker.in_flight_len() > 1
        && worker.newest().is_some_and(|parcel| parcel.lane != LaneId::Pinned)
        // The first of all may have begun.
        && worker.in_flight().enumerate().any(|(n, parcel)| (n > 0 || parcel.len() > 1) && may_move(parcel))
}

pub(super) fn has_room(worker: &Supervisor<Parcel>, lane: &Lane) -> bool {
    let is_idle = worker.is_idle();
    let is_full = worker.newest().is_some_and(|parcel| parcel.records.len_bytes() > BATCH_BYTES);
    if is_full || (!is_idle && (lane.first_len_bytes() > BATCH_BYTES || !worker.has_board())) {
        return false;
    }
    let n = worker.in_flight_len();
    match lane.chunk {
        Some(chunk) => n < chunk,
        None => n < MOST_IN_BATCH && lane.estimate(n).is_some_and(|time| time < PREFETCH),
    }
}

impl Scheduler {
    /// A worker could have a task that is handed in now at once, or soon, and there is none for it.
    pub(crate) fn is_hungry(&self) -> bool {
        let is_short = |worker: &Supervisor<Parcel>| {
            worker.is_live()
                && worker.newest().is_none_or(|newest| {
                    let lane = self.book.lanes.get(&newest.lane);
                    let left = lane.and_then(|lane| lane.estimate(worker.in_flight_len()));
                    left.is_some_and(|left| left < NEAR)
                })
        };
        let is_idle = || self.workers.has_time(self.target) || self.workers.up().any(is_short);
        self.closing
            || self.workers.next_vacant(0, self.target).is_some()
            || (self.book.queued == 0 && is_idle())
    }

    /// When something is due though nobody says anything.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if !self.unread.is_empty() {
            return Some(Instant::now());
        }
        let workers = self.workers.up().filter_map(Supervisor::deadline);
        let stops = self.workers.up().filter_map(Supervisor::stop_due);
        let limits = self.workers.up().filter_map(|worker| worker.over_due(self.limit_of(worker)?));
        let back_off = self.restarts.not_before().filter(|_| self.wants_workers());
        let feeds = self.book.look_at_feeds;
        // In a pool that ends nobody sees to it.
        let idle = self.leaving.look_at().filter(|_| !self.closing);
        workers
            .chain(stops)
            .chain(limits)
            .chain(back_off)
            .chain(feeds)
            .chain(idle)
            .chain(self.sharing_deadline())
            .chain(self.stall_deadline())
            .min()
    }

    pub(super) fn wants_workers(&self) -> bool {
        (self.book.queued > 0 || !self.book.pinned.is_empty())
            && (self.workers.next_vacant(0, self.target).is_some() || self.wanted_beyond().next().is_some())
    }

    /// Vacant places beyond those that are wanted now, for which there are tasks from before.
    pub(super) fn wanted_beyond(&self) -> impl Iterator<Item = usize> {
        let beyond = self.book.pinned.range(WorkerId(self.target as u32)..).map(|(id, _)| id.0 as usize);
        beyond.filter(|&place| self.workers[place].is_vacant())
    }

    /// How long the oldest task of this worker may run, if that is limited.
    pub(crate) fn limit_of(&self, worker: &Supervisor<Parcel>) -> Option<Duration> {
        if !self.has_limits {
            return None;
        }
        match worker.in_flight().next()?.lane {
            // Nobody's task, and as long as it takes.
            LaneId::Pinned if self.book.initializing.contains(&worker.id()) => None,
            LaneId::Pinned => self.config.task_timeout,
            lane => self.book.lanes.get(&lane)?.timeout,
        }
    }

    /// When the worker that has shown nothing for longest has to share.
    fn sharing_deadline(&self) -> Option<Instant> {
        if self.book.queued > 0 || self.closing || !self.workers.has_time(self.target) {
            return None;
        }
        let laden = self.workers.up().filter(|worker| is_laden(worker, &self.book));
        laden.filter_map(|worker| self.book.progress.get(&worker.id())).min().map(|&at| at + self.share_after)
    }

    /// When a worker that gets on with short tasks will have shown nothing for so long that it does not count as one that does.
    fn stall_deadline(&self) -> Option<Instant> {
        let may_be_saturated = self.target > self.cpus && !self.closing && self.workers.has_time(self.target);
        let now = may_be_saturated.then(Instant::now).filter(|&now| self.brisk(now) >= self.cpus)?;
        self.workers.up().filter_map(|worker| self.stalls_at(worker)).filter(|&at| at > now).min()
    }

    /// For a worker that has only short tasks: when it should have shown something.
    pub(super) fn stalls_at(&self, worker: &Supervisor<Parcel>) -> Option<Instant> {
        let lane = self.book.lanes.get(&worker.newest()?.lane)?;
        if !lane.is_short() || lane.estimate(worker.in_flight_len())? >= SHARE_AFTER {
            return None;
        }
        let &since = self.book.progress.get(&worker.id())?;
        // One that has begun nothing waits for a core, and so would another.
        Some(since + if worker.has_begun() { STALLS_AFTER } else { MOST_SHARE_AFTER })
    }

    /// How many workers get on with short tasks; 0 if there are no more workers than cores.
    pub(super) fn brisk(&self, now: Instant) -> usize {
        if self.target <= self.cpus {
            return 0;
        }
        self.workers.up().filter(|worker| self.stalls_at(worker).is_some_and(|at| at > now)).count()
    }

    /// What waits in this lane is not for workers that have nothing to do, while so many others get on with such tasks: another that is
    /// woken takes a core from one of them, and by the time that it has it, they would have done a few tasks.
    pub(super) fn holds_back(&self, lane: &Lane, brisk: usize) -> bool {
        brisk >= self.cpus && lane.is_short() && {
            let brisk = u32::try_from(brisk).unwrap_or(u32::MAX);
            let is_little =
                lane.estimate(lane.queued()).is_none_or(|time| time < BATCH.saturating_mul(brisk));
            is_little || self.is_crowd(brisk as usize) && !self.cores_are_idle
        }
    }

    /// So many workers keep all cores busy, unless their tasks sleep.
    fn is_crowd(&self, brisk: usize) -> bool {
        brisk >= self.cpus.saturating_mul(CROWD)
    }

    /// Whether tasks sleep is seen by the time for which their workers have had a core, while there was work for more of them.
    pub(super) fn look_at_cores(&mut self, brisk: usize, now: Instant) {
        let since = self.cores_seen.map(|(at, _)| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < LOOK_AT_CORES_EVERY)
            || (since.is_none() && !self.is_crowd(brisk))
        {
            return;
        }
        let used = self.workers.cpu_time();
        let seen = self.cores_seen.replace((now, used));
        self.cores_are_idle = seen.zip(since).is_some_and(|((_, before), since)| {
            let cores = used.saturating_sub(before).as_secs_f64() / since.as_secs_f64();
            cores < self.cpus as f64 / 2.0
        });
    }

    /// A worker that has done its work may wait for more without sleeping, and so may the host for its replies: there is a core for
    /// each of those that work, and one for the host.
    pub(super) fn may_spin(&self) -> bool {
        let busy = self.workers.up().filter(|worker| worker.in_flight_len() > 0).count();
        busy < self.cpus
    }

    /// A reply is likely to come within so short a time that sleeping is not worth it, and there is a core to wait on.
    pub(crate) fn reply_is_near(&self) -> bool {
        let is_near = |worker: &Supervisor<Parcel>| {
            worker.in_flight().next().is_some_and(|parcel| {
                let lane = self.book.lanes.get(&parcel.lane);
                lane.and_then(|lane| lane.estimate(1)).is_none_or(|time| time < NEAR)
            })
        };
        self.may_spin() && self.workers.up().any(|worker| is_near(worker) || worker.is_streaming())
    }
}

/// A batch should take a worker about so long: long against a system call, short against a person's patience.
pub(crate) const BATCH: Duration = Duration::from_micros(200);

/// To wake a process that sleeps takes about so long.
pub(super) const WAKING: Duration = Duration::from_micros(20);

/// Tasks that take less are short: a worker that gets on with some of them is soon done.
pub(super) const SHORT: Duration = Duration::from_micros(50);

/// No result says more than that tasks take so many times longer than was thought.
pub(super) const MOST_JUMP: f64 = 8.0;

/// No batch is larger.
pub(crate) const MOST_IN_BATCH: usize = 8192;

/// A batch ends when its arguments are so many bytes: what was sent and is taken back has been sent for nothing. A task with more
/// goes alone, to an idle worker, and nothing goes behind it.
pub(crate) const BATCH_BYTES: usize = 96 << 10;
