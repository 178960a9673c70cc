//! Records and spans of workers on their way to the logger of the host.

use crate::{caller::Caller, id::WorkerId, protocol::Record};

/// What a function has said in a worker, for those who listen here.
pub(crate) struct Words {
    pub(crate) record: Record,
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    /// Who handed in the task that said it.
    pub(crate) caller: Caller,
}

impl Words {
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
