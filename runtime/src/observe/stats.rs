//! Defines [`Stats`], [`WorkerStats`] and [`SlowTask`], the statistics of a pool that users see.
//!
//! They are computed on request from the tallies of the workers (`tally.rs`). `table.rs` formats their numbers.

use std::{fmt, time::Duration};

use super::table::{Bytes, Short};
use crate::error::TaskErrorKind;

/// Statistics of a pool. Created by [`Pool::stats`](crate::Pool::stats). Displayed, they form a table.
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// let pool = Pool::new(2)?;
/// pool.map((0..1000).map(|n| delayed!(square(n))))?;
/// let stats = pool.stats();
/// assert_eq!(stats.total().tasks(), 1000);
/// assert_eq!(stats.workers().iter().map(|worker| worker.tasks()).sum::<u64>(), 1000);
/// println!("{stats}");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stats {
    workers: Vec<WorkerStats>,
    total: WorkerStats,
    slowest: Vec<SlowTask>,
}

/// Statistics of one worker: one position in the pool, including all processes that have held it.
///
/// The lifetime of its processes is divided into [`startup`](Self::startup), [`initializing`](Self::initializing),
/// [`busy`](Self::busy), [`transport`](Self::transport) and [`waiting`](Self::waiting). The time in `busy` is the sum of
/// [`working`](Self::working) and [`encoding`](Self::encoding).
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// let pool = Pool::new(1)?;
/// pool.map((0..10).map(|n| delayed!(square(n))))?;
/// let stats = pool.stats();
/// let worker = &stats.workers()[0];
/// assert_eq!(worker.tasks(), 10);
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    pub(super) index: usize,
    pub(super) pid: Option<u32>,
    pub(super) endings: Endings,
    pub(super) startup: Duration,
    pub(super) initializing: Duration,
    pub(super) busy: Duration,
    pub(super) encoding: Duration,
    pub(super) transport: Duration,
    pub(super) waiting: Duration,
    pub(super) restarts: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) peak_rss_bytes: u64,
}

/// How many tasks ended in each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Endings([u64; ENDINGS]);

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Failed,
    Crashed,
    TimedOut,
    Cancelled,
    OutOfMemory,
    Lost,
}

const ENDINGS: usize = Ending::Lost as usize + 1;

impl Ending {
    pub(crate) fn of(kind: &TaskErrorKind) -> Self {
        match kind {
            TaskErrorKind::Panic { .. } | TaskErrorKind::Codec { .. } => Self::Failed,
            TaskErrorKind::Crash { .. } => Self::Crashed,
            TaskErrorKind::Timeout { .. } => Self::TimedOut,
            TaskErrorKind::Cancelled { .. } => Self::Cancelled,
            TaskErrorKind::OutOfMemory { .. } => Self::OutOfMemory,
            TaskErrorKind::Lost { .. } | TaskErrorKind::NotStarted { .. } => Self::Lost,
        }
    }
}

impl Endings {
    #[inline]
    pub(crate) fn add(&mut self, ending: Ending, tasks: u64) {
        self.0[ending as usize] += tasks;
    }

