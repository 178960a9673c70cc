//! The worker process: how it is entered, what it serves, and how it ends.
//!
//! `start` and the macros' expansions enter here. This module never imports the host side.

mod connect;
mod copy;
mod entry;
mod handshake;
mod host_link;
mod lifeline;
mod log;
mod output;
mod preload;
mod progress;
mod replies;
mod serve;
mod setup;
mod template;
#[cfg(feature = "tracing")]
mod tracing;

pub use entry::{AT_MAIN, dispatch_main};
pub use progress::report_progress;

pub(crate) use entry::become_template;
