//! What tasks have of elements that this process may write otherwise. It is back when they have their outcomes.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Segment,
    ledger::{Borrower, elements},
};

/// A range of a segment's bytes that this process owns. It is released when this is dropped.
pub(crate) struct Owned {
    pub(super) segment: Arc<Segment>,
    pub(super) range: Range<usize>,
    /// The size of an element.
    pub(super) size: usize,
    is_released: AtomicBool,
}

impl Owned {
    /// Claims a range. Returns `None` if some of it has another owner, or if it cannot be changed.
    pub(super) fn new(segment: Arc<Segment>, range: Range<usize>, size: usize) -> Option<Self> {
        let is_free =
            range.start <= range.end && range.end <= segment.len_bytes && segment.ledger()?.claim(&range);
        // Made only now: one that is dropped releases the range, which is another's.
        is_free.then(|| Self { segment, range, size, is_released: false.into() })
    }

    fn release(&self) {
        if !self.is_released.swap(true, Ordering::Relaxed)
            && let Some(ledger) = self.segment.ledger()
        {
            ledger.release(&self.range);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.release();
    }
}

/// A range that is lent to a task until this is dropped. Part of the expansion's interface.
#[derive(Debug)]
pub struct LentRange {
    pub(super) segment: Arc<Segment>,
    pub(super) range: Range<usize>,
    size: usize,
}

impl LentRange {
    /// Lends a range to a task of this function.
    ///
    /// # Panics
    ///
    /// Panics if some of it is lent already.
    pub(super) fn new(
        segment: Arc<Segment>,
        range: Range<usize>,
        size: usize,
        function: &'static str,
    ) -> Self {
        segment.ledger().expect("this process has mapped it").lend(&range, Borrower { function, size });
        Self { segment, range, size }
    }

    /// Returns the segment.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}

impl Drop for LentRange {
    fn drop(&mut self) {
        if let Some(ledger) = self.segment.ledger() {
            ledger.take_back(&self.range);
        }
    }
}

/// What one task has of the elements of this process.
pub(crate) enum Loan {
    Part(LentRange),
    /// It owns them, once the claim that was encoded is dropped.
    Moved(Arc<Owned>),
}

/// What a task has of elements that this process may write otherwise. They are back when the last copy is dropped.
#[derive(Clone, Default)]
pub(crate) struct Loans(Option<Arc<Vec<Loan>>>);

impl Loans {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn add(&mut self, loan: Loan) {
        let loans = Arc::get_mut(self.0.get_or_insert_default());
        loans.expect("no task has them yet").push(loan);
    }

    pub(crate) fn append(&mut self, others: &mut Self) {
        let others = others.0.take().and_then(Arc::into_inner);
        others.into_iter().flatten().for_each(|loan| self.add(loan));
    }

    /// Returns the names of the ranges, if there are any.
    pub(crate) fn names(&self) -> Option<String> {
        let name = |loan: &Loan| match loan {
            Loan::Part(LentRange { range, size, .. }) => elements(range, *size),
            Loan::Moved(owned) => elements(&owned.range, owned.size),
        };
        Some(self.0.as_ref()?.iter().map(name).collect::<Vec<_>>().join(" and "))
    }

    fn moved(&self) -> impl Iterator<Item = &Arc<Owned>> {
        self.0.iter().flat_map(|loans| &**loans).filter_map(|loan| match loan {
            Loan::Moved(owned) => Some(owned),
            Loan::Part(_) => None,
        })
    }

    /// Checks that nothing else has what is moved to the task.
    ///
    /// # Errors
    ///
    /// A slice was encoded, but not dropped, so that this process could still use it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let words = "a `SharedSliceMut` among the arguments also exists elsewhere: move it to one task, without a reference to it";
        if self.are_kept() { Err(words.to_owned()) } else { Ok(()) }
    }

    fn are_kept(&self) -> bool {
        self.moved().any(|owned| Arc::strong_count(owned) > 1)
    }

    /// Gives up what a result has named, which the caller then has.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub(crate) fn give_back(self) -> Result<(), String> {
        let words =
            "a `SharedSliceMut` in it also exists elsewhere: return it without keeping a reference to it";
        if self.are_kept() { Err(words.to_owned()) } else { Ok(()) }
    }

    /// Releases what is moved to a task of this process.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub(crate) fn release(&self) -> Result<(), String> {
        self.check()?;
        self.moved().for_each(|owned| owned.release());
        Ok(())
    }
}

impl fmt::Debug for Loans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loans").field(&self.names()).finish()
    }
}
