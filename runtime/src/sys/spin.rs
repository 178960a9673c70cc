//! Decides when a thread that spins for another process offers its core to others.
//!
//! The driver and the serving thread of a worker use it. On a virtual machine, a process that is woken often gets the core of the thread that woke
//! it, although another core is idle. If one of the two then spins, it keeps the other from that core. So a thread that has spun in vain for
//! [`ALONE`] yields between two looks. While both are ready to run, the kernel sees that the core has too much to do, and soon moves one of them.

use std::time::{Duration, Instant};

/// The time for which a thread spins before it offers its core. Replies from other cores take less.
const ALONE: Duration = Duration::from_micros(4);

/// If an offer takes longer than this, another thread has run.
const SWITCHES: Duration = Duration::from_micros(2);

/// If an offer takes longer than this, a program that computes has taken the core: those that are waited for take less.
const LONG: Duration = Duration::from_micros(500);

/// The time for which the core is not offered after that. A thread that sleeps instead is preferred when it is woken, and one that has yielded
/// is not, so it would wait for milliseconds again.
const REFUSE_FOR: Duration = Duration::from_millis(100);

/// What the last offers of a thread, or of threads that take turns, have shown.
#[derive(Debug, Default)]
pub(crate) struct Spinner {
    /// Another thread has run during the last offer. It is probably the one that is waited for.
    is_shared: bool,
    refuses_until: Option<Instant>,
}

impl Spinner {
    /// Returns whether a thread that has spun for this time should [offer](offer) its core.
    #[inline]
    pub(crate) fn should_offer(&self, spun: Duration, now: Instant) -> bool {
        (self.is_shared || spun >= ALONE) && self.refuses_until.is_none_or(|until| until <= now)
    }

    /// Notes how long an offer took that has just ended.
    pub(crate) fn offered(&mut self, took: Duration, now: Instant) {
        self.is_shared = took >= SWITCHES;
        self.refuses_until = (took >= LONG).then(|| now + REFUSE_FOR);
    }
}

/// Lets other threads that want this core run first. Returns how long that took.
pub(crate) fn offer() -> Duration {
    let start = Instant::now();
    std::thread::yield_now();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_offered_early_if_it_is_shared_and_not_if_a_program_computes_there() {
        let mut spinner = Spinner::default();
        let (now, short) = (Instant::now(), Duration::from_nanos(300));
        assert!(!spinner.should_offer(short, now) && spinner.should_offer(ALONE, now));
        spinner.offered(SWITCHES, now);
        assert!(spinner.should_offer(short, now), "the peer is on the same core");
        spinner.offered(short, now);
        assert!(!spinner.should_offer(short, now), "it is not any more");
        spinner.offered(LONG, now);
        assert!(!spinner.should_offer(ALONE, now) && spinner.should_offer(ALONE, now + REFUSE_FOR));
    }
}
