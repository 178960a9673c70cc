//! Tells a worker, or a template, from the copies that user code makes of it by `fork`.
//!
//! A copy has the original's descriptors and mappings. It must not use them, because its replies would be taken for the original's.
//! All code that returns from user code, or that user code can call, checks here first.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::{exit::end_now, generation::generation};

/// The exit code of a copy that returned from the user's code.
const COPY_ENDED: i32 = 90;

/// The generation of the process that became a worker or a template.
static OWN: AtomicU32 = AtomicU32::new(0);

/// Records that this process is a worker or a template, and not a copy of one.
pub(super) fn begin() {
    OWN.store(generation(), Ordering::Relaxed);
}

/// Returns whether this process is a copy of a worker or of a template. Async-signal-safe.
#[inline]
pub(super) fn is_copy() -> bool {
    OWN.load(Ordering::Relaxed) != generation()
}

/// Ends this process at once if it is a copy that has returned from the user's code.
#[inline]
pub(super) fn leave_if_copy() {
    if is_copy() {
        end_now(COPY_ENDED);
    }
}
