//! The book of tasks: the lanes with their turns, what is bound to one worker, and how a task leaves it, with its outcome.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    batch::{LaneId, Parcel, Recipient, Single, name_of},
    config::Finalizer,
    effects::After,
    queue::Lane,
};
use crate::{
    captured::Captured,
    codec::Encoded,
    error::{Fault, Place, TaskError, TaskErrorKind},
    id::{FunctionId, WorkerId},
    observe::{
        stats::{Ending, Endings},
        tally::{Slowest, Tally},
        timeline::Timeline,
    },
    protocol::Results,
    supervisor::ledger::Load,
};

/// All of the scheduler but the workers: what can be changed while one of them is being read.
pub(crate) struct Book {
    pub(crate) lanes: BTreeMap<LaneId, Lane>,
    /// Lanes with something queued, in the order of their turns.
    pub(crate) turns: VecDeque<LaneId>,
    /// Lanes of calls, which may have tasks that are not queued yet.
    pub(crate) fed: Vec<LaneId>,
    pub(crate) queued: usize,
    /// Tasks that have no outcome yet.
    pub(crate) unfinished: usize,
    /// Tasks bound to one worker each.
    pub(crate) pinned: BTreeMap<WorkerId, VecDeque<Parcel>>,
    /// When the feeds are to be looked into once more.
    pub(crate) look_at_feeds: Option<Instant>,
    /// When each worker last gave a sign of life while it had work.
    pub(crate) progress: BTreeMap<WorkerId, Instant>,
    /// Workers that were silent for so long that what they had not begun was taken from them: until they give a sign of life, they get
    /// nothing that would have to be taken from them again.
    pub(crate) overdue: BTreeSet<WorkerId>,
    /// Workers whose initializer runs.
    pub(crate) initializing: BTreeSet<WorkerId>,
    /// The pool was given up, and no worker has served since.
    pub(crate) given_up: Option<GivenUp>,
    /// How long a task may run that no call says it of.
    pub(crate) task_timeout: Option<Duration>,
    /// The pool's name, for errors.
    pub(crate) name: Option<Arc<str>>,
    /// What is counted of each worker's place.
    pub(crate) tallies: Vec<Tally>,
    /// Tasks that came to their end at no worker.
    pub(crate) unserved: Endings,
    pub(crate) slowest: Slowest,
    pub(crate) timeline: Option<Timeline>,
}

/// Why a pool runs no tasks, and which.
pub(crate) struct GivenUp {
    pub(crate) kind: TaskErrorKind,
    /// From then on it is tried anew; `None`: never.
    pub(crate) until: Option<Instant>,
    /// It is tried anew at once for calls from this number on, and for tasks of no call.
    pub(crate) next_call: Option<u64>,
}

impl GivenUp {
    /// Whether the pool is to be tried anew for what is handed in to this lane.
    pub(crate) fn is_over(&self, lane: LaneId, now: Instant) -> bool {
        let is_later = |next: u64| !matches!(lane, LaneId::Call(number) if number < next);
        self.until.is_some_and(|until| now >= until) || self.next_call.is_some_and(is_later)
    }
}

impl Book {
    /// Whether the pool is given up, and not to be tried anew yet.
    pub(crate) fn is_given_up(&self, now: Instant) -> bool {
        self.given_up.as_ref().is_some_and(|given_up| given_up.until.is_none_or(|until| now < until))
    }

    fn lane(&mut self, id: LaneId) -> &mut Lane {
        let timeout = self.task_timeout;
        self.lanes.entry(id).or_insert_with(|| Lane::of_thread(timeout))
    }

    pub(crate) fn push_back(&mut self, parcel: Parcel) {
        let id = parcel.lane;
        self.queued += parcel.len() as usize;
        let lane = self.lane(id);
        let first = lane.queued() == 0;
        lane.push_back(parcel);
        if first {
            self.turns.push_back(id);
        }
    }

    /// Puts a task behind others that wait in its lane, if there are some that it may travel with; else it comes back.
    pub(crate) fn append(&mut self, task: Single) -> Option<Single> {
        let Some(lane) = self.lanes.get_mut(&task.lane) else { return Some(task) };
        let rest = lane.append(task);
        self.queued += usize::from(rest.is_none());
        rest
    }

    /// What was sent and has not begun goes before what never was.
    pub(crate) fn push_front(&mut self, parcel: Parcel) {
        let id = parcel.lane;
        self.queued += parcel.len() as usize;
        let lane = self.lane(id);
        let first = lane.queued() == 0;
        lane.push_front(parcel);
        if first {
            self.turns.push_front(id);
        }
    }

