//! Defines the effects that the scheduler leaves for the driver: what must happen outside the lock.
//!
//! The scheduler adds to them and never performs them, because they call loggers and wakers of users.

use std::sync::Arc;

use crate::{captured::Captured, handle::Wakes, observe::record::ForwardedRecord};

/// The effects that the driver performs after it has released the lock.
#[derive(Default)]
pub(crate) struct Effects {
    /// Captured output that belongs to no outcome, to be printed.
    pub(crate) shows: Vec<Arc<Captured>>,
    pub(crate) words: Vec<ForwardedRecord>,
    /// The processes that have ended, after their last records.
    #[cfg(feature = "tracing")]
    pub(crate) ended: Vec<u32>,
    /// Messages of the pool itself, to be logged.
    pub(crate) notes: Vec<String>,
    pub(crate) wakes: Wakes,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(feature = "tracing")]
        if !self.ended.is_empty() {
            return false;
        }
        self.words.is_empty() && self.shows.is_empty() && self.notes.is_empty() && self.wakes.is_empty()
    }
}
