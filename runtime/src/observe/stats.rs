//! Defines [`Stats`], [`WorkerStats`] and [`SlowTask`], the statistics of a pool that users see.
//!
//! They are computed on request from the tallies of the workers (`tally.rs`). `table.rs` displays them.

use std::time::Duration;

use super::{
    amount::ShortDuration,
    ending::{Ending, Endings},
};

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
        let each = |time: Duration| ShortDuration(Duration::from_secs_f64(time.as_secs_f64() / tasks as f64));
        Some(format!(
            "a task takes {} of work and {} of overhead: give each task more work, such as a range instead of one number",
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
