//! Decides when a start that has failed is tried again, and when a pool gives up. It has no clock and starts nothing.
//!
//! Failed starts are counted within a period, as OTP's supervisors do. Only starts that fail while no worker serves count, so a
//! pool whose workers run tasks is never given up.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::policy::{FIRST_PAUSE, MOST_PAUSE, MOST_WITHIN, SLACK};

/// The limit of failed starts: after the first, `most` more may fail within this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intensity {
    pub(crate) most: u32,
    pub(crate) within: Duration,
}

impl Default for Intensity {
    /// With the pauses in between, the limit is reached after a few seconds of nothing but failures.
    fn default() -> Self {
        Self { most: 10, within: Duration::from_secs(30) }
    }
}

/// The consequence of a failed start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    /// Another start is tried after a pause.
    Retry,
    /// The limit was exceeded: `starts` failed within `time`.
    GiveUp { starts: u32, time: Duration },
}

/// Attempts that failed one after the other, without a long time between two of them in which nothing was tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streak {
    since: Instant,
    last: Instant,
    attempts: u32,
}

impl Streak {
    /// Adds an attempt that was begun at `begun` and has failed now. If nothing was tried for longer than an attempt may take, a
    /// new streak begins. Returns the duration of the streak.
    pub(crate) fn add(
        streak: &mut Option<Self>,
        begun: Instant,
        now: Instant,
        may_take: Duration,
    ) -> Duration {
        let gap = may_take.saturating_add(MOST_PAUSE + SLACK);
        streak.take_if(|streak| begun.saturating_duration_since(streak.last) > gap);
        let streak = streak.get_or_insert(Self { since: now, last: now, attempts: 0 });
        streak.last = now;
        streak.attempts = streak.attempts.saturating_add(1);
        now.saturating_duration_since(streak.since)
    }
}

/// The other workers of a pool in which a start has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// A worker serves.
    Serve,
    /// No worker serves. The oldest start in progress that has not exceeded its time was begun at this time.
    Start(Instant),
    /// There is no other worker.
    None,
}

/// The failed starts of a pool.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    intensity: Intensity,
    /// The start timeout: how long a start may take, and for how long the system may refuse starts.
    patience: Duration,
    /// The times of failed starts since a worker last served. Starts that were in progress at the same time count as one.
    failed: VecDeque<Instant>,
    /// The same starts, each counted.
    failures: Option<Streak>,
    /// The starts that the system refused while no worker served.
    shortages: Option<Streak>,
    /// The time at which the limit was exceeded. Only a start that was in progress then is still waited for.
    exceeded: Option<Instant>,
    /// The number of pauses since a start last succeeded.
    pauses: u32,
    not_before: Option<Instant>,
}

impl Restarts {
    pub(crate) fn new(intensity: Intensity, patience: Duration) -> Self {
        Self { intensity, patience, ..Self::default() }
    }

    /// Returns the end of the pause, if there is one.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Returns whether a start may be tried. If so, ends the pause.
    pub(crate) fn may_start(&mut self, now: Instant) -> bool {
        self.not_before.take_if(|at| *at <= now);
        self.not_before.is_none()
    }

    /// Returns when a pool that is given up now may be tried again.
    pub(crate) fn over_at(&self, now: Instant) -> Instant {
        now + self.intensity.within.min(MOST_WITHIN)
    }

    /// Adds a failed start that was begun at `begun`.
    pub(crate) fn failed(&mut self, begun: Instant, others: Others, now: Instant) -> Verdict {
        let Intensity { most, within } = self.intensity;
        let most_time = within.max(self.patience);
        if let Some(streak) = self.failures.as_mut().filter(|streak| begun <= streak.last) {
            streak.attempts = streak.attempts.saturating_add(1);
            return if self.exceeded.is_some() { self.give_up(others, now) } else { Verdict::Retry };
        }
        self.pause(now);
        if others == Others::Serve {
            self.forgive();
            return Verdict::Retry;
        }
        let time = Streak::add(&mut self.failures, begun, now, most_time);
        self.failed.push_back(now);
        while self.failed.front().is_some_and(|&at| now.saturating_duration_since(at) > within) {
            self.failed.pop_front();
        }
        if self.failed.len() > most as usize || time >= most_time {
            return self.give_up(others, now);
        }
        self.exceeded = None;
        Verdict::Retry
    }

