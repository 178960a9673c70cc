//! Defines [`SharedBarrier`], at which threads wait for each other.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{Handle, deadline, handle};
use crate::{
    error::{Error, Result},
    segment::{ENTRIES, Entry, Repair, State, StateHandle},
    sync::{AtomicU32, Ordering, step},
    sys::futex::wake_all,
};

/// The number of threads that have arrived in this round.
const ARRIVED: u32 = 0xffff;
/// What is added when the next round begins.
const ROUND: u32 = 1 << 16;
/// A participant has died.
const BROKEN: u32 = 1 << 31;

/// A point that a number of threads of all processes reach together.
///
/// It is what [`std::sync::Barrier`] is for the threads of one process. Handles can be arguments, results, and parts of other values. All clones are
/// handles of the same barrier.
///
/// If a process dies that has a handle, the barrier breaks, for good: all that wait get an error, and so do those that come later. A process that only
/// drops its handles does not break it, so whoever waits for threads that may never come should use [`wait_timeout`](Self::wait_timeout).
///
/// # Examples
///
/// ```
/// use procession::{Pool, RemoteError, SharedBarrier, delayed, worker};
///
/// #[worker]
/// fn simulate(part: u32, barrier: &SharedBarrier) -> Result<u32, RemoteError> {
///     for _step in 0..10 {
///         // ... change the part, and then wait for the other part.
///         barrier.wait()?;
///     }
///     Ok(part)
/// }
///
/// let barrier = SharedBarrier::new(2)?;
/// let pool = Pool::new(2)?;
/// let parts: Vec<_> = (0..2).map(|part| pool.submit(delayed!(simulate(part, &barrier)))).collect();
/// for part in parts {
///     part.join()??;
/// }
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedBarrier {
    state: StateHandle,
    /// The process that was counted as having this handle.
    entry: Entry,
}

/// Tells one of the threads that have waited at a barrier from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Returns whether this is the one thread of its round that arrived last.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

/// A process died that had a handle of the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenBarrier;

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the barrier is broken: a process died that had a handle of it")
    }
}

impl std::error::Error for BrokenBarrier {}

impl From<BrokenBarrier> for Error {
    fn from(broken: BrokenBarrier) -> Self {
        Self::config(broken.to_string())
    }
}

/// The word of a barrier: the round, and how many have arrived in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BarrierWord<'a>(pub(super) &'a AtomicU32);

impl BarrierWord<'_> {
    /// Arrives, and waits for the others. Returns whether the caller was the last, who must wake them. Returns `None` if `sleep` returns `false`, which waits
    /// until the word has not this value any more, or is woken.
    pub(super) fn wait(
        self,
        parties: u32,
        mut sleep: impl FnMut(u32) -> bool,
    ) -> Option<Result<bool, BrokenBarrier>> {
        let is_last = |word: u32| (word & ARRIVED) + 1 >= parties;
        let arrive = |word: u32| {
            let next = if is_last(word) { (word & !ARRIVED).wrapping_add(ROUND) & !BROKEN } else { word + 1 };
            (word & BROKEN == 0).then_some(next)
        };
        // SYNC(barrier): pairs with itself, and with the Acquire below: what each has done before is seen by all.
        let Ok(before) = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, arrive) else {
            return Some(Err(BrokenBarrier));
        };
        step("barrier: arrived");
        if is_last(before) {
            return Some(Ok(true));
        }
        let is_over = |word: u32| (word ^ before) & !ARRIVED & !BROKEN != 0;
        loop {
            // SYNC(barrier): as above.
            let word = self.0.load(Ordering::Acquire);
            if is_over(word) {
                return Some(Ok(false));
            }
            if word & BROKEN != 0 {
                return Some(Err(BrokenBarrier));
            }
            if sleep(word) {
                continue;
            }
            let leave = |word: u32| (word & BROKEN == 0 && !is_over(word)).then(|| word.wrapping_sub(1));
            if self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, leave).is_ok() {
                return None;
            }
        }
    }

    /// Breaks the barrier. All waiters must be woken then.
    pub(super) fn break_it(self) {
        self.0.fetch_or(BROKEN, Ordering::Relaxed);
    }
}

