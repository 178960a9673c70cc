//! [`Stats`]: what a pool and its workers have done so far; and the tallies that they are made from.
//!
//! Nothing is counted task by task: the scheduler adds up what it handles anyway, a batch or a frame at a time, and a worker tells now
//! and then of one request that it has looked at more closely.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{error::TaskErrorKind, id::WorkerId};

/// So many of the slowest tasks are remembered.
const MOST_SLOW: usize = 10;
/// Fewer tasks say nothing about their kind.
const ENOUGH_TASKS: u64 = 1000;

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
    index: usize,
    pid: Option<u32>,
    endings: Endings,
    startup: Duration,
    initializing: Duration,
    busy: Duration,
    encoding: Duration,
    transport: Duration,
    waiting: Duration,
    restarts: u64,
    bytes_sent: u64,
    bytes_received: u64,
    peak_rss_bytes: u64,
}

/// How tasks came to their end: how many each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Endings([u64; ENDINGS]);

/// How a task came to its end.
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

    fn all(&self) -> u64 {
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
    function: &'static str,
    task_index: Option<usize>,
    took: Duration,
    worker: usize,
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
        // These three are as workers have told.
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

/// A time, in the unit that suits it.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as f64;
        let (number, unit) = match nanos {
            n if n < 1e3 => (n, "ns"),
            n if n < 1e6 => (n / 1e3, "µs"),
            n if n < 1e9 => (n / 1e6, "ms"),
            n => (n / 1e9, "s"),
        };
        let places = usize::from(number < 100.0 && nanos >= 1e3) + usize::from(number < 10.0 && nanos >= 1e3);
        f.pad(&format!("{number:.places$} {unit}"))
    }
}

/// Bytes, in the unit that suits them.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0 as f64, "B");
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if number < 1024.0 {
                break;
            }
            (number, unit) = (number / 1024.0, next);
        }
        let places = usize::from(unit != "B" && number < 100.0);
        f.pad(&format!("{number:.places$} {unit}"))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let row = |name: String, pid: String, worker: &WorkerStats| -> [String; 14] {
            [
                name,
                pid,
                worker.tasks().to_string(),
                (worker.tasks() - worker.finished()).to_string(),
                Short(worker.working()).to_string(),
                Short(worker.encoding).to_string(),
                Short(worker.transport).to_string(),
                Short(worker.waiting).to_string(),
                Short(worker.startup).to_string(),
                Short(worker.initializing).to_string(),
                worker.restarts.to_string(),
                Bytes(worker.bytes_sent).to_string(),
                Bytes(worker.bytes_received).to_string(),
                Bytes(worker.peak_rss_bytes).to_string(),
            ]
        };
        let mut rows = vec![HEADS.map(str::to_owned)];
        // Of many workers those that never started are left out.
        for worker in
            self.workers.iter().filter(|worker| worker.startup > Duration::ZERO || worker.tasks() > 0)
        {
            let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            rows.push(row(worker.index.to_string(), pid, worker));
        }
        rows.push(row("all".to_owned(), String::new(), &self.total));
        let widths: [usize; 14] =
            std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            writeln!(f, "{}", cells.join("  "))?;
        }
        if !self.slowest.is_empty() {
            writeln!(f, "the slowest tasks:")?;
        }
        for task in &self.slowest {
            let index = task.task_index.map_or_else(|| "a task".to_owned(), |index| format!("task {index}"));
            writeln!(
                f,
                "{:>10}  {index} of `{}` on worker {}",
                Short(task.took),
                task.function,
                task.worker
            )?;
        }
        match self.hint() {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What is counted of one worker's place.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    launches: u64,
    endings: Endings,
    busy: Duration,
    startup: Duration,
    initializing: Duration,
    /// From the first words of each process that has ended to its end.
    live: Duration,
    /// Time with tasks, as the host sees it.
    occupied: Duration,
    launched_at: Option<Instant>,
    live_since: Option<Instant>,
    initializing_since: Option<Instant>,
    occupied_since: Option<Instant>,
    /// When the worker last gave a result, or was given tasks while it had none.
    heard_at: Option<Instant>,
    /// The tasks that the worker has looked at more closely, and the time that encoding took in these.
    sampled: u64,
    sampled_encoding: Duration,
    peak_rss_bytes: u64,
    /// The tasks that ended last were of a call, whose tasks are known by their place.
    pub(crate) is_of_call: bool,
}

/// Ends what began at this time.
fn end(since: &mut Option<Instant>, now: Instant, sum: &mut Duration) {
    if let Some(since) = since.take() {
        *sum += now.saturating_duration_since(since);
    }
}

impl Tally {
    #[inline]
    pub(crate) fn done(&mut self, ending: Ending, tasks: u32, nanos: u64) {
        self.endings.add(ending, u64::from(tasks));
        self.worked(nanos);
    }

    /// So many nanoseconds more.
    #[inline]
    pub(crate) fn worked(&mut self, nanos: u64) {
        // What a worker says of the time may be anything.
        self.busy = self.busy.saturating_add(Duration::from_nanos(nanos));
    }

