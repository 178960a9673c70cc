//! Puts results into the order of the input as they arrive.

use std::collections::BTreeMap;

use crate::sys::memory::advise_huge;

/// Results in the order of the input, or as they come.
pub(crate) struct InOrder<T> {
    /// Those before which none is missing.
    pub(super) first: Vec<T>,
    /// Those after a gap: neighbours together, by the index of the first of them.
    pub(super) ahead: BTreeMap<usize, Vec<T>>,
    /// Memory for more of these.
    spare: Vec<Vec<T>>,
    /// The order of the input does not matter.
    unordered: bool,
}

/// So much memory is kept for later.
const MOST_SPARE: usize = 8;

/// Neighbours among the results, to which more are being added.
pub(super) struct Run<T> {
    /// The index of the first; 0 for those before which none is missing.
    start: usize,
    pub(super) values: Vec<T>,
}

impl<T> InOrder<T> {
    pub(super) fn new(unordered: bool) -> Self {
        Self { first: Vec::new(), ahead: BTreeMap::new(), spare: Vec::new(), unordered }
    }

    /// What so many results from `index` on are to be added to. It is to be [closed](Self::close).
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

/// Makes room for so many more. What grows large is made of large pages, or each small one would be asked for by itself.
fn reserve<T>(values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() < more {
        values.reserve(more);
        advise_huge(values.as_ptr().cast(), values.capacity() * size_of::<T>());
    }
}
