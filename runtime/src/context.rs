//! What running code may ask about where it runs: whether this is a worker, which task runs, whether it is to end, and its seed.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use crate::{
    id::{TaskId, WorkerId},
    seed::{self, Calls},
    transport::Board,
};

/// This worker's place in its pool, set once it has shaken hands; [`WorkerId::ALONE`] if it has no pool.
pub(crate) static INDEX: OnceLock<u32> = OnceLock::new();

/// The running task's number plus one; 0 between tasks.
pub(crate) static RUNNING: AtomicU64 = AtomicU64::new(0);

/// What the seeds of the tasks are made of that run now.
pub(crate) static SEED: AtomicU64 = AtomicU64::new(0);

/// The calls that the running task has made.
pub(crate) static CALLS: Calls = Calls::new();

/// Whether this process is a worker, or the template that workers are forked from.
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

/// This worker's place in its pool, from 0; `None` in a process that is no worker, and in a [`Process`](crate::Process), which has no
/// pool.
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
    is_told_to_end()
}

/// The number of the task that this worker runs now; `None` between tasks and in a process that is no worker.
///
/// It is what `Handle::task_id` says in the parent.
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

/// A number to seed a generator of random numbers with: a function of the call's seed and of the task's index in the call, and of
/// nothing else. So results do not depend on how many workers there are, which of them runs what, and what was retried.
///
/// The call's seed is the setting `seed` of [`parallel!`](crate::parallel). A call without the setting has a seed that is made of two
/// numbers:
///
/// - [`Builder::seed`](crate::Builder::seed) of its pool, else for calls inside a task the number that this function returns there, else 0;
/// - the number of the call: inside a task, among the calls that this task has made; elsewhere, among the calls of its pool
///   (`parallel!`, `map`, `imap`, `broadcast` and so on, with or without a seed of their own), in the order in which they began.
///
/// So two calls of a program draw different numbers, and another run of the program draws the same ones again. Two pools with the same
/// seed, or without one, draw the same numbers in their first calls. Where several threads make calls on one pool, the order in which
/// they begin is a matter of chance: give those calls a `seed` if they have to repeat.
///
/// For a task that was submitted by itself, the index is its number among those that its pool was given (`Handle::task_id`), and for a
/// [`Process`](crate::Process) its number among those that this process has spawned; both draw other numbers than calls do.
///
/// Asked twice by one task, it says the same. Outside of tasks it is what the first task of the first call without a seed has.
///
/// In a pool without processes only the thread that runs the task knows: ask before you start others.
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

/// Returns the number of a call that the running task begins, among those of this task; `None` outside of tasks.
pub(crate) fn begin_call() -> Option<u64> {
    seed::begin_call_here().or_else(|| task_id().map(|_| CALLS.begin()))
}

/// What [`rng_seed`] says in a task.
pub(crate) fn seed_of_task() -> Option<u64> {
    seed::here().or_else(|| {
        let TaskId(number) = task_id()?;
        Some(seed::of(SEED.load(Ordering::Relaxed), number))
    })
}

pub(crate) static BOARD: OnceLock<Board> = OnceLock::new();

/// The sequence number of the task that runs, or ran last.
pub(crate) static RUNNING_SEQ: AtomicU32 = AtomicU32::new(0);

/// The host has closed its side while a task ran.
static IS_LAST: AtomicBool = AtomicBool::new(false);

/// The host wants the running task to end.
pub(super) fn is_told_to_end() -> bool {
    BOARD.get().is_some_and(|board| board.is_to_end(RUNNING_SEQ.load(Ordering::Relaxed)))
        || IS_LAST.load(Ordering::Relaxed)
}

/// The host sends nothing more, and lives: where there is nothing else to be told by, the running task is to end.
pub(super) fn hear_the_last() {
    IS_LAST.store(true, Ordering::Relaxed);
}

/// The sequence number of the task that runs; 0 between tasks.
pub(super) fn running_seq() -> Option<u32> {
    (RUNNING.load(Ordering::Relaxed) != 0).then(|| RUNNING_SEQ.load(Ordering::Relaxed))
}

/// This process is a template, or a worker that was forked from one.
pub(crate) static IS_TEMPLATE: AtomicBool = AtomicBool::new(false);

/// Whether this process is a template, or was.
pub(super) fn is_template() -> bool {
    IS_TEMPLATE.load(Ordering::Relaxed)
}
