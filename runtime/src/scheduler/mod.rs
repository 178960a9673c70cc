//! The scheduler: it assigns queued tasks to workers, and replaces workers that die.

pub(crate) mod batch;
mod cancel;
pub(crate) mod config;
mod dispatch;
pub(crate) mod effects;
mod enqueue;
pub(crate) mod events;
pub(crate) mod feed;
pub(crate) mod inbox;
mod policy;
pub(crate) mod queue;
pub(crate) mod queues;
mod read;
mod reap;
pub(crate) mod restarts;
pub(crate) mod retire;
mod spawn;
pub(crate) mod state;
pub(crate) mod workers;
