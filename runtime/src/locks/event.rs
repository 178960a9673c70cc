//! Defines [`SharedEvent`], something that has happened or not.

use std::time::{Duration, Instant};

use super::{Handle, deadline, handle};
use crate::{
    error::Result,
    segment::{Repair, StateHandle},
    sync::{AtomicU32, Ordering},
    sys::futex::wake_all,
};

/// The event is set. The bits above count how often it was.
const SET: u32 = 1;

/// Something that has happened or not, for which threads of all processes wait.
///
/// Handles can be arguments, results, and parts of other values. All clones are handles of the same event.
///
/// # Examples
///
/// ```
/// use procession::{Pool, SharedEvent, delayed, worker};
///
/// #[worker]
/// fn poll(stop: &SharedEvent) -> u64 {
///     let mut polls = 0;
///     while !stop.is_set() {
///         polls += 1;
///     }
///     polls
/// }
///
/// let stop = SharedEvent::new()?;
/// let pool = Pool::new(1)?;
/// let polls = pool.submit(delayed!(poll(&stop)));
/// stop.set();
/// println!("polled {} times", polls.join()?);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct SharedEvent {
    state: StateHandle,
}

impl SharedEvent {
    /// Makes an event that is not set.
    ///
    /// # Errors
    ///
    /// Memory cannot be shared here, or there is not enough.
    ///
    /// # Examples
    ///
    /// ```
    /// let ready = procession::SharedEvent::new()?;
    /// assert!(!ready.is_set());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new() -> Result<Self> {
        Handle::zeroed("a shared event", 4)
    }

    fn word(&self) -> &AtomicU32 {
        self.state.word(0)
    }

    /// Sets the event, and wakes all that wait for it.
    ///
    /// # Examples
    ///
    /// ```
    /// let ready = procession::SharedEvent::new()?;
    /// ready.set();
    /// assert!(ready.is_set());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn set(&self) {
        let set = |word: u32| (word & SET == 0).then(|| word.wrapping_add(2) | SET);
        // SYNC(event): pairs with the Acquire in `is_set` and `wait_until`.
        let _ = self.word().fetch_update(Ordering::Release, Ordering::Relaxed, set);
        // Also if it was set: who has set it may have died before it woke anybody.
        let _ = wake_all(self.word());
    }

    /// Clears the event, so that threads wait for it again.
    ///
    /// # Examples
    ///
    /// ```
    /// let ready = procession::SharedEvent::new()?;
    /// ready.set();
    /// ready.clear();
    /// assert!(!ready.is_set());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn clear(&self) {
        self.word().fetch_and(!SET, Ordering::Relaxed);
    }

    /// Returns whether the event is set.
    ///
    /// # Examples
    ///
    /// ```
    /// let ready = procession::SharedEvent::new()?;
    /// assert!(!ready.is_set());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_set(&self) -> bool {
        // SYNC(event): pairs with the Release in `set`.
        self.word().load(Ordering::Acquire) & SET != 0
    }

    /// Waits until the event is set. Also returns if it was set meanwhile and cleared again.
    ///
    /// If no process is left that could set it, this waits forever.
    ///
    /// # Examples
    ///
    /// ```
    /// let ready = procession::SharedEvent::new()?;
    /// ready.set();
    /// ready.wait();
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn wait(&self) {
        self.wait_until(None);
    }

    /// Waits until the event is set, at most this long. Returns whether it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let ready = procession::SharedEvent::new()?;
    /// assert!(!ready.wait_timeout(Duration::from_millis(1)));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(deadline(timeout))
    }

    fn wait_until(&self, until: Option<Instant>) -> bool {
        let seen = self.word().load(Ordering::Acquire);
        seen & SET != 0
            || loop {
                if !self.state.wait(self.word(), seen, until, |_| false) {
                    break self.is_set();
                }
                if self.word().load(Ordering::Acquire) != seen {
                    break true;
                }
            }
    }
}

impl Handle for SharedEvent {
    const REPAIR: Option<Repair> = None;

    fn fits(len_bytes: usize) -> bool {
        len_bytes == 4
    }

    fn of(state: StateHandle) -> Self {
        Self { state }
    }

    fn state(&self) -> &StateHandle {
        &self.state
    }
}

handle!([] SharedEvent, "SharedEvent");
