//! Answers questions of running code about its environment: whether this is a worker, which task runs, whether it must end, and its
//! seed.
//!
//! The worker's loop sets this state, and the public functions of the crate read it. Nothing here talks to the host.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use crate::{
    id::{TaskId, WorkerId},
    seed::{self, Calls},
    transport::Board,
};

/// This worker's place in its pool, set after the handshake. [`WorkerId::ALONE`] if it belongs to no pool.
pub(crate) static INDEX: OnceLock<u32> = OnceLock::new();

/// The running task's number plus one; 0 between tasks.
pub(crate) static RUNNING: AtomicU64 = AtomicU64::new(0);

/// The seed of the call whose tasks are running.
pub(crate) static SEED: AtomicU64 = AtomicU64::new(0);

/// The number of calls that the running task has made.
pub(crate) static CALLS: Calls = Calls::new();

/// Returns whether this process is a worker, or a template that workers are forked from.
///
/// # Examples
///
/// ```
/// assert!(!procession::is_worker()); // a plain program
/// ```
#[must_use]
pub fn is_worker() -> bool {
    INDEX.get().is_some() || is_template()
}

/// Returns the index of this worker in its pool, starting at 0.
///
/// Returns `None` in a process that is not a worker, and in a [`Process`](crate::Process), which belongs to no pool.
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
    INDEX.get().filter(|index| **index != WorkerId::ALONE.0).map(|&index| index as usize)
}

/// Returns whether the running task should end, because it exceeded its deadline, was cancelled, or belongs to a call that has
/// failed.
///
/// A task that checks this, from any of its threads, can clean up and return. Its result is discarded, and its worker continues.
/// If the task does not return within 100 ms, its process is terminated with SIGTERM and soon afterwards killed. Returns `false`
/// in a process that is not a worker.
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
    BOARD.get().is_some_and(|board| board.is_to_end(RUNNING_SEQ.load(Ordering::Relaxed)))
        || IS_LAST.load(Ordering::Relaxed)
}

/// Returns the ID of the task that this worker is running, or `None` between tasks and in a process that is not a worker.
///
/// [`Handle::task_id`](crate::Handle::task_id) returns the same ID in the parent.
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn own_number() -> bool {
///     procession::task_id().is_some()
/// }
///
/// let pool = Pool::new(1)?;
/// assert!(pool.submit(delayed!(own_number())).join()?);
/// assert!(procession::task_id().is_none());
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use]
pub fn task_id() -> Option<TaskId> {
    RUNNING.load(Ordering::Relaxed).checked_sub(1).map(TaskId)
}

/// Returns a seed for a random number generator, which depends only on the seed of the call and on the task's index in it.
///
/// Results therefore do not depend on the number of workers, on which worker runs which task, or on retries.
///
/// The seed of a call is the setting `seed` of [`parallel!`](crate::parallel). Without that setting, it is derived from two
/// numbers:
///
/// - the seed of the pool ([`Builder::seed`](crate::Builder::seed)), or else inside a task the number that this function returns
///   there, or else 0
/// - the number of the call. Inside a task, the calls of that task are counted. Elsewhere, all calls of the pool are counted
///   (`parallel!`, `map`, `imap`, `broadcast` and so on, with or without a seed of their own), in the order in which they began
///
/// Two calls of a program therefore draw different numbers, and another run of the program draws the same numbers again. Two
/// pools with the same seed, or with none, draw the same numbers in their first calls. If several threads make calls on one pool,
/// the order of the calls varies. Give such calls a `seed` if their numbers must repeat.
///
/// For a task that was submitted individually, the index is its number among the pool's tasks
/// ([`Handle::task_id`](crate::Handle::task_id)). For a [`Process`](crate::Process), it is its number among those that this
/// process has spawned. Both draw numbers that differ from those of calls.
///
/// Within one task the function always returns the same number. Outside of tasks it returns the number of the first task of the
/// first call without a seed. In a pool without processes, only the thread that runs the task knows the number, so call this
/// function before you start other threads.
///
/// # Examples
///
/// ```
/// use procession::{Pool, parallel, rng_seed, worker};
///
/// /// A step of a generator of random numbers; `StdRng::seed_from_u64(rng_seed())` is another.
/// #[worker]
/// fn roll() -> u64 {
///     rng_seed() % 6 + 1
/// }
///
/// let (one, two) = (Pool::new(1)?, Pool::new(2)?);
/// let rolls = parallel!(pool = &one, seed = 42; roll() for _ in 0..12)?;
/// assert_eq!(rolls, parallel!(pool = &two, seed = 42; roll() for _ in 0..12)?);
/// assert_ne!(rolls, parallel!(pool = &two, seed = 43; roll() for _ in 0..12)?);
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use]
pub fn rng_seed() -> u64 {
    seed_of_task().unwrap_or_else(|| seed::of(seed::of_call(seed::DEFAULT, 0), 0))
}

/// Counts a call that the running task begins. Returns its number among the calls of this task, or `None` outside of tasks.
pub(crate) fn begin_call() -> Option<u64> {
    seed::begin_call_here().or_else(|| task_id().map(|_| CALLS.begin()))
}

/// Returns what [`rng_seed`] returns in a task.
pub(crate) fn seed_of_task() -> Option<u64> {
    seed::here().or_else(|| {
        let TaskId(number) = task_id()?;
        Some(seed::of(SEED.load(Ordering::Relaxed), number))
    })
}

pub(crate) static BOARD: OnceLock<Board> = OnceLock::new();

/// The sequence number of the task that is running or ran last.
pub(crate) static RUNNING_SEQ: AtomicU32 = AtomicU32::new(0);

/// The host has closed its side of the connection while a task was running.
static IS_LAST: AtomicBool = AtomicBool::new(false);

/// Notes that a living host sends nothing more. Without a board, this asks the running task to end.
pub(super) fn note_end_of_requests() {
    IS_LAST.store(true, Ordering::Relaxed);
}

/// Returns the sequence number of the running task, or `None` between tasks.
pub(super) fn running_seq() -> Option<u32> {
    (RUNNING.load(Ordering::Relaxed) != 0).then(|| RUNNING_SEQ.load(Ordering::Relaxed))
}

/// This process is a template, or a worker that was forked from one.
pub(crate) static IS_TEMPLATE: AtomicBool = AtomicBool::new(false);

/// Returns whether this process is a template, or was forked from one.
pub(super) fn is_template() -> bool {
    IS_TEMPLATE.load(Ordering::Relaxed)
}

/// Returns the number from which a pool's seeds are derived: the pool's seed, or else that of the running task, or else a
/// constant.
fn base_of(pool: Option<u64>) -> u64 {
    pool.or_else(crate::context::seed_of_task).unwrap_or(seed::DEFAULT)
}

/// Returns the seed of a call that begins: its own, or else one derived from its number. Calls are counted by the task that makes
/// them, or outside of tasks by their pool.
pub(crate) fn seed_of_call(call: Option<u64>, pool: Option<u64>, calls: &Calls) -> u64 {
    // A call with a seed of its own is counted, too.
    let number = crate::context::begin_call().unwrap_or_else(|| calls.begin());
    call.unwrap_or_else(|| seed::of_call(base_of(pool), number))
}

/// Returns the seed of tasks that are submitted individually.
pub(crate) fn seed_of_singles(pool: Option<u64>) -> u64 {
    seed::of_singles(base_of(pool))
}