    /// What became of tasks whose time is counted otherwise.
    pub(crate) fn endings(&mut self) -> &mut Endings {
        &mut self.endings
    }

    /// It has given a result.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
    }

    pub(crate) fn launched(&mut self, now: Instant) {
        self.launches += 1;
        self.launched_at = Some(now);
    }

    pub(crate) fn started(&mut self, now: Instant, initializes: bool) {
        end(&mut self.launched_at, now, &mut self.startup);
        self.live_since = Some(now);
        self.initializing_since = initializes.then_some(now);
    }

    pub(crate) fn initialized(&mut self, now: Instant) {
        end(&mut self.initializing_since, now, &mut self.initializing);
    }

    /// It was given tasks.
    pub(crate) fn occupied(&mut self, now: Instant) {
        if self.occupied_since.is_none() {
            self.occupied_since = Some(now);
            self.heard_at = Some(now);
        }
    }

    /// It has none left.
    pub(crate) fn released(&mut self, now: Instant) {
        end(&mut self.occupied_since, now, &mut self.occupied);
    }

    pub(crate) fn ended(&mut self, now: Instant, had_begun: bool) {
        // What ended with the process was worked on since the last result.
        if let Some(since) = self.heard_at.take().filter(|_| had_begun && self.initializing_since.is_none()) {
            self.busy = self.busy.saturating_add(now.saturating_duration_since(since));
        }
        self.initialized(now);
        self.released(now);
        end(&mut self.launched_at, now, &mut self.startup);
        end(&mut self.live_since, now, &mut self.live);
    }

    /// What the worker has found in one request.
    pub(crate) fn sampled(&mut self, tasks: u64, encoding: Duration, peak_rss_bytes: u64) {
        self.sampled = self.sampled.saturating_add(tasks);
        self.sampled_encoding = self.sampled_encoding.saturating_add(encoding);
        self.has_had(peak_rss_bytes);
    }

    pub(crate) fn has_had(&mut self, peak_rss_bytes: u64) {
        self.peak_rss_bytes = self.peak_rss_bytes.max(peak_rss_bytes);
    }

    pub(crate) fn stats(
        &self,
        id: WorkerId,
        pid: Option<u32>,
        (sent, received): (u64, u64),
        now: Instant,
    ) -> WorkerStats {
        let with = |sum: Duration, since: Option<Instant>| {
            sum + since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        let occupied = with(self.occupied, self.occupied_since);
        let initializing = with(self.initializing, self.initializing_since);
        let live = with(self.live, self.live_since);
        let each = self.sampled_encoding.as_secs_f64() / self.sampled.max(1) as f64;
        let encoding = Duration::try_from_secs_f64(each * self.endings.all() as f64).unwrap_or(self.busy);
        WorkerStats {
            index: id.0 as usize,
            pid,
            endings: self.endings,
            startup: with(self.startup, self.launched_at),
            initializing,
            busy: self.busy,
            encoding: encoding.min(self.busy),
            transport: occupied.saturating_sub(self.busy),
            waiting: live.saturating_sub(initializing).saturating_sub(occupied.max(self.busy)),
            restarts: self.launches.saturating_sub(1),
            bytes_sent: sent,
            bytes_received: received,
            peak_rss_bytes: self.peak_rss_bytes,
        }
    }
}

impl Stats {
    pub(crate) fn new(workers: Vec<WorkerStats>, unserved: Endings, slowest: Vec<SlowTask>) -> Self {
        let mut total = WorkerStats { endings: unserved, ..WorkerStats::default() };
        workers.iter().for_each(|worker| total.add(worker));
        Self { workers, total, slowest }
    }

    /// Of a pool without processes.
    pub(crate) fn in_process(endings: Endings, busy: Duration) -> Self {
        let worker = WorkerStats { endings, busy, pid: Some(std::process::id()), ..WorkerStats::default() };
        Self::new(vec![worker], Endings::default(), Vec::new())
    }
}

/// The slowest tasks so far, the slowest first.
#[derive(Debug, Default)]
pub(crate) struct Slowest(Vec<SlowTask>);

impl Slowest {
    /// A task that took so long is among them.
    #[inline]
    pub(crate) fn has_room_for(&self, nanos: u64) -> bool {
        match self.0.last() {
            Some(last) if self.0.len() == MOST_SLOW => u128::from(nanos) > last.took.as_nanos(),
            _ => true,
        }
    }

    pub(crate) fn put(
        &mut self,
        function: &'static str,
        task_index: Option<usize>,
        nanos: u64,
        worker: WorkerId,
    ) {
        if self.has_room_for(nanos) {
            let took = Duration::from_nanos(nanos);
            let at = self.0.partition_point(|other| other.took >= took);
            self.0.insert(at, SlowTask { function, task_index, took, worker: worker.0 as usize });
            self.0.truncate(MOST_SLOW);
        }
    }

    pub(crate) fn all(&self) -> Vec<SlowTask> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
