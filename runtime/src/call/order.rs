//! Puts results into the order of the input as they arrive.
//!
//! Used while the results of a call are collected or iterated. It knows indices and values only.

use std::collections::BTreeMap;

use crate::sys::memory::advise_huge;

/// Values that arrive in any order and leave in the order of the input, or in the order of arrival.
pub(crate) struct ReorderBuffer<T> {
    /// The index of the first value in `ready`.
    start: usize,
    /// The values before the first gap.
    ready: Vec<T>,
    /// The values after a gap, in runs of neighbours, by the index of the first.
    ahead: BTreeMap<usize, Vec<T>>,
    /// Memory for more runs.
    spare: Vec<Vec<T>>,
    /// Whether values stay in the order of arrival.
    unordered: bool,
}

/// The number of vectors that are kept for later runs.
const MOST_SPARE: usize = 8;

/// A run of neighbouring values to which more are being added.
pub(super) struct Run<T> {
    /// The index of the first value, or `None` for the values before the first gap.
    start: Option<usize>,
    pub(super) values: Vec<T>,
}

impl<T> ReorderBuffer<T> {
    pub(crate) fn new(unordered: bool) -> Self {
        Self { start: 0, ready: Vec::new(), ahead: BTreeMap::new(), spare: Vec::new(), unordered }
    }

    /// Returns the run to which the `tasks` values from `index` on must be added. It must be [closed](Self::close).
    pub(super) fn open(&mut self, index: usize, tasks: usize) -> Run<T> {
        if index == self.start + self.ready.len() || self.unordered {
            let mut values = std::mem::take(&mut self.ready);
            reserve(&mut values, tasks);
            return Run { start: None, values };
        }
        let before = self.ahead.range(..index).next_back();
        let adjoining = before.filter(|(start, run)| *start + run.len() == index).map(|(&start, _)| start);
        let start = adjoining.unwrap_or(index);
        let known = adjoining.and_then(|start| self.ahead.remove(&start));
        let mut values = known.or_else(|| self.spare.pop()).unwrap_or_default();
        values.reserve(tasks);
        Run { start: Some(start), values }
    }

    pub(super) fn close(&mut self, Run { start, values }: Run<T>) {
        if let Some(start) = start {
            self.ahead.insert(start, values);
            return;
        }
        self.ready = values;
        while let Some(next) = self.ahead.first_entry()
            && *next.key() == self.start + self.ready.len()
        {
            let mut run = next.remove();
            reserve(&mut self.ready, run.len());
            self.ready.append(&mut run);
            if self.spare.len() < MOST_SPARE {
                self.spare.push(run);
            }
        }
    }

    /// Takes the values before the first gap. `empty` replaces the vector that held them.
    pub(crate) fn take(&mut self, empty: Vec<T>) -> Vec<T> {
        self.start += self.ready.len();
        std::mem::replace(&mut self.ready, empty)
    }

    /// Returns the number of values that wait for an earlier one.
    pub(crate) fn held(&self) -> usize {
        self.ahead.values().map(Vec::len).sum()
    }

    /// Drops the last value and those that wait for an earlier one, and adds values to the others until the first `n` tasks have one. So at
    /// least one is added, even if everything had arrived.
    ///
    /// # Errors
    ///
    /// Returns the first error of `value`.
    pub(super) fn fill<E>(&mut self, n: usize, mut value: impl FnMut() -> Result<T, E>) -> Result<(), E> {
        self.ahead.clear();
        self.ready.truncate(n.saturating_sub(self.start + 1));
        while self.start + self.ready.len() < n {
            self.ready.push(value()?);
        }
        Ok(())
    }
}

/// Makes room for `more` values. A large vector uses large pages, because the kernel is asked for each small page separately.
fn reserve<T>(values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() < more {
        values.reserve(more);
        advise_huge(values.as_ptr().cast(), values.capacity() * size_of::<T>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `0..tasks` into runs and shuffles these.
    fn arrivals(tasks: usize, mut random: impl FnMut(usize) -> usize) -> Vec<std::ops::Range<usize>> {
        let mut runs = Vec::new();
        let mut next = 0;
        while next < tasks {
            let end = tasks.min(next + 1 + random(4));
            runs.push(next..end);
            next = end;
        }
        for i in (1..runs.len()).rev() {
            runs.swap(i, random(i + 1));
        }
        runs
    }

    fn check(seed: u64, takes: bool) {
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let tasks = random(60);
        let mut buffer = ReorderBuffer::new(false);
        let (mut taken, mut arrived) = (Vec::new(), 0);
        for indices in arrivals(tasks, &mut random) {
            arrived += indices.len();
            let mut run = buffer.open(indices.start, indices.len());
            run.values.extend(indices);
            buffer.close(run);
            if takes {
                taken.append(&mut buffer.take(Vec::new()));
                assert_eq!(taken.len() + buffer.held(), arrived, "seed {seed}");
            }
            assert!(taken.iter().copied().eq(0..taken.len()), "seed {seed}: {taken:?}");
        }
        taken.append(&mut buffer.take(Vec::new()));
        assert!(taken.into_iter().eq(0..tasks), "seed {seed}");
        assert_eq!(buffer.held(), 0, "seed {seed}");
    }

    #[test]
    fn values_are_yielded_in_input_order_for_every_order_of_arrival() {
        for seed in 0..500 {
            check(seed, false);
            check(seed, true);
        }
    }

    #[test]
    fn an_unordered_buffer_keeps_the_order_of_arrival() {
        let mut buffer = ReorderBuffer::new(true);
        for first in [5, 0, 3] {
            let mut run = buffer.open(first, 1);
            run.values.push(first);
            buffer.close(run);
            assert_eq!(buffer.held(), 0);
        }
        assert_eq!(buffer.take(Vec::new()), [5, 0, 3]);
    }

    #[test]
    fn missing_values_are_filled_in_from_the_first_gap() {
        let mut buffer = ReorderBuffer::new(false);
        for first in [0, 2] {
            let mut run = buffer.open(first, 1);
            run.values.push(first);
            buffer.close(run);
        }
        buffer.fill(4, || Ok::<_, ()>(99)).unwrap();
        assert_eq!(buffer.take(Vec::new()), [0, 99, 99, 99]);
        let mut buffer = ReorderBuffer::new(false);
        let mut run = buffer.open(0, 2);
        run.values.extend([0, 1]);
        buffer.close(run);
        buffer.fill(2, || Ok::<_, ()>(99)).unwrap();
        assert_eq!(buffer.take(Vec::new()), [0, 99], "a call of which all has arrived");
    }
}
