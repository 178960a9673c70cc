//! Owns the workers by their places, and knows which of them are active. A turn of the driver looks only at those, however many
//! others are parked.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
};

use super::{batch::Batch, policy::MOST_ACTIVE};
use crate::supervisor::state::Supervisor;

/// The worker set of a pool.
///
/// Each place is *active*, *parked* or vacant. A live worker is parked if it has nothing in flight and no deadline. The poller
/// reports what it sends. Accessing a worker through `&mut` makes it active. It is parked again before the driver sleeps, in
/// [`park`](Self::park), or when many workers are active.
#[derive(Default)]
pub(crate) struct WorkerSet {
    all: Vec<Supervisor<Batch>>,
    active: BTreeSet<usize>,
    parked: BTreeSet<usize>,
    /// The leader looks at the rings, so a worker that becomes active need not wake the poller.
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

    /// Returns the active workers. Some of them may be idle or vacant.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Supervisor<Batch>> {
        self.active.iter().map(|&place| &self.all[place])
    }

    /// Returns the first place from `from` on that is active.
    pub(crate) fn next_active(&self, from: usize) -> Option<usize> {
        self.active.range(from..).next().copied()
    }

    /// Returns the first place from `from` on that may have a process.
    pub(crate) fn next_occupied(&self, from: usize) -> Option<usize> {
        let parked = self.parked.range(from..).next().copied();
        self.next_active(from).into_iter().chain(parked).min()
    }

    /// Returns the first vacant place from `from` on, among the first `most` places.
    pub(crate) fn next_vacant(&self, from: usize, most: usize) -> Option<usize> {
        (from..most).find(|place| !self.parked.contains(place) && self.all[*place].is_vacant())
    }

    /// Returns whether one of the first `most` workers is idle or could be started.
    pub(crate) fn has_spare(&self, most: usize) -> bool {
        self.active.range(..most).count() < most
            || self.all[..most].iter().any(|worker| worker.is_idle() || worker.is_vacant())
    }

    /// Returns how many workers are ready for tasks or have some.
    pub(crate) fn live(&self) -> usize {
        self.parked.len() + self.active().filter(|worker| worker.is_live()).count()
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.parked.is_empty() && self.active().all(Supervisor::is_vacant)
    }

    /// Has workers wake the poller for their replies from now on, and parks idle workers. Returns `false` if a reply has
    /// already arrived.
    pub(crate) fn park(&mut self) -> bool {
        self.looking = false;
        let mut next = 0;
        while let Some(place) = self.next_active(next) {
            next = place + 1;
            if !self.all[place].park() {
                return false;
            }
            self.park_if_idle(place);
        }
        true
    }

    /// Parks idle workers if many are active.
    pub(crate) fn park_idle(&mut self) {
        if self.active.len() <= MOST_ACTIVE {
            return;
        }
        let mut next = 0;
        while let Some(place) = self.next_active(next) {
            next = place + 1;
            if has_nothing_to_do(&self.all[place]) && self.all[place].park() {
                self.park_if_idle(place);
            }
        }
    }

    /// Parks this worker if it is idle. The poller reports what it sends.
    fn park_if_idle(&mut self, place: usize) {
        if has_nothing_to_do(&self.all[place]) {
            self.active.remove(&place);
            if !self.all[place].is_vacant() {
                self.parked.insert(place);
            }
        }
    }

    /// Stops workers from waking the poller for their replies, because the leader looks at their rings.
    pub(crate) fn unpark(&mut self) {
        self.looking = true;
        let mut next = 0;
        while let Some(place) = self.next_active(next) {
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
        if self.active.insert(place) && self.parked.remove(&place) && self.looking {
            worker.unpark();
        }
        worker
    }
}