fn word(state: &State) -> BarrierWord<'_> {
    BarrierWord(state.word(0))
}

/// Returns the word with the number of parties.
fn parties(state: &State) -> &AtomicU32 {
    state.word(1)
}

/// Returns the word that counts the handles of a process.
fn handles(state: &State, entry: Entry) -> &AtomicU32 {
    state.word(2 + entry.index())
}

impl SharedBarrier {
    /// Makes a barrier for this many threads.
    ///
    /// # Errors
    ///
    /// The number is 0 or larger than 65,535, memory cannot be shared here, or there is not enough.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = procession::SharedBarrier::new(1)?;
    /// assert!(barrier.wait()?.is_leader());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(threads: usize) -> Result<Self> {
        let number = u32::try_from(threads).ok().filter(|number| (1..=ARRIVED).contains(number));
        let wrong =
            || Error::config(format!("a shared barrier is for 1 to {ARRIVED} threads, not {threads}"));
        let number = number.ok_or_else(wrong)?;
        let barrier: Self = Handle::zeroed("a shared barrier", 4 * (2 + ENTRIES))?;
        parties(&barrier.state).store(number, Ordering::Relaxed);
        Ok(barrier)
    }

    /// Waits until as many threads wait as the barrier is for.
    ///
    /// # Errors
    ///
    /// A process died that had a handle of the barrier.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = procession::SharedBarrier::new(1)?;
    /// barrier.wait()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn wait(&self) -> Result<BarrierWaitResult, BrokenBarrier> {
        self.wait_until(None).expect("a wait without a deadline ends with the others")
    }

    /// Waits until as many threads wait as the barrier is for, at most this long. Returns `None` if the time is up: this thread does not wait any
    /// more, and the others do.
    ///
    /// # Errors
    ///
    /// A process died that had a handle of the barrier.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = procession::SharedBarrier::new(2)?;
    /// assert!(barrier.wait_timeout(Duration::from_millis(1)).is_none());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<BarrierWaitResult, BrokenBarrier>> {
        self.wait_until(deadline(timeout))
    }

    fn wait_until(&self, until: Option<Instant>) -> Option<Result<BarrierWaitResult, BrokenBarrier>> {
        let (state, word) = (&self.state, word(&self.state));
        // A copy of the process that got the handle has none that was counted.
        let counted = self.clone();
        let concerned = |entry| handles(state, entry).load(Ordering::Relaxed) > 0;
        let number = parties(state).load(Ordering::Relaxed);
        let waited = word.wait(number, |seen| state.wait(word.0, seen, until, concerned));
        drop(counted);
        if let Some(Ok(true)) = waited {
            let _ = wake_all(word.0);
        }
        waited.map(|waited| waited.map(BarrierWaitResult))
    }
}

/// Breaks the barrier if the process had a handle.
fn repair(state: &State, dead: Entry) {
    if handles(state, dead).load(Ordering::Relaxed) > 0 {
        word(state).break_it();
        let _ = wake_all(word(state).0);
        step("recovery: the barrier is broken");
        handles(state, dead).store(0, Ordering::Relaxed);
    }
}

impl Handle for SharedBarrier {
    const REPAIR: Option<Repair> = Some(repair);

    fn fits(len_bytes: usize) -> bool {
        len_bytes == 4 * (2 + ENTRIES)
    }

    /// Counts the handle.
    fn of(state: StateHandle) -> Self {
        let entry = state.my_entry();
        handles(&state, entry).fetch_add(1, Ordering::Relaxed);
        Self { state, entry }
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }
}

handle!([] SharedBarrier, "SharedBarrier");

impl Drop for SharedBarrier {
    fn drop(&mut self) {
        // The handles of a copy of the process were not counted.
        if self.state.is_mine(self.entry) {
            handles(&self.state, self.entry).fetch_sub(1, Ordering::Relaxed);
        }
    }
}
