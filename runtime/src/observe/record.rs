//! Records, spans and events of workers on their way to the host's logger and subscriber.
//!
//! They are collected while a lock is held, and emitted after it was released.

use crate::{caller::Caller, id::WorkerId, protocol::Record};

/// A record, span or event of a worker, with its origin.
pub(crate) struct ForwardedRecord {
    pub(crate) record: Record,
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    /// The caller who submitted the task that made it.
    pub(crate) caller: Caller,
}

impl ForwardedRecord {
    pub(crate) fn emit(&self) {
        match &self.record {
            Record::Log(record) => {
                self.caller.within(|| crate::observe::log::emit(record, self.worker, self.pid))
            }
            #[cfg(feature = "tracing")]
            Record::Trace(said) => crate::observe::tracing::emit(said, self.worker, self.pid, &self.caller),
        }
    }
}
