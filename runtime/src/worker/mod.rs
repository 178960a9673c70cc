//! The worker process: how it is entered, what it serves, and what a function may ask about where it runs.
//!
//! Never imports the host side.

mod entry;
mod log;
mod output;
mod serve;
mod station;
#[cfg(feature = "tracing")]
mod subscriber;
mod template;

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

pub use entry::{AT_MAIN, dispatch_main};

pub(crate) use entry::become_template;

use crate::id::TaskId;

/// This worker's place in its pool, set once it has shaken hands.
static INDEX: OnceLock<u32> = OnceLock::new();
/// The running task's number plus one; 0 between tasks.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Whether this process is a worker, or the template that workers are forked from.
///
/// # Examples
///
/// ```
/// assert!(!procession::is_worker()); // a plain program
/// ```
#[must_use]
pub fn is_worker() -> bool {
    INDEX.get().is_some() || template::is_template()
}

/// This worker's place in its pool, from 0; `None` in a process that is no worker.
///
/// # Examples
///
/// ```
/// use procession::{parallel, worker};
///
/// #[worker]
/// fn place() -> Option<usize> {
///     procession::worker_index()
/// }
///
/// assert_eq!(procession::worker_index(), None);
/// assert_eq!(parallel!(jobs = 1; place())?, Some(0));
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use]
pub fn worker_index() -> Option<usize> {
    INDEX.get().map(|&index| index as usize)
}

/// Whether the task that this worker runs is to end: it has run for longer than it may, was cancelled, or belongs to a call that has
/// failed. `false` in a process that is no worker.
///
/// A task that looks, from any of its threads, can put things in order and return: its result is not used any more, but its worker
/// lives on. One that does not return within a moment (100 ms) has its process asked to end, by SIGTERM, and then, soon after, killed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn search() -> u64 {
///     let mut steps = 0;
///     while !procession::is_cancelled() {
///         steps += 1; // one step of something long
///     }
///     steps
/// }
///
/// let pool = Pool::builder().jobs(1).task_timeout(Duration::from_millis(50)).build()?;
/// let error = pool.submit(delayed!(search())).join().unwrap_err();
/// assert!(error.is_timeout());
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use]
pub fn is_cancelled() -> bool {
    serve::is_told_to_end()
}

/// The number of the task that this worker runs now; `None` between tasks and in a process that is no worker.
///
/// It is what `Handle::task_id` says in the parent.
#[must_use]
pub fn task_id() -> Option<TaskId> {
    RUNNING.load(Ordering::Relaxed).checked_sub(1).map(TaskId)
}
