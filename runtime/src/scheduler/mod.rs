//! The scheduler: it assigns queued tasks to workers, and replaces workers that die.

pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod inbox;
pub(crate) mod queue;
pub(crate) mod queues;
pub(crate) mod restarts;
pub(crate) mod retire;
pub(crate) mod state;
pub(crate) mod workers;