    /// Gives up, unless a start that was in progress when the limit was exceeded may still succeed.
    fn give_up(&mut self, others: Others, now: Instant) -> Verdict {
        let exceeded = *self.exceeded.get_or_insert(now);
        let Some(failures) = self.failures else { return Verdict::Retry };
        if matches!(others, Others::Start(begun) if begun <= exceeded) {
            return Verdict::Retry;
        }
        self.forgive();
        self.pauses = 0;
        self.not_before = None;
        Verdict::GiveUp { starts: failures.attempts, time: now.saturating_duration_since(failures.since) }
    }

    /// Adds a start, begun at `begun`, that failed because the system lacks a resource.
    pub(crate) fn short(&mut self, begun: Instant, others: Others, now: Instant) -> Verdict {
        self.pause(now);
        if others == Others::Serve {
            self.shortages = None;
            return Verdict::Retry;
        }
        let time = Streak::add(&mut self.shortages, begun, now, self.patience);
        let Some(Streak { since, attempts, .. }) = self.shortages else { return Verdict::Retry };
        let last = since.checked_add(self.patience);
        let may_come_up = matches!((others, last), (Others::Start(begun), Some(last)) if begun <= last);
        if time >= self.patience && !may_come_up {
            self.forgive();
            return Verdict::GiveUp { starts: attempts, time };
        }
        // The last attempt is made when the time is up.
        if let Some(last) = last.filter(|last| *last > now) {
            self.not_before = self.not_before.map(|at| at.min(last));
        }
        Verdict::Retry
    }

