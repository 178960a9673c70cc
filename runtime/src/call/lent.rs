//! What the tasks of a call were lent, until they have their outcomes.

use std::{collections::VecDeque, ops::Range};

use crate::segment::Loans;

/// The loans of the tasks of a call.
#[derive(Debug, Default)]
pub(super) struct LentToTasks {
    /// Those of consecutive tasks, some of which have none.
    loans: VecDeque<Loans>,
    /// The index of the first of them.
    first: usize,
}

impl LentToTasks {
    /// Returns whether a task has something.
    pub(super) fn is_empty(&self) -> bool {
        self.loans.is_empty()
    }

    /// Adds the loans of a task. Tasks are added in order.
    pub(super) fn add(&mut self, index: usize, loans: Loans) {
        if loans.is_empty() {
            return;
        }
        if self.loans.is_empty() {
            self.first = index;
        }
        self.loans.resize_with(index - self.first, Loans::default);
        self.loans.push_back(loans);
    }

    /// Takes the loans of the first of these tasks, all of which have their outcomes. Drops those of the others.
    pub(super) fn take(&mut self, tasks: Range<usize>) -> Loans {
        let mut taken = Loans::default();
        for index in tasks.clone().rev() {
            if let Some(loans) = index.checked_sub(self.first).and_then(|at| self.loans.get_mut(at)) {
                taken = std::mem::take(loans);
            }
        }
        while self.loans.front().is_some_and(Loans::is_empty) {
            self.loans.pop_front();
            self.first += 1;
        }
        taken
    }
}
