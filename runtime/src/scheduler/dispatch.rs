//! Sends queued tasks to workers, and moves tasks between them.

use std::time::Instant;

use super::{
    batch::Parcel,
    policy::{
        BATCH_BYTES, CROWD, LOOK_AT_FEEDS_AFTER, MOST_SHARE_AFTER, SHARE_AFTER, WORTH_MOVING, has_room,
        is_laden,
    },
    queue::Lane,
    state::Scheduler,
};
use crate::{
    observe::levels::levels,
    protocol::Orders,
    supervisor::{ledger::Load, state::Supervisor},
    sys::poll::Poller,
};

impl Scheduler {
    /// With a worker that has nothing to do, takes what calls whose queue has run dry have not queued. Returns whether there was
    /// something.
    fn pull_for_the_idle(&mut self, now: Instant) -> bool {
        // Whatever comes of it: what is due and stays due has somebody wake all the time. Should a worker have time later, this is asked
        // again.
        if self.book.look_at_feeds.is_some_and(|at| at <= now) {
            self.book.look_at_feeds = None;
        }
        if self.book.fed.is_empty() || !self.workers.has_time(self.target) {
            return false;
        }
        let brisk = self.brisk(now);
        let before = self.book.queued;
        for at in (0..self.book.fed.len()).rev() {
            let id = self.book.fed[at];
            match self.book.lanes.get_mut(&id) {
                Some(lane) if lane.queued() == 0 && !(brisk >= self.cpus && lane.is_short()) => {
                    let (taken, told) = lane.pull(id);
                    if told {
                        // The caller may just have added something without seeing that it is wanted.
                        self.book.look_at_feeds = Some(now + LOOK_AT_FEEDS_AFTER);
                    }
                    if let Some(parcel) = taken {
                        self.enqueue(parcel);
                    }
                }
                Some(_) => {}
                None => {
                    self.book.fed.swap_remove(at);
                }
            }
        }
        self.book.queued > before
    }

    /// Gives work to whoever can take it.
    pub(crate) fn dispatch(&mut self, poller: &Poller, now: Instant) {
        if self.closing {
            return;
        }
        let mut next = self.target;
        while let Some(place) = self.workers.next_manned(next) {
            if !self.book.pinned.contains_key(&self.workers[place].id()) {
                self.retire(place, poller, now);
            }
            next = place + 1;
        }
        self.see_off(poller, now);
        self.share(now);
        self.send_pinned(poller, now);
        loop {
            self.fill(poller, now, |worker, _| worker.is_idle());
            self.launch(poller, now);
            self.fill(poller, now, has_room);
            if !self.pull_for_the_idle(now) {
                break;
            }
        }
        self.see_off_the_idle(poller, now);
    }