    /// What was sent to this worker and has not begun waits again, before what was never sent, in its order.
    pub(crate) fn take_home(&mut self, parcels: Vec<Parcel>, worker: WorkerId) {
        for mut parcel in parcels.into_iter().rev() {
            parcel.attempts -= 1;
            self.leave(&parcel, worker);
            self.put_first(parcel, worker);
        }
    }

    /// What was sent to this worker is to be sent again, before what never was: to this place, if it is for that alone.
    pub(crate) fn put_first(&mut self, parcel: Parcel, worker: WorkerId) {
        if parcel.lane == LaneId::Pinned {
            self.pinned.entry(worker).or_default().push_front(parcel);
        } else {
            self.push_front(parcel);
        }
    }

    /// Takes the task of this number, which has a handle, out of the queue that it waits in; `false`: it waits in none. It comes to this.
    pub(crate) fn take_back(
        &mut self,
        number: u64,
        function: &'static str,
        kind: TaskErrorKind,
        after: &mut After,
    ) -> bool {
        let found = self.lanes.iter_mut().find_map(|(id, lane)| lane.remove(number).map(|this| (*id, this)));
        let Some((id, (handle, attempts))) = found else { return false };
        self.queued -= 1;
        self.unfinished -= 1;
        let place = Place { attempts, ..Place::default() };
        self.unserved.add(Ending::of(&kind), 1);
        let error = TaskError::new(function, kind, place).in_pool(self.name.as_ref());
        handle.complete(Err(error), &mut after.wakes);
        if self.lanes.get(&id).is_none_or(|lane| lane.queued() == 0) {
            self.turns.retain(|turn| *turn != id);
        }
        self.tidy(id);
        true
    }

    /// Empties a lane's queue.
    pub(crate) fn take_all(&mut self, id: LaneId) -> VecDeque<Parcel> {
        let parcels = self.lanes.get_mut(&id).map(Lane::take_all).unwrap_or_default();
        self.queued -= parcels.iter().map(|parcel| parcel.len() as usize).sum::<usize>();
        self.turns.retain(|turn| *turn != id);
        parcels
    }

    /// These tasks are no longer at this worker.
    pub(crate) fn leave(&mut self, parcel: &Parcel, worker: WorkerId) {
        if let Some(lane) = self.lanes.get_mut(&parcel.lane) {
            lane.leave(worker, parcel.len());
        }
    }

    /// The first `n` tasks of what was sent to this worker have this outcome.
    fn ended(&mut self, id: LaneId, ending: Ending, n: u32, nanos: u64, worker: WorkerId) {
        self.unfinished -= n as usize;
        self.tally(worker).done(ending, n, nanos);
        if self.unfinished == 0
            && let Some(timeline) = &self.timeline
        {
            timeline.flush();
        }
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.measure(n, nanos);
        lane.leave(worker, n);
        if lane.is_left() {
            self.tidy(id);
        }
    }

    /// The first tasks of the parcel gave these results.
    pub(crate) fn done(
        &mut self,
        parcel: &mut Parcel,
        results: Results<'_>,
        worker: WorkerId,
        after: &mut After,
    ) {
        if self.slowest.has_room_for(results.most_nanos()) || self.timeline.is_some() {
            self.look_at_each(parcel, results, worker);
        }
        self.tally(worker).is_of_call = matches!(parcel.to, Recipient::Call(_));
        parcel.to.give(parcel.first, results, &mut after.wakes);
        self.ended(parcel.lane, Ending::Finished, results.len(), results.nanos(), worker);
    }

    /// The first task of the parcel came to this.
    pub(crate) fn done_one(
        &mut self,
        parcel: &mut Parcel,
        nanos: u64,
        outcome: Result<Encoded<'_>, TaskError>,
        worker: WorkerId,
        after: &mut After,
    ) {
        if self.slowest.has_room_for(nanos) || self.timeline.is_some() {
            self.look_at_one(parcel, 0, parcel.function(), nanos, outcome.is_err(), worker);
        }
        let ended = outcome.as_ref().map_or_else(|error| Ending::of(error.kind()), |_| Ending::Finished);
        parcel.to.give_one(parcel.first, outcome, &mut after.wakes);
        self.ended(parcel.lane, ended, 1, nanos, worker);
    }

    /// What is counted of this worker's place.
    pub(crate) fn tally(&mut self, worker: WorkerId) -> &mut Tally {
        let place = worker.0 as usize;
        if self.tallies.len() <= place {
            self.tallies.resize_with(place + 1, Tally::default);
        }
        &mut self.tallies[place]
    }

