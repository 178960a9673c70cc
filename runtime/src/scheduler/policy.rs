//! Decides when to prefetch, share, hold back and spin, and contains the constants of these decisions.
//!
//! These functions only look at the scheduler. They never change a queue or a worker.

use std::time::Duration;

/// A worker is sent more tasks before it is idle if its tasks will take less than this.
pub(super) const PREFETCH: Duration = Duration::from_micros(400);

/// If a worker has reported nothing for this time while others are idle, the tasks that it has not begun are taken back.
pub(crate) const SHARE_AFTER: Duration = Duration::from_millis(1);

/// A worker that has only short tasks and has reported nothing for this time is running a long one. If it had only lost its core
/// to another process, it would have a core again by now.
pub(super) const STALLS_AFTER: Duration = Duration::from_millis(4);

/// The upper limit of [`SHARE_AFTER`] after it was doubled several times.
pub(super) const MOST_SHARE_AFTER: Duration = Duration::from_millis(100);

/// Tasks that take less time than this are not worth moving to another worker.
pub(super) const WORTH_MOVING: Duration = Duration::from_micros(100);

/// The host spins for a reply that is expected within this time, if a core is free for it.
pub(super) const NEAR: Duration = Duration::from_micros(50);

/// The time after which a feed is checked again, because its caller may not have seen yet that its next task is wanted.
pub(super) const LOOK_AT_FEEDS_AFTER: Duration = Duration::from_millis(1);

/// The number of workers per core, running short tasks, that make a crowd. For a crowd the scheduler checks whether cores are
/// idle.
pub(super) const CROWD: usize = 2;

/// The time between two such checks. The kernel's figure for a running process may be a timer tick old.
pub(super) const LOOK_AT_CORES_EVERY: Duration = Duration::from_millis(50);

/// The time that a batch should take a worker: long compared with a system call, and short compared with a person's patience.
pub(crate) const BATCH: Duration = Duration::from_micros(200);

/// The approximate time that it takes to wake a sleeping process.
pub(super) const WAKING: Duration = Duration::from_micros(20);

/// Tasks that take less than this are short.
pub(super) const SHORT: Duration = Duration::from_micros(50);

/// The factor by which one result can at most raise the estimate of a task's duration.
pub(super) const MOST_JUMP: f64 = 8.0;

/// The maximum number of tasks in a batch.
pub(crate) const MOST_IN_BATCH: usize = 8192;

/// The size of the arguments at which a batch ends, because a batch that is taken back has been sent in vain. A task with larger
/// arguments is sent alone to an idle worker, and nothing is sent behind it.
pub(crate) const BATCH_BYTES: usize = 96 << 10;
