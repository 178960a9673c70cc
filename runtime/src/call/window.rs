//! Counts the tasks of a call, and says how far ahead its input may be read.
//!
//! [`Call`](super::state::Call) tells it what was pushed, queued and received. It knows neither tasks nor workers.

/// The size of the window in batches per worker. The window contains the tasks that were read from the input and not yet yielded
/// to the caller.
const WINDOW_BATCHES: usize = 4;
/// The size of the arguments in flight above which no more input is read.
const WINDOW_BYTES: usize = 64 << 20;

/// The tasks that were read from the input and not yet yielded to the caller.
#[derive(Debug)]
pub(super) struct Window {
    pushed: usize,
    received: usize,
    /// The results that were received and cannot be yielded yet because an earlier one is missing.
    held: usize,
    /// The approximate size of the arguments of all tasks without a result.
    bytes_out: usize,
    /// The number of tasks that were pushed and are not queued yet.
    fed: usize,
    /// The number of tasks that the window may contain.
    most: usize,
    batch_size: usize,
    /// The number of tasks that may still be pushed before more than the room in the feed must be checked: the window and the batch have
    /// room for them.
    quota: usize,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { pushed: 0, received: 0, held: 0, bytes_out: 0, fed: 0, most: 1, batch_size: 1, quota: 0 }
    }

    pub(super) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Returns the number of tasks that were pushed and whose results were not received.
    #[inline]
    pub(super) fn outstanding(&self) -> usize {
        self.pushed - self.received
    }

    /// Returns whether there is room for another task.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.outstanding() + self.held < self.most && self.bytes_out < WINDOW_BYTES
    }

    /// Returns whether there is certainly room for this task and another one.
    #[inline(always)]
    pub(super) fn has_quota(&self) -> bool {
        self.quota > 0
    }

    /// Notes a task that was fed and for which there was quota.
    #[inline(always)]
    pub(super) fn use_quota(&mut self, len_bytes: usize) {
        self.quota -= 1;
        self.feed(len_bytes);
    }

    /// Notes a task that was pushed and is not queued yet.
    #[inline(always)]
    pub(super) fn feed(&mut self, len_bytes: usize) {
        self.fed += 1;
        self.push(len_bytes);
    }

    /// Notes a task that was pushed.
    #[inline(always)]
    pub(super) fn push(&mut self, len_bytes: usize) {
        self.pushed += 1;
        self.bytes_out += len_bytes;
    }

    /// Returns whether as many tasks were fed as make a batch.
    pub(super) fn is_batch_full(&self) -> bool {
        self.fed >= self.batch_size
    }

    pub(super) fn has_fed(&self) -> bool {
        self.fed > 0
    }

    /// Notes that all tasks that were fed are queued.
    pub(super) fn flush(&mut self) {
        self.fed = 0;
    }

    /// Measures how many tasks may be pushed without another look.
    pub(super) fn measure_quota(&mut self) {
        // One less than there is room for, because the slow path must see the last one.
        let in_window = self.most.saturating_sub(self.outstanding() + self.held);
        let in_batch = self.batch_size.saturating_sub(self.fed);
        self.quota =
            if self.bytes_out < WINDOW_BYTES { in_window.min(in_batch).saturating_sub(1) } else { 0 };
    }

    pub(super) fn set_held(&mut self, held: usize) {
        self.held = held;
        self.quota = 0;
    }

    /// Sizes the window for batches of this size and this number of workers.
    pub(super) fn resize(&mut self, batch_size: usize, workers: usize) {
        self.batch_size = batch_size;
        self.most = batch_size.saturating_mul(workers).saturating_mul(WINDOW_BATCHES);
        self.quota = 0;
    }

    /// Notes that `n` results were received.
    pub(super) fn receive(&mut self, n: usize) {
        let out = self.outstanding();
        // The size of the arguments is estimated by the mean, because the exact sizes are known to the scheduler only.
        if out > 0 {
            self.bytes_out -= (self.bytes_out as u128 * n as u128 / out as u128) as usize;
        }
        self.received += n;
    }

    /// Notes that no result will be received any more.
    pub(super) fn abandon(&mut self) {
        *self = Self { pushed: self.pushed, received: self.pushed, ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_room_for_a_few_batches_of_each_worker() {
        let mut window = Window::new();
        assert!(window.has_room());
        window.resize(3, 2);
        for n in 0..3 * 2 * WINDOW_BATCHES {
            assert!(window.has_room(), "{n}");
            window.push(0);
        }
        assert!(!window.has_room());
        window.receive(2);
        assert!(window.has_room());
        window.set_held(2);
        assert!(!window.has_room(), "results that cannot be yielded take room");
        window.abandon();
        assert_eq!((window.outstanding(), window.pushed()), (0, 24));
    }

    #[test]
    fn large_arguments_close_the_window_until_their_results_are_there() {
        let mut window = Window::new();
        window.resize(1_000, 2);
        window.push(WINDOW_BYTES / 2);
        assert!(window.has_room());
        window.push(WINDOW_BYTES / 2);
        assert!(!window.has_room());
        window.measure_quota();
        assert!(!window.has_quota());
        window.receive(1);
        assert!(window.has_room());
    }

    #[test]
    fn the_last_task_of_a_batch_or_a_window_has_no_quota() {
        for (batch, workers) in [(4, 3), (1, 1), (100, 1)] {
            let mut window = Window::new();
            window.resize(batch, workers);
            while window.has_room() {
                window.measure_quota();
                while window.has_quota() {
                    window.use_quota(1);
                    assert!(window.has_room() && !window.is_batch_full());
                }
                window.feed(1);
                assert!(window.is_batch_full() && window.has_fed());
                window.flush();
            }
            assert_eq!(window.pushed(), batch * workers * WINDOW_BATCHES);
        }
    }
}