    fn add_all(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, tasks)| *sum += tasks);
    }

    fn of(&self, ending: Ending) -> u64 {
        self.0[ending as usize]
    }

    pub(super) fn all(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// One of the slowest tasks of a pool. Returned by [`Stats::slowest`].
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// let pool = Pool::new(1)?;
/// pool.map((0..10).map(|n| delayed!(square(n))))?;
/// let stats = pool.stats();
/// for task in stats.slowest() {
///     println!("{}: {:?}", task.function(), task.took());
/// }
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SlowTask {
    pub(super) function: &'static str,
    pub(super) task_index: Option<usize>,
    pub(super) took: Duration,
    pub(super) worker: usize,
}

impl Stats {
    /// Returns the statistics of each worker, in the order of their indices. Workers that have not started yet are included.
    #[must_use]
    pub fn workers(&self) -> &[WorkerStats] {
        &self.workers
    }

    /// Returns the sum over all workers.
    ///
    /// It includes tasks that ended without a worker, because they were cancelled before they started or no worker could be
    /// started. Its [`peak_rss_bytes`](WorkerStats::peak_rss_bytes) is the sum of the workers' peaks. Its index and pid have no
    /// meaning.
    #[must_use]
    pub fn total(&self) -> &WorkerStats {
        &self.total
    }

    /// Returns the ten tasks that took longest, slowest first.
    ///
    /// Short tasks are timed together, and the last of a group is named. A long task among short ones may therefore be listed
    /// under one of the next tasks. Tasks that ended with their process are not listed, because their duration is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// pool.map((0..10).map(|n| delayed!(square(n))))?;
    /// let stats = pool.stats();
    /// assert!(!stats.slowest().is_empty());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn slowest(&self) -> &[SlowTask] {
        &self.slowest
    }

    /// Returns advice, if there is any: that tasks are so small that calling them takes longer than running them.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// pool.map((0..10).map(|n| delayed!(square(n))))?;
    /// let stats = pool.stats();
    /// if let Some(hint) = stats.hint() {
    ///     println!("{hint}");
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let WorkerStats { encoding, transport, .. } = self.total;
        let tasks = self.total.tasks();
        let (working, calling) = (self.total.working(), encoding.saturating_add(transport));
        if tasks < ENOUGH_TASKS || working >= calling {
            return None;
        }
        let each = |time: Duration| Short(Duration::from_secs_f64(time.as_secs_f64() / tasks as f64));
        Some(format!(
            "a task works for {} and calling it takes {}: give each task more to do, a range in the place of a number",
            each(working),
            each(calling)
        ))
    }
}

impl WorkerStats {
    /// Returns the index of the worker in its pool, starting at 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the pid of the current process of this worker, if there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Returns how many tasks ended on this worker. Each task is counted once.
    ///
    /// This is the sum of [`finished`](Self::finished), [`failed`](Self::failed), [`crashed`](Self::crashed),
    /// [`timed_out`](Self::timed_out), [`cancelled`](Self::cancelled), [`out_of_memory`](Self::out_of_memory) and
    /// [`lost`](Self::lost). An attempt that is followed by a retry is not counted, but its time is. Initializers and finalizers
    /// are not tasks.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.endings.all()
    }

    /// Returns how many tasks returned a result. An `Err` returned by the function is a result.
    ///
    /// A task is counted when its result arrives. A result that the caller cannot decode later is counted here, too, although the outcome
    /// of that task is an error for which [`TaskError::is_codec`](crate::TaskError::is_codec) is `true`.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.endings.of(Ending::Finished)
    }

    /// Returns how many tasks panicked, or had a value that could not be encoded or decoded in the worker.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.endings.of(Ending::Failed)
    }

    /// Returns how many tasks ended with their process: by a signal, `exit`, `abort` or a stack overflow.
    #[must_use]
    pub fn crashed(&self) -> u64 {
        self.endings.of(Ending::Crashed)
    }

    /// Returns how many tasks exceeded their deadline.
    #[must_use]
    pub fn timed_out(&self) -> u64 {
        self.endings.of(Ending::TimedOut)
    }

    /// Returns how many tasks were cancelled on this worker, or were running when their pool ended.
    ///
    /// Tasks that were cancelled before they started are counted in [`Stats::total`].
    #[must_use]
    pub fn cancelled(&self) -> u64 {
        self.endings.of(Ending::Cancelled)
    }

    /// Returns how many tasks ran out of memory.
    #[must_use]
    pub fn out_of_memory(&self) -> u64 {
        self.endings.of(Ending::OutOfMemory)
    }

    /// Returns how many tasks were lost, so that it is unknown whether they ran.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.endings.of(Ending::Lost)
    }

    /// Returns the time from launching each process until its first message.
    #[must_use]
    pub fn startup(&self) -> Duration {
        self.startup
    }

    /// Returns the time spent in initializers.
    #[must_use]
    pub fn initializing(&self) -> Duration {
        self.initializing
    }

    /// Returns the time that tasks took in the worker, from the first byte of their arguments to the last byte of their results,
    /// or to the end of their process.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Returns the part of [`busy`](Self::busy) that was spent in the functions themselves.
    #[must_use]
    pub fn working(&self) -> Duration {
        self.busy.saturating_sub(self.encoding)
    }

    /// Returns the part of [`busy`](Self::busy) that was spent decoding arguments and encoding results.
    ///
    /// This is an estimate. The worker measures sixteen tasks every 50 ms, and their mean is applied to all tasks.
    #[must_use]
    pub fn encoding(&self) -> Duration {
        self.encoding
    }

    /// Returns the time during which tasks or results were on their way, while the worker was not busy.
    #[must_use]
    pub fn transport(&self) -> Duration {
        self.transport
    }

    /// Returns the time during which the worker had nothing to do.
    #[must_use]
    pub fn waiting(&self) -> Duration {
        self.waiting
    }

    /// Returns how many times the worker's process was replaced.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Returns the number of bytes sent to the worker: arguments and headers.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Returns the number of bytes received from the worker: results, log records and headers.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Returns the largest known resident memory of the worker's processes, in bytes. It is 0 if nothing is known.
    ///
    /// For a process that has ended, the value was last updated at most 50 ms of work before its end.
    #[must_use]
    pub fn peak_rss_bytes(&self) -> u64 {
        self.peak_rss_bytes
    }

    fn add(&mut self, other: &Self) {
        self.endings.add_all(other.endings);
        self.startup += other.startup;
        self.initializing += other.initializing;
        // These three are reported by the workers.
        self.busy = self.busy.saturating_add(other.busy);
        self.encoding = self.encoding.saturating_add(other.encoding);
        self.transport += other.transport;
        self.waiting += other.waiting;
        self.restarts += other.restarts;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.peak_rss_bytes = self.peak_rss_bytes.saturating_add(other.peak_rss_bytes);
    }
}

