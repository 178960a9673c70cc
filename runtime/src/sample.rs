//! Measures how long the arguments of some tasks take to decode and their results to encode. A worker turns it on for a few tasks
//! at intervals (`worker/replies.rs`). While it is off, it costs one check of a flag.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static TOOK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Starts measuring the tasks of this thread.
pub(crate) fn start() {
    IS_ON.set(true);
    TOOK.set(Duration::ZERO);
}

/// Stops measuring. Returns how long decoding and encoding took.
pub(crate) fn stop() -> Duration {
    IS_ON.set(false);
    TOOK.take()
}

/// Decoding or encoding begins.
#[inline]
pub(crate) fn begin() {
    if IS_ON.get() {
        SINCE.set(Some(Instant::now()));
    }
}

/// Decoding or encoding ends.
#[inline]
pub(crate) fn end() {
    if IS_ON.get() {
        add();
    }
}

#[cold]
fn add() {
    if let Some(since) = SINCE.take() {
        TOOK.set(TOOK.get() + since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_between_begin_and_end_is_counted_and_only_during_a_sample() {
        begin();
        end();
        start();
        end();
        begin();
        std::hint::black_box(vec![0u8; 100_000]);
        end();
        assert!(stop() > Duration::ZERO);
        start();
        assert_eq!(stop(), Duration::ZERO);
    }
}
