//! Threads of ours.
//!
//! All that start one use it, except an executor, whose thread takes the place of its caller's.

use std::thread::Builder;

use super::fault::share_arena;

/// Returns what starts a thread with this name. If the address space is small, the allocator is told first that there is no room for
/// an arena of the thread's own.
pub(crate) fn named(name: impl Into<String>) -> Builder {
    share_arena();
    Builder::new().name(name.into())
}