    /// What took so long and was not told with the replies. (Of several tasks the last is the one that was long: those before it were to be
    /// timed together because they were short.)
    pub(crate) fn late(&mut self, worker: WorkerId, function: FunctionId, task: u64, tasks: u32, nanos: u64) {
        let tally = self.tally(worker);
        tally.worked(nanos);
        let index = tally.is_of_call.then(|| usize::try_from(task).ok()).flatten();
        if tasks > 0 && self.slowest.has_room_for(nanos) {
            self.slowest.put(name_of(Some(function)), index, nanos, worker);
        }
    }

    /// Some of these results took long, or all are of interest.
    #[cold]
    fn look_at_each(&mut self, parcel: &Parcel, results: Results<'_>, worker: WorkerId) {
        let mut functions = parcel.functions();
        let mut untimed = 0;
        for (at, nanos) in (0..).zip(results.each_nanos()) {
            untimed += 1;
            if nanos > 0 {
                // Short tasks are timed together: each is taken to have had its share.
                let share = nanos / untimed;
                for (back, function) in (0..untimed).rev().zip(&mut functions) {
                    self.look_at_one(parcel, at - back, function, share, false, worker);
                }
                untimed = 0;
            }
        }
    }

    /// The task at this place in the parcel took so long.
    fn look_at_one(
        &mut self,
        parcel: &Parcel,
        at: u64,
        function: &'static str,
        nanos: u64,
        failed: bool,
        worker: WorkerId,
    ) {
        let number = parcel.first + at;
        if self.slowest.has_room_for(nanos) && nanos > 0 {
            let index = match parcel.to {
                Recipient::Call(_) => usize::try_from(number).ok(),
                _ => None,
            };
            self.slowest.put(function, index, nanos, worker);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.task(worker, function, number, nanos, failed);
        }
    }

    /// As [`done_one`](Self::done_one), for a task that ran and gave no result.
    pub(crate) fn failed(
        &mut self,
        parcel: &mut Parcel,
        nanos: u64,
        fault: Fault,
        by: (WorkerId, u32),
        output: Option<Arc<Captured>>,
        after: &mut After,
    ) {
        let error = self.error(parcel, fault.into(), Some(by)).with_output(output);
        self.done_one(parcel, nanos, Err(error), by.0, after);
    }

    /// As [`done_one`](Self::done_one), for a task that was to end, and has ended by itself.
    pub(crate) fn stopped(
        &mut self,
        parcel: &mut Parcel,
        nanos: u64,
        kind: TaskErrorKind,
        by: (WorkerId, u32),
        output: Option<Arc<Captured>>,
        after: &mut After,
    ) {
        let error = self.error(parcel, kind, Some(by)).with_output(output);
        self.done_one(parcel, nanos, Err(error), by.0, after);
    }

    /// Tasks that are at no worker come to this. `worker`: who had them, and what the first of them had written.
    pub(crate) fn fail(
        &mut self,
        mut parcel: Parcel,
        kind: &TaskErrorKind,
        worker: Option<(WorkerId, u32, Option<&Arc<Captured>>)>,
        after: &mut After,
    ) {
        let by = worker.map(|(id, pid, _)| (id, pid));
        let endings = match by {
            Some((id, _)) => self.tally(id).endings(),
            None => &mut self.unserved,
        };
        endings.add(Ending::of(kind), u64::from(parcel.len()));
        let output = worker.and_then(|(.., output)| output);
        while parcel.len() > 0 {
            let error = self.error(&parcel, kind.clone(), by).with_output(output.cloned());
            parcel.to.give_one(parcel.first, Err(error), &mut after.wakes);
            parcel.done(1);
            self.unfinished -= 1;
        }
        self.tidy(parcel.lane);
    }

    fn error(&self, parcel: &Parcel, kind: TaskErrorKind, worker: Option<(WorkerId, u32)>) -> TaskError {
        TaskError::new(parcel.function(), kind, parcel.place(worker)).in_pool(self.name.as_ref())
    }

    /// The error of a finalizer that came to no result.
    pub(crate) fn exit_error(
        &self,
        finalizer: Option<&Finalizer>,
        kind: TaskErrorKind,
        worker: (WorkerId, u32),
    ) -> TaskError {
        let function = finalizer.map_or("", |finalizer| finalizer.call.entry.name);
        let place = Place { index: None, attempts: 1, worker: Some(worker) };
        TaskError::new(function, kind, place).in_pool(self.name.as_ref())
    }

    /// A lane that nothing is in and nobody adds to goes.
    pub(crate) fn tidy(&mut self, id: LaneId) {
        if self.lanes.get(&id).is_some_and(Lane::is_left) {
            // A thread's lane keeps its pace for the next task.
            if !matches!(id, LaneId::Thread(_)) || self.lanes.len() > MOST_RESTING_LANES {
                self.lanes.remove(&id);
            }
        }
    }
}

/// Threads that have come and gone leave no more lanes than this.
const MOST_RESTING_LANES: usize = 256;
