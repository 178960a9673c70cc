//! Starts workers for the tasks that wait.
//!
//! How a process is created is the launcher's business. What happens if a start fails is decided in `give_up` and `restarts`.

use std::time::Instant;

use super::state::Scheduler;
use crate::{
    launch::LaunchError,
    observe::{levels::levels, timeline::TimelineEntry},
    protocol::Hello,
};

impl Scheduler {
    /// Starts workers for queued tasks that no idle worker could take.
    pub(super) fn launch(&mut self, now: Instant) {
        if !self.wants_workers() || self.queues.given_up.is_some() || !self.restarts.may_start(now) {
            return;
        }
        let responsive = self.responsive(now);
        let most = self.queues.turns.iter().map(|id| {
            let queue = &self.queues.by_id[id];
            if self.holds_back(queue, responsive, now) {
                return 0;
            }
            queue.queued().min(queue.workers().saturating_sub(queue.at.len()))
        });
        let starting = self.workers.active().filter(|worker| worker.is_starting()).count();
        let wanted = most.sum::<usize>().saturating_sub(starting);
        let mut places = Vec::new();
        let mut next = 0;
        // Pinned tasks may wait for a worker at any place.
        while (places.len() < wanted || !self.queues.pinned.is_empty())
            && let Some(place) = self.workers.next_vacant(&mut next, self.target)
        {
            if places.len() < wanted || self.queues.pinned.contains_key(&self.workers[place].id()) {
                places.push(place);
            }
        }
        places.extend(self.wanted_beyond());
        if !places.is_empty() {
            self.launcher.want(places.len());
        }
        for place in places {
            match self.launch_at(place, now) {
                Ok(true) => {}
                // `poll_fd` of the launcher reports when it is ready.
                Ok(false) => return,
                Err(error) => return self.launch_failed(now, error),
            }
        }
    }

    /// Starts a worker at a vacant place. Returns `false` if the launcher is not ready because its template is still loading.
    fn launch_at(&mut self, place: usize, now: Instant) -> Result<bool, LaunchError> {
        let worker = &mut self.workers[place];
        let spawn = &self.config.spawn;
        let hello = Hello::new(worker.id(), spawn.setup_of(worker.id().0), levels().log);
        if !worker.launch(&*self.launcher, &spawn.request(), &hello, now, now + spawn.start_timeout)? {
            return Ok(false);
        }
        let why_slow = worker.why_slow();
        // The worker takes a while to start, so there is time for this.
        self.oom_kills = self.oom_kills.or_else(|| self.launcher.oom_kills());
        self.queues.tally(worker.id()).launched(now);
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        if let Some(timeline) = &mut self.queues.timeline {
            timeline.push(TimelineEntry::Started { worker: id, pid });
        }
        if let Some(why) = why_slow
            && !std::mem::replace(&mut self.said_why_slow, true)
        {
            let note = format!("workers are connected by sockets instead of shared memory: {why}");
            self.effects.notes.push(note);
        }
        Ok(true)
    }
}
