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
        if self.loans.is_empty() {
            return taken;
        }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::{Claim, Loan, digest};

    /// Returns a loan of this byte.
    fn loan(claim: &mut Claim, at: usize) -> Loans {
        let (_, part) = claim.part().split(at);
        let mut loans = Loans::default();
        loans.add(Loan::Part(part.split(1).0.lend("jobs::f")));
        loans
    }

    #[test]
    fn what_a_task_was_lent_is_back_with_its_outcome_in_any_order() {
        let mut claim = Claim::new(digest::<u8>(), 8, 1).expect("memory");
        let mut lent = LentToTasks::default();
        for index in [3, 5, 6] {
            lent.add(index, loan(&mut claim, index));
            lent.add(index + 100, Loans::default());
        }
        assert!(lent.take(0..3).is_empty());
        assert_eq!(lent.take(5..6).names().as_deref(), Some("elements 5..6"));
        // It is lent again, by another call.
        drop(loan(&mut claim, 5));
        assert!(lent.take(5..6).is_empty() && !lent.is_empty());
        assert_eq!(lent.take(3..7).names().as_deref(), Some("elements 3..4"));
        assert!(lent.is_empty());
        assert_eq!(claim.bytes().len(), 8);
        lent.add(9, loan(&mut claim, 0));
        assert!(!lent.take(9..10).is_empty() && lent.is_empty());
    }
}
