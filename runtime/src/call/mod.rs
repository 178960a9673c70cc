//! Runs one call of a pool: its options, its window of tasks, and its results.
//!
//! `pool` and `parallel` open calls. A call belongs to one thread at a time. It passes tasks to the driver and takes results from
//! its inbox. It never talks to a worker and never chooses one.

pub(crate) mod collect;
mod ended;
pub(crate) mod in_process;
mod lent;
pub(crate) mod order;
pub(crate) mod state;
#[cfg(all(test, not(loom)))]
mod tests;
mod window;
