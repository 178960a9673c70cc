//! Determines which levels of records the host wants from its workers. Sent with the hello and with each request.

use super::timeline;
use crate::protocol::Levels;

/// Returns the most verbose levels that this process's logger and subscriber want.
pub(crate) fn levels() -> Levels {
    #[cfg(not(feature = "tracing"))]
    let trace = 0;
    #[cfg(feature = "tracing")]
    let trace = crate::observe::tracing::level();
    Levels { log: log::max_level() as u8, trace, is_timed: timeline::is_on() }
}
