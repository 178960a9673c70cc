//! Who has which elements of a segment that can be changed, as far as this process knows: their owners, and the tasks that they are lent to.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::sync::ignore_poison;

/// Who has which bytes of the data.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// The number of loans, so that an access is checked quickly while there are none.
    loans: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    claims: Ranges<()>,
    loans: Ranges<Borrower>,
}

/// A task that was lent a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Borrower {
    pub(super) function: &'static str,
    /// The size of an element.
    pub(super) size: usize,
}

/// Ranges that do not overlap, none of them empty, each with a value.
#[derive(Debug)]
struct Ranges<V>(BTreeMap<usize, (usize, V)>);

impl<V> Default for Ranges<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Ranges<V> {
    /// Returns a range that overlaps with this one.
    fn overlapping(&self, range: &Range<usize>) -> Option<(Range<usize>, &V)> {
        // The last one that begins before the end also ends last.
        let (&start, (end, value)) = self.0.range(..range.end).next_back()?;
        (!range.is_empty() && *end > range.start).then_some((start..*end, value))
    }

    fn insert(&mut self, range: &Range<usize>, value: V) {
        if !range.is_empty() {
            self.0.insert(range.start, (range.end, value));
        }
    }

    fn remove(&mut self, range: &Range<usize>) {
        if !range.is_empty() {
            self.0.remove(&range.start);
        }
    }
}

/// Describes a range of bytes as elements.
pub(super) fn elements(range: &Range<usize>, size: usize) -> String {
    format!("elements {}..{}", range.start / size, range.end / size)
}

impl State {
    fn check(&self, range: &Range<usize>) {
        if let Some((lent, Borrower { function, size })) = self.loans.overlapping(range) {
            let elements = elements(&lent, *size);
            panic!("{elements} of a shared slice are lent to a task of `{function}`, which has not ended");
        }
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }

    /// Panics with the name of the function if some of these bytes are lent.
    pub(super) fn check(&self, range: &Range<usize>) {
        // SYNC(loan-ended): pairs with the Release in `Ledger::take_back`.
        if self.loans.load(Ordering::Acquire) > 0 {
            self.lock().check(range);
        }
    }

    /// Adds a loan.
    ///
    /// # Panics
    ///
    /// Panics with the name of the function if some of the bytes are lent already.
    pub(super) fn lend(&self, range: &Range<usize>, to: Borrower) {
        let mut state = self.lock();
        state.check(range);
        state.loans.insert(range, to);
        self.loans.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a loan, because its task has its outcome.
    pub(super) fn take_back(&self, range: &Range<usize>) {
        self.lock().loans.remove(range);
        // SYNC(loan-ended): pairs with the Acquire in `Ledger::check`. What the task wrote was seen with its outcome.
        self.loans.fetch_sub(1, Ordering::Release);
    }

    /// Adds a claim. Returns `false` if some of the bytes have an owner or are lent.
    pub(super) fn claim(&self, range: &Range<usize>) -> bool {
        let mut state = self.lock();
        let is_free = state.claims.overlapping(range).is_none() && state.loans.overlapping(range).is_none();
        if is_free {
            state.claims.insert(range, ());
        }
        is_free
    }

    /// Ends a claim.
    pub(super) fn release(&self, range: &Range<usize>) {
        self.lock().claims.remove(range);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const TASK: Borrower = Borrower { function: "jobs::blur", size: 4 };

    fn is_lent(ledger: &Ledger, range: Range<usize>) -> bool {
        catch_unwind(std::panic::AssertUnwindSafe(|| ledger.check(&range))).is_err()
    }

    #[test]
    fn what_overlaps_with_a_loan_is_lent_and_nothing_else_is() {
        let ledger = Ledger::default();
        assert!(!is_lent(&ledger, 0..100));
        ledger.lend(&(8..16), TASK);
        ledger.lend(&(24..32), TASK);
        for (range, lent) in [
            (0..8, false),
            (0..9, true),
            (15..17, true),
            (16..24, false),
            (0..100, true),
            (10..10, false),
            (31..99, true),
            (32..99, false),
        ] {
            assert_eq!(is_lent(&ledger, range.clone()), lent, "{range:?}");
        }
        ledger.take_back(&(8..16));
        assert!(!is_lent(&ledger, 0..24) && is_lent(&ledger, 0..25));
        ledger.take_back(&(24..32));
        assert!(!is_lent(&ledger, 0..100));
    }

    #[test]
    fn what_is_lent_is_not_lent_again_and_the_panic_names_the_function() {
        let ledger = Ledger::default();
        ledger.lend(&(8..16), TASK);
        let again = catch_unwind(std::panic::AssertUnwindSafe(|| ledger.lend(&(12..20), TASK)));
        let words = again.unwrap_err().downcast::<String>().expect("words");
        assert!(words.contains("elements 2..4") && words.contains("`jobs::blur`"), "{words}");
        ledger.lend(&(16..20), TASK);
    }

    #[test]
    fn a_range_has_one_owner() {
        let ledger = Ledger::default();
        assert!(ledger.claim(&(0..8)) && ledger.claim(&(8..16)) && ledger.claim(&(4..4)));
        assert!(!ledger.claim(&(4..12)) && !ledger.claim(&(0..1)));
        ledger.release(&(0..8));
        assert!(ledger.claim(&(0..8)));
        ledger.lend(&(16..20), TASK);
        assert!(!ledger.claim(&(18..30)), "its last owner has lent it");
    }
}
