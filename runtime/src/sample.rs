//! A closer look at some tasks: how long their arguments take to decode and their results to encode. Switched on by a worker for a few
//! tasks now and then; otherwise it is a look at a flag.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static TOOK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// From now on this thread's tasks are looked at.
pub(crate) fn start() {
    IS_ON.set(true);
    TOOK.set(Duration::ZERO);
}

/// No more. Returns how long decoding and encoding took.
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

/// It is done.
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
    fn only_what_lies_between_is_counted_and_only_while_it_is_on() {
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