    fn send_pinned(&mut self, poller: &Poller, now: Instant) {
        if self.book.pinned.is_empty() {
            return;
        }
        let orders = Orders { levels: levels(), ..Orders::default() };
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next) {
            next = place + 1;
            let worker = &self.workers[place];
            let id = worker.id();
            if worker.is_idle()
                && !self.book.initializing.contains(&id)
                && !self.leaving.contains(id)
                && let Some(queue) = self.book.pinned.get_mut(&id)
            {
                let worker = &mut self.workers[place];
                // As in `fill`: what cannot be had back goes alone.
                let most = if worker.has_board() { usize::MAX } else { 1 };
                let most = most.min(self.config.lives.quota(worker.given()));
                for mut parcel in queue.drain(..queue.len().min(most)) {
                    parcel.attempts += 1;
                    let seed = parcel.to.seed().unwrap_or(self.seed);
                    worker.run(parcel, Orders { seed, ..orders });
                }
                worker.ring(now, poller);
                if queue.is_empty() {
                    self.book.pinned.remove(&id);
                }
                self.book.tally(id).occupied(now);
            }
        }
    }

    /// An idle worker with nothing queued gets what a laden one has not begun.
    fn share(&mut self, now: Instant) {
        if self.book.queued > 0 || !self.workers.has_time(self.target) {
            return;
        }
        let brisk = self.brisk(now);
        let book = &self.book;
        let is_silent = |id| book.progress.get(&id).is_none_or(|&at: &Instant| at + self.share_after <= now);
        let laden = self.workers.up().filter(|worker| is_laden(worker, book)).filter(|worker| {
            if brisk >= self.cpus && self.stalls_at(worker).is_some_and(|at| at > now) {
                return false;
            }
            let waiting = worker.in_flight_len() - 1;
            let lane = worker.newest().and_then(|newest| book.lanes.get(&newest.lane));
            let long = lane.and_then(|lane| lane.estimate(waiting)).is_none_or(|time| time >= WORTH_MOVING);
            // One that has begun nothing may not have been woken yet: what it has would be moved to and fro.
            (long && worker.has_begun()) || is_silent(worker.id())
        });
        let Some(id) = laden.max_by_key(|worker| worker.in_flight_len()).map(Supervisor::id) else { return };
        if is_silent(id) {
            self.book.overdue.insert(id);
            let worker = &self.workers[id.0 as usize];
            if let (true, Some(oldest), Some(&since)) =
                (worker.has_begun(), worker.in_flight().next(), self.book.progress.get(&id))
                && let Some(lane) = self.book.lanes.get_mut(&oldest.lane)
            {
                lane.takes_at_least(now.saturating_duration_since(since).min(SHARE_AFTER));
            }
        }
        let parcels = self.workers[id.0 as usize].take_back();
        self.book.take_home(parcels, id);
        // Tasks that the worker would not give back have begun; asking again before it says something is no use. Nor is moving things
        // faster than workers are woken.
        self.book.progress.insert(id, now);
        self.share_after = (self.share_after * 2).min(MOST_SHARE_AFTER);
    }

    /// Wakes the worker that will have the next task, if all are idle.
    pub(crate) fn rouse(&mut self) {
        if self.book.unfinished > 0 {
            return;
        }
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next).filter(|&place| place < self.target) {
            next = place + 1;
            if self.workers[place].is_idle() {
                return self.workers[place].rouse();
            }
        }
    }

    /// Gives each worker that `wants` it a batch of the lane whose turn it is.
    fn fill(&mut self, poller: &Poller, now: Instant, wants: impl Fn(&Supervisor<Parcel>, &Lane) -> bool) {
        if self.book.queued == 0 {
            self.cores_seen = None;
            self.cores_are_idle = false;
            return;
        }
        let live = self.workers.live().max(1);
        let mut brisk = self.brisk(now);
        self.look_at_cores(brisk, now);
        // What one that is idle does not get no other gets.
        let mut is_for_the_idle = true;
        let mut next = 0;
        while self.book.queued > 0 {
            let place =
                if is_for_the_idle { self.workers.next_manned(next) } else { self.workers.next_up(next) };
            let Some(place) = place.filter(|&place| place < self.target) else { return };
            next = place + 1;
            let worker = &self.workers[place];
            let id = worker.id();
            // Nothing is sent behind a task that is to end: its process may be killed any moment.
            if !worker.is_live()
                || worker.is_stopping()
                || self.book.initializing.contains(&id)
                || self.leaving.contains(id)
            {
                continue;
            }
            let is_idle = worker.is_idle();
            if if is_idle { !is_for_the_idle } else { self.book.overdue.contains(&id) } {
                continue;
            }
            let turn = self.book.turns.iter().position(|lane| {
                let lane = &self.book.lanes[lane];
                lane.may_use(id) && wants(worker, lane) && !(is_idle && self.holds_back(lane, brisk))
            });
            let quota = self.quota(worker);
            if quota == 0 {
                continue;
            }
            let Some(lane_id) = turn.and_then(|turn| self.book.turns.remove(turn)) else {
                is_for_the_idle &= !is_idle;
                continue;
            };
            let may_spin = self.may_spin();
            let worker = &mut self.workers[place];
            let mut occupied = None;
            let lane = self.book.lanes.get_mut(&lane_id).expect("a lane with a turn is there");
            // Towards the end of a queue less at a time, so that all end together; as long as more is coming there is no end.
            let workers = if lane.is_short() { live.min(self.cpus.saturating_mul(CROWD)) } else { live };
            let parts = match (lane.chunk, lane.open) {
                (Some(_), _) => 1,
                (None, true) => workers,
                (None, false) => workers * 2,
            };
            // To wake a worker takes longer than a few short tasks.
            let share = lane.queued().div_ceil(parts).max(lane.worth_waking());
            // What has been sent and cannot be had back would be lost with its worker.
            let most = if worker.has_board() { lane.batch().min(share).max(1) } else { 1 };
            let most = most.min(quota);
            if worker.is_idle() {
                self.book.progress.insert(id, now);
                brisk += usize::from(self.target > self.cpus && lane.is_short());
                occupied = Some(id);
            }
            let seed = lane.seed.unwrap_or(self.seed);
            let (mut tasks, mut bytes) = (0, 0);
            while tasks < most && (tasks == 0 || bytes + lane.first_len_bytes() <= BATCH_BYTES) {
                let Some(mut parcel) = lane.take_first(most - tasks) else { break };
                tasks += parcel.len() as usize;
                bytes += parcel.records.len_bytes();
                parcel.attempts += 1;
                let wants_progress = parcel.to.wants_progress();
                worker.run(parcel, Orders { levels: levels(), may_spin, wants_progress, seed });
            }
            worker.ring(now, poller);
            *lane.at.entry(id).or_insert(0) += tasks;
            if lane.queued() > 0 {
                self.book.turns.push_back(lane_id);
            }
            self.book.queued -= tasks;
            if let Some(id) = occupied {
                self.book.tally(id).occupied(now);
            }
        }
    }
}
