//! Owns the workers by their places, and knows which of them are up. A turn of the driver looks only at those, however many
//! others are at rest.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
};

use super::{batch::Batch, policy::MOST_UP};
use crate::supervisor::state::Supervisor;

/// The worker set of a pool.
///
/// Each place is *up*, *at rest* or vacant. A live worker is at rest if it has nothing in flight and no deadline. The poller
/// reports what it sends. Accessing a worker through `&mut` makes it up. It is put to rest again before the driver sleeps, in
/// [`park`](Self::park), or when many workers are up.
#[derive(Default)]
pub(crate) struct WorkerSet {
    all: Vec<Supervisor<Batch>>,
    up: BTreeSet<usize>,
    at_rest: BTreeSet<usize>,
    /// The leader looks at the rings, so a worker that becomes up need not wake the poller.
    looking: bool,
}

impl WorkerSet {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn push(&mut self, worker: Supervisor<Batch>) {
        self.all.push(worker);
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Supervisor<Batch>> {
        self.all.get(place)
    }

    /// Returns the workers that are up. Some of them may be idle or vacant.
    pub(crate) fn up(&self) -> impl Iterator<Item = &Supervisor<Batch>> {
        self.up.iter().map(|&place| &self.all[place])
    }

    /// Returns the first place from `from` on that is up.
    pub(crate) fn next_up(&self, from: usize) -> Option<usize> {
        self.up.range(from..).next().copied()
    }

    /// Returns the first place from `from` on that may have a process.
    pub(crate) fn next_manned(&self, from: usize) -> Option<usize> {
        let at_rest = self.at_rest.range(from..).next().copied();
        self.next_up(from).into_iter().chain(at_rest).min()
    }

    /// Returns the first vacant place from `from` on, among the first `most` places.
    pub(crate) fn next_vacant(&self, from: usize, most: usize) -> Option<usize> {
        (from..most).find(|place| !self.at_rest.contains(place) && self.all[*place].is_vacant())
    }

    /// Returns whether one of the first `most` workers is idle or could be started.
    pub(crate) fn has_time(&self, most: usize) -> bool {
        self.up.range(..most).count() < most
            || self.all[..most].iter().any(|worker| worker.is_idle() || worker.is_vacant())
    }

    /// Returns how many workers are ready for tasks or have some.
    pub(crate) fn live(&self) -> usize {
        self.at_rest.len() + self.up().filter(|worker| worker.is_live()).count()
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.at_rest.is_empty() && self.up().all(Supervisor::is_vacant)
    }

    /// Has workers wake the poller for their replies from now on, and puts idle workers to rest. Returns `false` if a reply has
    /// already arrived.
    pub(crate) fn park(&mut self) -> bool {
        self.looking = false;
        let mut next = 0;
        while let Some(place) = self.next_up(next) {
            next = place + 1;
            if !self.all[place].park() {
                return false;
            }
            self.lay_to_rest(place);
        }
        true
    }

    /// Puts idle workers to rest if many are up.
    pub(crate) fn settle(&mut self) {
        if self.up.len() <= MOST_UP {
            return;
        }
        let mut next = 0;
        while let Some(place) = self.next_up(next) {
            next = place + 1;
            if has_nothing_to_do(&self.all[place]) && self.all[place].park() {
                self.lay_to_rest(place);
            }
        }
    }

    /// Puts this worker to rest if it is idle. The poller reports what it sends.
    fn lay_to_rest(&mut self, place: usize) {
        if has_nothing_to_do(&self.all[place]) {
            self.up.remove(&place);
            if !self.all[place].is_vacant() {
                self.at_rest.insert(place);
            }
        }
    }

    /// Stops workers from waking the poller for their replies, because the leader looks at their rings.
    pub(crate) fn unpark(&mut self) {
        self.looking = true;
        let mut next = 0;
        while let Some(place) = self.next_up(next) {
            next = place + 1;
            self.all[place].unpark();
        }
    }
}

fn has_nothing_to_do(worker: &Supervisor<Batch>) -> bool {
    worker.is_vacant() || (worker.is_idle() && worker.deadline().is_none())
}

impl Index<usize> for WorkerSet {
    type Output = Supervisor<Batch>;

    fn index(&self, place: usize) -> &Self::Output {
        &self.all[place]
    }
}

impl IndexMut<usize> for WorkerSet {
    fn index_mut(&mut self, place: usize) -> &mut Self::Output {
        let worker = &mut self.all[place];
        if self.up.insert(place) && self.at_rest.remove(&place) && self.looking {
            worker.unpark();
        }
        worker
    }
}