impl SlowTask {
    /// Returns the full path of the function, as in `census::entropy`.
    #[must_use]
    pub fn function(&self) -> &'static str {
        self.function
    }

    /// Returns the position of the task in its call, or `None` for a task that was submitted individually.
    #[must_use]
    pub fn task_index(&self) -> Option<usize> {
        self.task_index
    }

    /// Returns how long the task took in its worker.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Returns the index of the worker that ran the task.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_table(f)?;
        if !self.slowest.is_empty() {
            writeln!(f, "the slowest tasks:")?;
        }
        for task in &self.slowest {
            let index = task.task_index.map_or_else(|| "a task".to_owned(), |index| format!("task {index}"));
            let (took, function, worker) = (Short(task.took), &task.function, task.worker);
            writeln!(f, "{took:>10}  {index} of `{function}` on worker {worker}")?;
        }
        match self.hint() {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The heads of the columns of the table.
const HEADS: [&str; 14] = [
    "worker",
    "pid",
    "tasks",
    "failed",
    "working",
    "encoding",
    "transport",
    "waiting",
    "start-up",
    "init",
    "restarts",
    "sent",
    "received",
    "peak RSS",
];

impl WorkerStats {
    /// Returns the cells of the worker's row.
    fn row(&self, name: String, pid: String) -> [String; HEADS.len()] {
        [
            name,
            pid,
            self.tasks().to_string(),
            (self.tasks() - self.finished()).to_string(),
            Short(self.working()).to_string(),
            Short(self.encoding).to_string(),
            Short(self.transport).to_string(),
            Short(self.waiting).to_string(),
            Short(self.startup).to_string(),
            Short(self.initializing).to_string(),
            self.restarts.to_string(),
            Bytes(self.bytes_sent).to_string(),
            Bytes(self.bytes_received).to_string(),
            Bytes(self.peak_rss_bytes).to_string(),
        ]
    }
}

impl Stats {
    fn fmt_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEADS.map(str::to_owned)];
        // Workers that never started are left out.
        for worker in
            self.workers.iter().filter(|worker| worker.startup > Duration::ZERO || worker.tasks() > 0)
        {
            let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            rows.push(worker.row(worker.index.to_string(), pid));
        }
        rows.push(self.total.row("all".to_owned(), String::new()));
        let widths: [usize; HEADS.len()] =
            std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            writeln!(f, "{}", cells.join("  "))?;
        }
        Ok(())
    }
}

impl Stats {
    pub(crate) fn new(workers: Vec<WorkerStats>, unserved: Endings, slowest: Vec<SlowTask>) -> Self {
        let mut total = WorkerStats { endings: unserved, ..WorkerStats::default() };
        workers.iter().for_each(|worker| total.add(worker));
        Self { workers, total, slowest }
    }

