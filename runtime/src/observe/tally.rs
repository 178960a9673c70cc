//! Counts what happens to the tasks of a worker while a pool runs, and keeps the slowest tasks.
//!
//! The scheduler updates a tally per batch or per frame, never per task. A worker reports its own measurements at intervals.
//! `stats.rs` turns tallies into statistics.

use std::time::{Duration, Instant};

use super::{
    ending::{Ending, Endings},
    stats::{SlowTask, WorkerStats},
};
use crate::id::WorkerId;

/// The number of slowest tasks that are kept.
const MOST_SLOW: usize = 10;

/// The counts of one worker's place.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(super) launches: u64,
    pub(super) endings: Endings,
    pub(super) busy: Duration,
    pub(super) startup: Duration,
    pub(super) initializing: Duration,
    /// From the first message of each process that has ended to its end.
    pub(super) live: Duration,
    /// The time during which the worker had tasks, as seen by the host.
    pub(super) occupied: Duration,
    pub(super) launched_at: Option<Instant>,
    pub(super) live_since: Option<Instant>,
    pub(super) initializing_since: Option<Instant>,
    pub(super) occupied_since: Option<Instant>,
    /// The time at which the worker last returned a result, or was given tasks while it had none.
    pub(super) last_result: Option<Instant>,
    /// The tasks that the worker has measured, and the time that encoding took in them.
    pub(super) sampled: u64,
    pub(super) sampled_encoding: Duration,
    pub(super) peak_rss_bytes: u64,
    /// The tasks that ended last belonged to a call, whose tasks are identified by their position.
    pub(crate) is_of_call: bool,
}

/// Ends a period and adds it to a sum.
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

    /// Adds nanoseconds of work.
    #[inline]
    pub(crate) fn worked(&mut self, nanos: u64) {
        // A worker may report any time.
        self.busy = self.busy.saturating_add(Duration::from_nanos(nanos));
    }

    /// Returns the counts, for tasks whose time is counted in another way.
    pub(crate) fn endings(&mut self) -> &mut Endings {
        &mut self.endings
    }

    /// Records that the worker returned a result.
    pub(crate) fn note_result(&mut self, now: Instant) {
        self.last_result = Some(now);
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

    /// Records that the worker was given tasks.
    pub(crate) fn occupied(&mut self, now: Instant) {
        if self.occupied_since.is_none() {
            self.occupied_since = Some(now);
            self.last_result = Some(now);
        }
    }

    /// Records that the worker has no tasks left.
    pub(crate) fn released(&mut self, now: Instant) {
        end(&mut self.occupied_since, now, &mut self.occupied);
    }

    pub(crate) fn ended(&mut self, now: Instant, had_begun: bool) {
        // The task that ended with the process has run since the last result.
        if let Some(since) =
            self.last_result.take().filter(|_| had_begun && self.initializing_since.is_none())
        {
            self.busy = self.busy.saturating_add(now.saturating_duration_since(since));
        }
        self.initialized(now);
        self.released(now);
        end(&mut self.launched_at, now, &mut self.startup);
        end(&mut self.live_since, now, &mut self.live);
    }

    /// Adds what the worker has measured in one request.
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

/// The slowest tasks so far, slowest first.
#[derive(Debug, Default)]
pub(crate) struct Slowest(Vec<SlowTask>);

impl Slowest {
    /// Returns whether a task with this duration is among them.
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
    use crate::observe::stats::Stats;

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
    fn a_worker_that_reports_impossible_times_is_still_counted() {
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
        tally.note_result(at(30));
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
