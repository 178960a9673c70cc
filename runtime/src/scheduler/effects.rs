//! Defines the effects that the scheduler leaves for the driver: what must happen outside the lock.
//!
//! The scheduler adds to them and never performs them, because they call loggers and wakers of users.

use std::{any::Any, sync::Arc};

use crate::{
    batch::{Batch, Recipient},
    captured::Captured,
    handle::Wakes,
    observe::{record::ForwardedRecord, timeline::TimelineEntry},
};

/// The effects that the driver performs after it has released the lock.
#[derive(Default)]
pub(crate) struct Effects {
    /// Values whose drop may take a while.
    pub(crate) dropped: Vec<Box<dyn Any + Send>>,
    /// Captured output that belongs to no outcome, to be printed.
    pub(crate) outputs: Vec<Arc<Captured>>,
    pub(crate) records: Vec<ForwardedRecord>,
    /// The processes that have ended, after their last records.
    #[cfg(feature = "tracing")]
    pub(crate) ended: Vec<u32>,
    /// Messages of the pool itself, to be logged.
    pub(crate) notes: Vec<String>,
    pub(crate) wakes: Wakes,
    /// The new entries for the timeline. They are written before the lock is released, so that the entries stay in order.
    pub(crate) timeline: Vec<TimelineEntry>,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(feature = "tracing")]
        if !self.ended.is_empty() {
            return false;
        }
        self.dropped.is_empty()
            && self.records.is_empty()
            && self.outputs.is_empty()
            && self.notes.is_empty()
            && self.wakes.is_empty()
    }

    /// Delivers the captured output of the first task of a batch, before its outcome.
    pub(super) fn give_output(&mut self, batch: &Batch, output: Option<Arc<Captured>>) {
        match (output, &batch.to) {
            (None, _) => {}
            (Some(output), Recipient::Unclaimed) => self.outputs.push(output),
            (Some(output), to) => to.give_output(batch.first, output, &mut self.wakes),
        }
    }
}
