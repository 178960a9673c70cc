//! The promises that need worker processes: a module for each.
//!
//! Every test runs in a process of its own (`alone`), which ends by asserting that nothing is left: no child, no open descriptor,
//! no thread, no segment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alone;
mod async_worker;
mod awaiting;
mod blame;
mod callbacks;
mod cancel;
mod codec;
mod crash;
mod debugging;
mod end;
mod escape;
mod event;
mod fair;
mod foreign_fork;
mod forged;
mod forking_callback;
mod forking_task;
mod given_up;
mod hostile;
mod idle;
mod large;
mod leak;
mod leaks;
mod logs;
mod memory;
mod nested;
mod order;
mod output;
mod panic;
mod pitfalls;
mod pool;
mod process;
mod recycle;
mod rest;
mod scratch;
mod scribble;
mod settings;
mod shared;
mod start;
mod stats;
mod subscriber;
mod surroundings;
mod timeout;
mod validation;
