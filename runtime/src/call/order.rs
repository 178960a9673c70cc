//! Puts results into the order of the input as they arrive.
//!
//! Used while the results of a call are collected. It knows indices and values only.

use std::collections::BTreeMap;

use crate::sys::memory::advise_huge;

/// Results in the order of the input, or in the order of arrival.
pub(crate) struct InOrder<T> {
    /// The results before the first gap.
    pub(super) first: Vec<T>,
    /// The results after a gap, in runs of neighbours, by the index of the first.
    pub(super) ahead: BTreeMap<usize, Vec<T>>,
    /// Memory for more runs.
    spare: Vec<Vec<T>>,
    /// Whether results stay in the order of arrival.
    unordered: bool,
}

/// The number of vectors that are kept for later runs.
const MOST_SPARE: usize = 8;

/// A run of neighbouring results to which more are being added.
pub(super) struct Run<T> {
    /// The index of the first result. 0 for the results before the first gap.
    start: usize,
    pub(super) values: Vec<T>,
}

impl<T> InOrder<T> {
    pub(super) fn new(unordered: bool) -> Self {
        Self { first: Vec::new(), ahead: BTreeMap::new(), spare: Vec::new(), unordered }
    }

    /// Returns the run to which `tasks` results from `index` on must be added. It must be [closed](Self::close).
    pub(super) fn open(&mut self, index: usize, tasks: usize) -> Run<T> {
        if index == self.first.len() || self.unordered {
            let mut values = std::mem::take(&mut self.first);
            reserve(&mut values, tasks);
            return Run { start: 0, values };
        }
        let before = self.ahead.range(..index).next_back();
        let adjoining = before.filter(|(start, run)| *start + run.len() == index).map(|(&start, _)| start);
        let start = adjoining.unwrap_or(index);
        let known = adjoining.and_then(|start| self.ahead.remove(&start));
        let mut values = known.or_else(|| self.spare.pop()).unwrap_or_default();
        values.reserve(tasks);
        Run { start, values }
    }

    pub(super) fn close(&mut self, Run { start, values }: Run<T>) {
        if start > 0 {
            self.ahead.insert(start, values);
            return;
        }
        self.first = values;
        while let Some(next) = self.ahead.first_entry()
            && *next.key() == self.first.len()
        {
            let mut run = next.remove();
            reserve(&mut self.first, run.len());
            self.first.append(&mut run);
            if self.spare.len() < MOST_SPARE {
                self.spare.push(run);
            }
        }
    }
}

/// Makes room for `more` values. A large vector uses large pages, because the kernel is asked for each small page separately.
fn reserve<T>(values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() < more {
        values.reserve(more);
        advise_huge(values.as_ptr().cast(), values.capacity() * size_of::<T>());
    }
}
