//! One call of a pool: its options, its tasks on their way in, and its results on their way out.

pub(crate) mod collect;
pub(crate) mod in_process;
pub(crate) mod order;
pub(crate) mod sinks;
pub(crate) mod state;
