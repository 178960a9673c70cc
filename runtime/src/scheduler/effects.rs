//! What the scheduler leaves for the driver to do once it is unlocked.

use std::sync::Arc;

use crate::{captured::Captured, handle::Wakes, observe::record::Words};

/// What is to be done once the scheduler is unlocked.
#[derive(Default)]
pub(crate) struct After {
    /// What was captured and belongs to no outcome.
    pub(crate) shows: Vec<Arc<Captured>>,
    pub(crate) words: Vec<Words>,
    /// Processes that have ended after that.
    #[cfg(feature = "tracing")]
    pub(crate) ended: Vec<u32>,
    /// What the pool itself has to say.
    pub(crate) notes: Vec<String>,
    pub(crate) wakes: Wakes,
}

impl After {
    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(feature = "tracing")]
        if !self.ended.is_empty() {
            return false;
        }
        self.words.is_empty() && self.shows.is_empty() && self.notes.is_empty() && self.wakes.is_empty()
    }
}
