//! The constants of the scheduler's decisions, each with its reason and the measurement that shows a wrong value.
//!
//! "Not measured" means that no benchmark depends on the value: it follows from the reason that is given, or from another constant.
//!
//! Most of the functions that use them are in `decide`, `dispatch`, `queue` and `restarts`. Constants of the life of one worker are in
//! `supervisor` (`ledger`, `stop`, `end`), those of polling and waiting in `driver` (`state`, `poll`), and those of the worker's side in
//! `worker/replies.rs`. The measurements in quotes are those of
//! `cargo bench -p procession-benches --bench limits`. Their results are in `benches/record`, for example in `2026-11-29-limits.md`.

use std::time::Duration;

// How much is sent at a time.

/// The time that a batch should take a worker: long compared with a system call and with [`WAKING`], and short compared with a
/// person's patience. Shown by "map, no-op" if it is too short, and by "tasks of 20 us to 20 ms" if it is too long.
pub(crate) const BATCH: Duration = Duration::from_micros(200);

/// The same for a call that is patient, such as `map`: its caller waits for all results, so the host is woken only to send more. Each time
/// takes about 20 us of a core that a worker needs: 1 % of this. Shown by `real "map on 2 workers"` if it is too short, and by "tasks of 20
/// us to 20 ms" if it is too long.
pub(super) const PATIENT_BATCH: Duration = Duration::from_millis(2);

/// The maximum number of tasks in a batch. No-ops of 25 ns each reach [`BATCH`] with as many. Shown by "map, no-op".
pub(crate) const MOST_IN_BATCH: usize = 8192;

/// The size of the arguments at which a batch ends, because a batch that is taken back has been sent in vain. A task with larger
/// arguments is sent alone to an idle worker, and nothing is sent behind it. Two batches, and the prefixes of their frames, fit into a
/// ring (256 KiB, `transport/shm`), so the host does not wait for room. Not measured.
pub(crate) const BATCH_BYTES: usize = 96 << 10;

/// The size up to which waiting tasks are joined into one batch: half of [`BATCH_BYTES`], so that two of them are sent at a time. Not
/// measured.
pub(super) const MOST_BATCH_BYTES: usize = 48 << 10;

/// The factor by which one result can at most raise the estimate of a task's duration. A task that lost its core for a few
/// milliseconds would otherwise make all tasks count as long. Shown by "map of no-ops on 4, 8, 32, 200 workers".
pub(super) const MOST_JUMP: f64 = 8.0;

/// A worker is sent more tasks before it is idle if its tasks will take less time than this number of batches, so that the next one is
/// there while the host reads the results of the first. Shown by "map, no-op".
pub(super) const PREFETCH: u32 = 2;

/// The approximate time that it takes to wake a sleeping process. A worker is not woken for less. A round trip over a futex, with two
/// such wake-ups, takes 16.5 to 41.7 us (`benches/record/2026-11-21-compare.md`).
pub(super) const WAKING: Duration = Duration::from_micros(20);

// When tasks are moved to another worker.

/// If a worker has reported nothing for this time while others are idle, the tasks that it has not begun are taken back. Several
/// batches, so that a worker that has only lost its core keeps them. Shown by "tasks of 20 us to 20 ms".
pub(crate) const SHARE_AFTER: Duration = Duration::from_millis(1);

/// The upper limit of [`SHARE_AFTER`] after it was doubled several times: the longest time for which a task may lie at a silent worker
/// while another is idle. A person barely notices it. Not measured.
pub(super) const MOST_SHARE_AFTER: Duration = Duration::from_millis(100);

/// Tasks that take less time than this are not worth moving to another worker, which takes a few times [`WAKING`]. Shown by "tasks of 20
/// us to 20 ms".
pub(super) const WORTH_MOVING: Duration = Duration::from_micros(100);

// When workers are kept from work, because there are more of them than cores.

/// Tasks that take less than this are short: little longer than waking a worker for them. Tasks of a patient call that compute are short if they
/// take less than [`PATIENT_BATCH`]. Shown by "map of 10 us tasks", and by `real "200 workers"`.
pub(super) const SHORT: Duration = Duration::from_micros(50);

/// Tasks of which at most one in this number waits for anything but a core compute: page faults and locks are rare waits. Not measured.
pub(super) const TASKS_PER_WAIT: u32 = 8;

/// A worker with more tasks than this number of batches is not responsive, because others might run them sooner. Shown by "map of no-ops
/// on 4, 8, 32, 200 workers".
pub(super) const MOST_RESPONSIVE: u32 = 5;

/// A worker that has only short tasks and has reported nothing for this time is running a long one. If it had only lost its core
/// to another process, it would have a core again by now, because the kernel lets each run for a few milliseconds in turn. Shown by
/// "map of no-ops on 4, 8, 32, 200 workers" if it is too short.
pub(super) const STALLS_AFTER: Duration = Duration::from_millis(4);

/// The number of workers per core among which waiting short tasks are divided. More would get less than is worth waking them for.
/// Shown by "map of no-ops on 4, 8, 32, 200 workers".
pub(super) const SHARES_PER_CORE: usize = 2;

/// The number of idle workers that a turn looks at. Looking at a few takes less time than parking and unparking them. Shown by
/// "submit().join()" if it is too small, and by "map of no-ops on 4, 8, 32, 200 workers" if it is too large.
pub(super) const MOST_ACTIVE: usize = 4;

// How the host waits.

/// The host spins for a reply that is expected within this time, if a core is free for it. Sleeping and being woken takes as long.
/// Shown by "submit().join()".
pub(super) const NEAR: Duration = Duration::from_micros(50);

/// The time after which a feed is checked again, because its caller may not have seen yet that its next task is wanted. This is rare,
/// so the check costs little, and few tasks are delayed by it. Not measured.
pub(super) const LOOK_AT_FEEDS_AFTER: Duration = Duration::from_millis(1);

// How much is kept.

/// The capacity of a feed. A caller that produces no-ops fills it in the time of a few batches. Shown by "map, no-op".
pub(super) const FEED_BYTES: usize = 64 << 10;

/// Tasks with larger arguments are queued one at a time, each with the driver's lock. Four of them fill a feed, so a feed would save little
/// for larger ones. Shown by the hashes of 4 KiB and the JSON of `benches/compare/run.sh real`: with 2 KiB they took 6.9 to 8.9 and 12.3 to 14.0 us
/// of the host's CPU time instead of 4.7 to 5.8 and 10.7 to 11.8.
pub(crate) const MOST_FED_BYTES: usize = 16 << 10;

/// The cancelled tasks that may remain among the waiting ones before their memory is released, unless twice the number of waiting
/// tasks is more. They take a few bytes each, and each search skips them. Not measured.
pub(super) const MOST_CANCELLED: usize = 1 << 10;

/// The number of queues above which empty queues of threads, which remember how long their tasks take, are removed. More threads than
/// this rarely submit tasks at the same time. Not measured.
pub(super) const MOST_RESTING_QUEUES: usize = 256;

// When a failed start is tried again.

/// The first pause before a start is tried again. It doubles with each start that fails. Executing this program takes a few
/// milliseconds ("pool start to first result").
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause. A limit that is raised or a file that is there again is noticed within this time. Not measured.
pub(super) const MOST_PAUSE: Duration = Duration::from_millis(500);

/// The time by which a start may be late after its pause, because the process was busy. Otherwise late starts would not count
/// as attempts in a row. Not measured.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// The longest time for which a pool is given up. It is short enough to be added to any `Instant`.
pub(super) const MOST_WITHIN: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
