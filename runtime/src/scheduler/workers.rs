//! Owns the workers by their places, and knows which of them are up. A turn of the driver looks only at those, however many
//! others are at rest.

use std::ops::{Index, IndexMut};

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
    up: Places,
    at_rest: Places,
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
        let mut next = 0;
        std::iter::from_fn(move || {
            let place = self.next_up(next)?;
            next = place + 1;
            Some(&self.all[place])
        })
    }

    /// Returns the first place from `from` on that is up.
    pub(crate) fn next_up(&self, from: usize) -> Option<usize> {
        first_from(from, self.all.len(), |word| self.up.word(word))
    }

    /// Returns the first place from `from` on that may have a process.
    pub(crate) fn next_manned(&self, from: usize) -> Option<usize> {
        first_from(from, self.all.len(), |word| self.up.word(word) | self.at_rest.word(word))
    }

    /// Returns the first vacant place from `from` on, among the first `most` places.
    pub(crate) fn next_vacant(&self, from: usize, most: usize) -> Option<usize> {
        let mut next = from;
        loop {
            let place = first_from(next, most, |word| !self.at_rest.word(word))?;
            if self.all[place].is_vacant() {
                return Some(place);
            }
            next = place + 1;
        }
    }

    /// Returns whether one of the first `most` workers is idle or could be started.
    pub(crate) fn has_time(&self, most: usize) -> bool {
        first_from(0, most, |word| !self.up.word(word)).is_some()
            || self.all[..most].iter().any(|worker| worker.is_idle() || worker.is_vacant())
    }

    /// Returns how many workers are ready for tasks or have some.
    pub(crate) fn live(&self) -> usize {
        self.at_rest.len() + self.up().filter(|worker| worker.is_live()).count()
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.at_rest.len() == 0 && self.up().all(Supervisor::is_vacant)
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
            self.up.remove(place);
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
        if self.up.insert(place) && self.at_rest.remove(place) && self.looking {
            worker.unpark();
        }
        worker
    }
}

/// A set of places.
#[derive(Debug, Default)]
struct Places {
    words: Vec<u64>,
    len: usize,
}

impl Places {
    fn len(&self) -> usize {
        self.len
    }

    fn word(&self, n: usize) -> u64 {
        self.words.get(n).copied().unwrap_or(0)
    }

    /// Adds a place. Returns whether it was not in the set.
    #[inline]
    fn insert(&mut self, place: usize) -> bool {
        let (word, bit) = (place / 64, 1 << (place % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Removes a place. Returns whether it was in the set.
    fn remove(&mut self, place: usize) -> bool {
        let was = self.word(place / 64) & (1 << (place % 64)) != 0;
        if was {
            self.words[place / 64] &= !(1 << (place % 64));
            self.len -= 1;
        }
        was
    }
}

/// Returns the first place from `from` on and before `end` whose bit is set in its word.
#[inline]
fn first_from(from: usize, end: usize, word: impl Fn(usize) -> u64) -> Option<usize> {
    let mut start = from;
    while start < end {
        let bits = word(start / 64) >> (start % 64);
        if bits != 0 {
            let place = start + bits.trailing_zeros() as usize;
            return (place < end).then_some(place);
        }
        start = (start / 64 + 1) * 64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_their_order() {
        let mut places = Places::default();
        for place in [0, 5, 63, 64, 199] {
            assert!(places.insert(place));
            assert!(!places.insert(place));
        }
        let all = |end, places: &Places| {
            let mut found = Vec::new();
            while let Some(place) =
                first_from(found.last().map_or(0, |last| last + 1), end, |word| places.word(word))
            {
                found.push(place);
            }
            found
        };
        assert_eq!(all(200, &places), [0, 5, 63, 64, 199]);
        assert_eq!(all(64, &places), [0, 5, 63]);
        assert!(places.remove(63) && !places.remove(63) && !places.remove(1000));
        assert_eq!((all(1000, &places), places.len()), (vec![0, 5, 64, 199], 4));
        assert_eq!(first_from(0, 200, |word| !places.word(word)), Some(1));
    }
}
