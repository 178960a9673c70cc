//! Assigns queued tasks to workers, and replaces workers that die.
//!
//! The module owns the queues, the workers of a pool and the decisions about both. It is a state machine: the driver locks it,
//! feeds it the events of the poller and the current time, and performs the effects that it leaves in [`effects`]. It must never
//! block, wait for a thread, call code of users, read a clock, or make a system call by itself. README.md beside this file explains the design.

mod cancel;
pub(crate) mod config;
mod decide;
mod dispatch;
pub(crate) mod effects;
mod enqueue;
pub(crate) mod events;
pub(crate) mod feed;
mod give_up;
pub(crate) mod machine;
pub(crate) mod policy;
pub(crate) mod queue;
pub(crate) mod queues;
#[cfg(all(test, not(loom)))]
mod random;
mod read;
mod reap;
pub(crate) mod restarts;
pub(crate) mod retire;
#[cfg(all(test, not(loom)))]
pub(crate) mod sim;
mod spawn;
pub(crate) mod state;
#[cfg(all(test, not(loom)))]
mod tests;
pub(crate) mod workers;