    /// Begins a pause before the next start.
    pub(crate) fn pause(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(self.pauses)).min(MOST_PAUSE);
        self.pauses = self.pauses.saturating_add(1);
        self.not_before = now.checked_add(pause);
    }

    /// Forgets the failed starts, because a worker has returned a result.
    #[inline]
    pub(crate) fn forgive(&mut self) {
        if self.failures.is_some() || self.shortages.is_some() {
            self.failed.clear();
            self.failures = None;
            self.shortages = None;
            self.exceeded = None;
        }
    }

    /// Forgets the failed starts and the pauses, because a start has succeeded.
    pub(crate) fn came_up(&mut self) {
        self.forgive();
        self.pauses = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn restarts(most: u32) -> Restarts {
        Restarts::new(Intensity { most, within: WITHIN }, PATIENCE)
    }

    /// Fails one start after another, each as soon as it is allowed, until the pool gives up. Returns the number of starts and
    /// the time.
    fn fail_until_given_up(restarts: &mut Restarts, takes: Duration, mut now: Instant) -> (u32, Duration) {
        let begun = now;
        for _ in 0..10_000 {
            now = restarts.not_before().map_or(now, |at| at.max(now));
            assert!(restarts.may_start(now));
            let start = now;
            now += takes;
            if let Verdict::GiveUp { starts, .. } = restarts.failed(start, Others::None, now) {
                return (starts, now - begun);
            }
        }
        panic!("it is tried for ever");
    }

    #[test]
    fn a_pool_is_given_up_when_more_starts_fail_than_may() {
        let (starts, time) = fail_until_given_up(&mut restarts(10), millis(1), Instant::now());
        assert_eq!(starts, 11);
        // 10 + 20 + ... + 320, and four times 500, and each start.
        assert_eq!(time, millis(630 + 2000 + 11));
        assert_eq!(fail_until_given_up(&mut restarts(0), millis(1), Instant::now()), (1, millis(1)));
    }

    #[test]
    fn starts_that_take_long_to_fail_are_given_up_too() {
        let (starts, time) = fail_until_given_up(&mut restarts(1000), millis(10_000), Instant::now());
        assert_eq!(starts, 4);
        assert!(time > WITHIN && time < 2 * WITHIN, "{time:?}");
    }

    #[test]
    fn a_few_failures_at_the_wrong_moment_end_nothing_and_pauses_grow() {
        let (mut restarts, mut now) = (restarts(10), Instant::now());
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            assert_eq!(restarts.failed(now, Others::None, now), Verdict::Retry);
            let pause = restarts.not_before().unwrap() - now;
            assert!(pause >= last && pause <= MOST_PAUSE);
            (last, now) = (pause, now + pause);
            assert!(restarts.may_start(now));
            now += millis(1);
        }
        restarts.came_up();
        assert_eq!(restarts.failed(now, Others::None, now), Verdict::Retry);
        assert_eq!(restarts.not_before(), Some(now + FIRST_PAUSE));
    }

    #[test]
    fn starts_that_were_under_way_together_count_once() {
        let (mut restarts, now) = (restarts(1), Instant::now());
        for n in 0..64 {
            assert_eq!(restarts.failed(now, Others::None, now + millis(n)), Verdict::Retry);
        }
        let later = now + millis(100);
        assert_eq!(
            restarts.failed(later, Others::None, later),
            Verdict::GiveUp { starts: 65, time: millis(100) }
        );
    }

    #[test]
    fn failures_from_long_ago_do_not_count() {
        let (mut restarts, mut now) =
            (Restarts::new(Intensity { most: 2, within: millis(100) }, PATIENCE), Instant::now());
        for _ in 0..100 {
            assert_eq!(restarts.failed(now, Others::None, now), Verdict::Retry);
            now += millis(60);
        }
    }

    #[test]
    fn nothing_is_given_up_while_a_worker_serves() {
        let (mut restarts, mut now) = (restarts(0), Instant::now());
        for _ in 0..1000 {
            assert_eq!(restarts.failed(now, Others::Serve, now), Verdict::Retry);
            assert_eq!(restarts.short(now, Others::Serve, now), Verdict::Retry);
            now += MOST_PAUSE;
        }
        assert!(restarts.not_before().unwrap() <= now);
    }

    #[test]
    fn a_pool_is_given_up_for_as_long_as_failures_count() {
        let (mut restarts, now) = (restarts(0), Instant::now());
        assert!(matches!(restarts.failed(now, Others::None, now), Verdict::GiveUp { .. }));
        assert_eq!(restarts.over_at(now), now + WITHIN);
        assert!(restarts.may_start(now));
        let endless = Restarts::new(Intensity { most: 0, within: Duration::MAX }, PATIENCE);
        assert!(endless.over_at(now) > now + millis(1_000_000_000));
    }

    #[test]
    fn a_shortage_is_waited_for_as_long_as_a_start_may_take_and_no_longer() {
        let (mut restarts, begun) = (restarts(3), Instant::now());
        let mut now = begun;
        loop {
            match restarts.short(now, Others::None, now) {
                Verdict::Retry => now = restarts.not_before().unwrap(),
                Verdict::GiveUp { starts, time } => {
                    assert_eq!(time, PATIENCE);
                    assert!(starts > 20, "{starts}");
                    break;
                }
            }
        }
        assert_eq!(now, begun + PATIENCE);
        // Those that come later have their time, too.
        assert_eq!(restarts.short(now, Others::None, now), Verdict::Retry);
    }

    #[test]
    fn failures_far_apart_are_not_one_streak() {
        let (mut restarts, now) = (restarts(10), Instant::now());
        for hour in 0..100 {
            let now = now + Duration::from_secs(3600 * hour);
            assert_eq!(restarts.failed(now, Others::None, now), Verdict::Retry);
        }
    }

    #[test]
    fn attempts_that_take_longer_than_failures_count_are_given_up() {
        let mut restarts = Restarts::new(Intensity { most: 10, within: millis(1) }, PATIENCE);
        let (starts, time) = fail_until_given_up(&mut restarts, millis(19_000), Instant::now());
        assert_eq!(starts, 3);
        assert!(time < 3 * PATIENCE, "{time:?}");
    }

    #[test]
    fn a_shortage_long_after_another_is_waited_for_as_the_first() {
        let (mut restarts, now) = (restarts(3), Instant::now());
        assert_eq!(restarts.short(now, Others::None, now), Verdict::Retry);
        let later = now + Duration::from_secs(3600);
        assert_eq!(restarts.short(later, Others::None, later), Verdict::Retry);
        let end = later + PATIENCE;
        assert_eq!(restarts.short(end, Others::None, end), Verdict::GiveUp { starts: 2, time: PATIENCE });
    }

    #[test]
    fn nothing_is_given_up_while_a_start_from_before_the_limit_was_exceeded_is_under_way() {
        let (mut restarts, begun) = (restarts(2), Instant::now());
        let mut now = begun;
        for _ in 0..20 {
            assert_eq!(restarts.failed(now, Others::Start(begun), now), Verdict::Retry);
            now += MOST_PAUSE;
        }
        // It has failed, too. The one that is under way now was begun since, as others always will be.
        assert!(matches!(
            restarts.failed(begun, Others::Start(now), now),
            Verdict::GiveUp { starts: 21, .. }
        ));

        let mut now = begun;
        while now <= begun + PATIENCE {
            assert_eq!(restarts.short(now, Others::Start(begun), now), Verdict::Retry);
            assert!(restarts.not_before().unwrap() > now, "a pause is not left out");
            now += MOST_PAUSE;
        }
        assert!(matches!(restarts.short(now, Others::None, now), Verdict::GiveUp { .. }));
    }
}
