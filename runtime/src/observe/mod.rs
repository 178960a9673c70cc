//! Observation from outside: statistics, the timeline, progress, and the records and spans that workers forward.
//!
//! The scheduler, the supervisors and calls feed it. It never influences what is run, and calls a user's logger only while no lock
//! is held.

mod amount;
pub(crate) mod bar;
pub(crate) mod ending;
pub(crate) mod levels;
pub(crate) mod log;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod stats;
mod table;
pub(crate) mod tally;
pub(crate) mod timeline;
#[cfg(feature = "tracing")]
pub(crate) mod tracing;
