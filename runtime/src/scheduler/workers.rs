//! Owns the workers by their places, and knows which of them are active. A turn of the driver looks only at those, however many
//! others are parked.

use std::ops::{Index, IndexMut};

use super::policy::MOST_ACTIVE;
use crate::supervisor::state::Supervisor;

/// The worker set of a pool.
///
/// Each place is *active*, *parked* or vacant. A live worker is parked if it has nothing in flight and no deadline. The poller
/// reports what it sends. Accessing a worker through `&mut` makes it active. It is parked again before the driver sleeps, in
/// [`park`](Self::park), or when many workers are active.
#[derive(Default)]
pub(crate) struct WorkerSet {
    all: Vec<Supervisor>,
    active: Places,
    parked: Places,
    /// The leader looks at the rings, so a worker that becomes active need not wake the poller.
    looking: bool,
}

impl WorkerSet {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn push(&mut self, worker: Supervisor) {
        self.all.push(worker);
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Supervisor> {
        self.all.get(place)
    }

    /// Returns the active workers. Some of them may be idle or vacant.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Supervisor> {
        let mut next = 0;
        std::iter::from_fn(move || Some(&self.all[self.next_active(&mut next)?]))
    }

    /// Returns the first place from `next` on that is active, and moves `next` behind it.
    pub(crate) fn next_active(&self, next: &mut usize) -> Option<usize> {
        pass(next, self.active.next(*next))
    }

    /// Returns the first place from `next` on that may have a process, and moves `next` behind it.
    pub(crate) fn next_occupied(&self, next: &mut usize) -> Option<usize> {
        pass(next, self.active.next(*next).into_iter().chain(self.parked.next(*next)).min())
    }

    /// Returns the first vacant place from `next` on, among the first `most` places, and moves `next` behind it.
    pub(crate) fn next_vacant(&self, next: &mut usize, most: usize) -> Option<usize> {
        let is_vacant = |place: &usize| !self.parked.contains(*place) && self.all[*place].is_vacant();
        pass(next, (*next..most).find(is_vacant))
    }

    /// Returns whether one of the first `most` workers is idle or could be started.
    pub(crate) fn has_free_worker(&self, most: usize) -> bool {
        (0..most).any(|place| !self.active.contains(place))
            || self.all[..most].iter().any(|worker| worker.is_idle() || worker.is_vacant())
    }

    /// Returns how many workers are ready for tasks or have some.
    pub(crate) fn live(&self) -> usize {
        self.parked.len + self.active().filter(|worker| worker.is_live()).count()
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.parked.len == 0 && self.active().all(Supervisor::is_vacant)
    }

    /// Has workers wake the poller for their replies from now on, and parks idle workers. Returns `false` if a reply has
    /// already arrived.
    pub(crate) fn park(&mut self) -> bool {
        self.looking = false;
        let mut next = 0;
        while let Some(place) = self.next_active(&mut next) {
            if !self.all[place].park() {
                return false;
            }
            self.park_if_idle(place);
        }
        true
    }

    /// Parks idle workers if many are active.
    pub(crate) fn park_idle(&mut self) {
        if self.active.len <= MOST_ACTIVE {
            return;
        }
        let mut next = 0;
        while let Some(place) = self.next_active(&mut next) {
            if has_nothing_to_do(&self.all[place]) && self.all[place].park() {
                self.park_if_idle(place);
            }
        }
    }

    /// Parks this worker if it is idle. The poller reports what it sends.
    fn park_if_idle(&mut self, place: usize) {
        if has_nothing_to_do(&self.all[place]) {
            self.active.remove(place);
            if !self.all[place].is_vacant() {
                self.parked.insert(place);
            }
        }
    }

    /// Stops workers from waking the poller for their replies, because the leader looks at their rings.
    pub(crate) fn unpark(&mut self) {
        self.looking = true;
        let mut next = 0;
        while let Some(place) = self.next_active(&mut next) {
            self.all[place].unpark();
        }
    }
}

/// Moves `next` behind this place.
fn pass(next: &mut usize, place: Option<usize>) -> Option<usize> {
    *next = place? + 1;
    place
}

fn has_nothing_to_do(worker: &Supervisor) -> bool {
    worker.is_vacant() || (worker.is_idle() && worker.deadline().is_none())
}

impl Index<usize> for WorkerSet {
    type Output = Supervisor;

    fn index(&self, place: usize) -> &Self::Output {
        &self.all[place]
    }
}

impl IndexMut<usize> for WorkerSet {
    fn index_mut(&mut self, place: usize) -> &mut Self::Output {
        let worker = &mut self.all[place];
        if self.active.insert(place) && self.parked.remove(place) && self.looking {
            worker.unpark();
        }
        worker
    }
}

/// A set of places. Every access to a worker looks into it, so it is one bit for each place: with sets of std, a call and its reply take
/// 7 % longer (`benches/record/2026-11-29-what-stays.md`).
#[derive(Debug, Default)]
struct Places {
    words: Vec<u64>,
    len: usize,
}

impl Places {
    fn contains(&self, place: usize) -> bool {
        self.words.get(place / 64).is_some_and(|word| word & bit(place) != 0)
    }

    /// Adds a place. Returns whether it was not in the set.
    #[inline]
    fn insert(&mut self, place: usize) -> bool {
        if place / 64 >= self.words.len() {
            self.words.resize(place / 64 + 1, 0);
        }
        let is_new = self.words[place / 64] & bit(place) == 0;
        self.words[place / 64] |= bit(place);
        self.len += usize::from(is_new);
        is_new
    }

    /// Removes a place. Returns whether it was in the set.
    fn remove(&mut self, place: usize) -> bool {
        let was = self.contains(place);
        if was {
            self.words[place / 64] &= !bit(place);
            self.len -= 1;
        }
        was
    }

    /// Returns the first place in the set from `from` on.
    #[inline]
    fn next(&self, from: usize) -> Option<usize> {
        let mut start = from;
        while let Some(word) = self.words.get(start / 64) {
            let bits = word >> (start % 64);
            if bits != 0 {
                return Some(start + bits.trailing_zeros() as usize);
            }
            start = (start / 64 + 1) * 64;
        }
        None
    }
}

fn bit(place: usize) -> u64 {
    1 << (place % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_their_order() {
        let mut places = Places::default();
        for place in [0, 5, 63, 64, 199] {
            assert!(places.insert(place) && !places.insert(place) && places.contains(place));
        }
        assert!(places.remove(63) && !places.remove(63) && !places.remove(1000));
        let mut found = Vec::new();
        while let Some(place) = places.next(found.last().map_or(0, |last| last + 1)) {
            found.push(place);
        }
        assert_eq!((found, places.len), (vec![0, 5, 64, 199], 4));
        assert!(!places.contains(63) && !places.contains(1000) && places.next(1000).is_none());
    }
}