    /// Creates the statistics of a pool without processes.
    pub(crate) fn in_process(endings: Endings, busy: Duration) -> Self {
        let worker = WorkerStats { endings, busy, pid: Some(std::process::id()), ..WorkerStats::default() };
        Self::new(vec![worker], Endings::default(), Vec::new())
    }
}

/// Fewer tasks say nothing about their kind.
pub(super) const ENOUGH_TASKS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::WorkerId,
        observe::tally::{Slowest, Tally},
    };
    use std::time::Instant;

    #[test]
    fn times_and_sizes_are_short() {
        let check = |nanos, words: &str| assert_eq!(Short(Duration::from_nanos(nanos)).to_string(), words);
        check(7, "7 ns");
        check(1_500, "1.50 µs");
        check(25_000_000, "25.0 ms");
        check(250_000_000_000, "250 s");
        assert_eq!(Bytes(17).to_string(), "17 B");
        assert_eq!(Bytes(3 << 20).to_string(), "3.0 MiB");
    }

    #[test]
    fn a_workers_time_is_divided_without_gaps() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let millis = Duration::from_millis;
        tally.launched(at(0));
        tally.started(at(10), true);
        tally.initialized(at(30));
        tally.occupied(at(40));
        tally.occupied(at(45));
        tally.busy += millis(15);
        tally.released(at(60));
        tally.done(Ending::Finished, 4, 0);
        tally.sampled(2, Duration::from_micros(1500), 4096);
        tally.ended(at(100), false);
        tally.launched(at(200));
        tally.started(at(205), false);
        let stats = tally.stats(WorkerId(3), None, (1, 2), at(305));
        assert_eq!(stats.startup(), millis(15));
        assert_eq!(stats.initializing(), millis(20));
        assert_eq!((stats.busy(), stats.encoding(), stats.working()), (millis(15), millis(3), millis(12)));
        assert_eq!(stats.transport(), millis(5));
        assert_eq!(stats.waiting(), millis(10 + 40 + 100));
        assert_eq!((stats.restarts(), stats.peak_rss_bytes(), stats.index()), (1, 4096, 3));
    }

    #[test]
    fn a_worker_that_tells_nonsense_of_its_time_is_counted_all_the_same() {
        let (mut tally, now) = (Tally { busy: Duration::MAX, ..Tally::default() }, Instant::now());
        tally.sampled_encoding = Duration::MAX;
        tally.done(Ending::Failed, 5000, u64::MAX);
        tally.sampled(1, Duration::from_nanos(u64::MAX), u64::MAX);
        let of_each = || tally.stats(WorkerId(0), None, (0, 0), now);
        let stats = Stats::new(vec![of_each(), of_each()], Endings::default(), Vec::new());
        assert_eq!((stats.total().tasks(), stats.total().busy()), (10_000, Duration::MAX));
        assert!(stats.to_string().contains("10000"));
    }

    #[test]
    fn a_task_that_ends_with_its_process_was_worked_on_since_the_last_result() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        tally.launched(at(0));
        tally.started(at(10), false);
        tally.occupied(at(20));
        tally.done(Ending::Finished, 1, 5_000_000);
        tally.heard(at(30));
        tally.ended(at(100), true);
        tally.endings().add(Ending::Crashed, 1);
        let stats = tally.stats(WorkerId(0), None, (0, 0), at(200));
        assert_eq!((stats.tasks(), stats.finished(), stats.crashed()), (2, 1, 1));
        assert_eq!((stats.busy(), stats.transport()), (Duration::from_millis(75), Duration::from_millis(5)));
    }

    #[test]
    fn only_the_slowest_are_kept_in_order() {
        let mut slowest = Slowest::default();
        for n in [5, 1, 9, 3, 7, 2, 8, 4, 6, 0, 10, 11] {
            slowest.put("f", Some(n as usize), n, WorkerId(0));
        }
        let took: Vec<u128> = slowest.all().iter().map(|task| task.took().as_nanos()).collect();
        assert_eq!(took, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
        assert!(!slowest.has_room_for(2) && slowest.has_room_for(3));
    }
}
