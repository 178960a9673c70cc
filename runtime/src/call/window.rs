//! Counts the tasks of a call, and says how far ahead its input may be read.
//!
//! [`Call`](super::state::Call) tells it what was pushed, queued and received. It knows neither tasks nor workers.

/// The size of the window in batches per worker. The window contains the tasks that were read from the input and not yet yielded
/// to the caller.
const WINDOW_BATCHES: usize = 4;
/// The same for a caller that is patient. It returns from the driver when half of the window has room, and each time costs about three
/// wake-ups of the background thread, because the caller's input may block. Shown by `real "map on 2 workers"`.
const PATIENT_BATCHES: usize = 16;
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
    /// The number of tasks that are queued together.
    batch_size: usize,
    /// The caller waits for all results.
    is_patient: bool,
    /// The number of tasks that may still be pushed before more than the room in the feed must be checked: the window and the batch have
    /// room for them.
    quota: usize,
}

impl Window {
    pub(super) fn new(is_patient: bool) -> Self {
        Self {
            pushed: 0,
            received: 0,
            held: 0,
            bytes_out: 0,
            fed: 0,
            most: 1,
            batch_size: 1,
            is_patient,
            quota: 0,
        }
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

    /// Returns how many results must be received before the caller can go on: all, or enough for half of the window.
    pub(super) fn wanted(&self) -> usize {
        let enough = if self.bytes_out >= WINDOW_BYTES {
            1
        } else if self.has_room() {
            usize::MAX
        } else {
            (self.most / 2).max(1)
        };
        self.outstanding().min(enough)
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
        let of_all = batch_size.saturating_mul(workers);
        (self.batch_size, self.most) = if self.is_patient {
            // Queueing takes the time of a task, so half of the window is queued at a time. If a worker is idle, the feed does not wait.
            (of_all.saturating_mul(PATIENT_BATCHES / 2), of_all.saturating_mul(PATIENT_BATCHES))
        } else {
            (batch_size, of_all.saturating_mul(WINDOW_BATCHES))
        };
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
        *self = Self { pushed: self.pushed, received: self.pushed, ..Self::new(self.is_patient) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_room_for_a_few_batches_of_each_worker() {
        let mut window = Window::new(false);
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
    fn a_patient_caller_wants_half_of_a_full_window_or_all_that_is_left() {
        let mut window = Window::new(true);
        window.resize(3, 2);
        let most = 3 * 2 * PATIENT_BATCHES;
        (0..most - 1).for_each(|_| window.push(0));
        assert_eq!(window.wanted(), most - 1, "it has no more input, or it would have pushed it");
        window.push(0);
        assert_eq!(window.wanted(), most / 2);
        window.receive(most - 2);
        assert_eq!(window.wanted(), 2);
        window.push(WINDOW_BYTES);
        assert_eq!(window.wanted(), 1, "the window is full of bytes");
    }

    #[test]
    fn large_arguments_close_the_window_until_their_results_are_there() {
        let mut window = Window::new(false);
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
            let mut window = Window::new(false);
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
