//! The worker process: how it is entered, what it serves, and how it ends.
//!
//! Never imports the host side.

mod copy;
mod entry;
mod log;
mod output;
mod progress;
mod serve;
mod setup;
mod template;
#[cfg(feature = "tracing")]
mod tracing;

pub use entry::{AT_MAIN, dispatch_main};
pub use progress::report_progress;

pub(crate) use entry::become_template;
