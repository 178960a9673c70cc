//! What is known of the requests and replies of a worker: its tasks in flight, their order and their times.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::event::Step;
use crate::{
    error::TaskErrorKind,
    frame::Frames,
    panic::RemotePanic,
    protocol::{Malformed, Records, Reply, Results},
    transport::{Board, shm::claim::has_begun},
};

/// The time that a task has run is counted in slices, so many for the longest that it may run. A slice counts for little more than it
/// should have taken: where it took longer, this process was stopped (Ctrl-Z), or all of the machine.
const SLICES: u32 = 16;

const LEAST_SLICE: Duration = Duration::from_millis(1);

const MOST_SLICE: Duration = Duration::from_secs(1);

/// A busy machine wakes nobody sooner than this.
const LATE: Duration = Duration::from_millis(5);

/// A worker that may have replies ready without telling and has been silent for so long is looked at; then after twice as long, and so on.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(1);

/// The longest pause between two looks. A worker that has but one task is looked at so often: it would tell, if what it shares with the
/// host were whole.
const MOST_LOOK_AFTER: Duration = Duration::from_secs(1);

/// Tasks as a supervisor needs them: consecutive, and what to send of them.
pub(crate) trait Load: Sized {
    /// How many are left.
    fn len(&self) -> u32;
    /// The number of the first that is left; the others' follow.
    fn first_task(&self) -> u64;
    /// What to send.
    fn records(&mut self) -> &mut Records;
    /// The first `n` have their outcome.
    fn done(&mut self, n: u32);
    /// Takes the first `n` away from the others.
    fn take_first(&mut self, n: u32) -> Self;
    /// The name of the function of the task that comes after the first `n`.
    fn function_after(&self, n: u32) -> &'static str;
}

/// Tasks that were sent and have given nothing yet, the oldest first.
pub(super) struct InFlight<T> {
    /// Each with the sequence number of its first task. None is empty.
    pub(super) loads: VecDeque<(u32, T)>,
    pub(super) tasks: usize,
    /// The newest is to end; it has begun, and all others have ended.
    pub(super) stop: Option<Stop>,
}

/// A task that is to end, whatever it does.
pub(super) struct Stop {
    /// What it comes to.
    pub(super) kind: TaskErrorKind,
    pub(super) stage: Stage,
    /// When the next stage is due.
    pub(super) due: Instant,
}

/// How a task is made to end.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// It knows that it is to end.
    Told,
    /// Its process was asked to end.
    Terminated,
    /// Its process was killed.
    Killed,
}

/// What is known of a worker's requests and replies.
pub(super) struct Ledger {
    pub(super) next_seq: u32,
    /// The last task that has an outcome.
    pub(super) ended_seq: u32,
    /// Results that have come.
    pub(super) results: u64,
    /// Tasks that were sent and not taken back.
    pub(super) given: u64,
    /// When it was last looked how large the process is.
    pub(super) weighed: Option<Instant>,
    /// The task of this number panics; the process may not live to say more.
    pub(super) panic: Option<(u32, RemotePanic)>,
    /// It may have replies ready without telling.
    pub(super) is_quiet: bool,
    /// When to look at what it has ready, if it stays silent.
    pub(super) look_at: Option<Instant>,
    /// How long after the last look that is, if there may be something ready.
    pub(super) look_after: Duration,
    /// For how long the oldest task in flight is known to have run, where somebody counts.
    pub(super) ran: Duration,
    /// Since when that is not counted. Without tasks: since when there are none.
    pub(super) counted: Instant,
}

impl<T> InFlight<T> {
    pub(super) fn new() -> Self {
        Self { loads: VecDeque::new(), tasks: 0, stop: None }
    }
}

impl<T: Load> InFlight<T> {
    pub(super) fn oldest(&self) -> Option<&T> {
        self.loads.front().map(|(_, load)| load)
    }

    /// The first `n` tasks of the oldest load have their outcome.
    fn done(&mut self, n: u32) {
        if let Some((seq, load)) = self.loads.front_mut() {
            load.done(n);
            *seq = seq.wrapping_add(n);
            self.tasks -= n as usize;
            if load.len() == 0 {
                self.loads.pop_front();
            }
            if self.tasks == 0 {
                self.stop = None;
            }
        }
    }

    /// The task that began after the one of this sequence number: its own number and its function. `None`: nothing has begun since.
    pub(super) fn first_after(&self, seq: u32, board: Option<&Board>) -> Option<(u64, &'static str)> {
        let begun = board.map(|board| board.claim().begun());
        self.loads.iter().find_map(|(first, load)| {
            // Less than none where all of them come after it.
            let n = seq.wrapping_sub(*first).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            let has_begun = begun.is_none_or(|begun| has_begun(first.wrapping_add(n), begun));
            (n < load.len() && has_begun).then(|| (load.first_task() + u64::from(n), load.function_after(n)))
        })
    }

    /// Keeps what has begun and returns the rest.
    pub(super) fn split_begun(&mut self, begun: u32) -> Vec<T> {
        let mut rest = Vec::new();
        for (seq, mut load) in std::mem::take(&mut self.loads) {
            // Less than none where even the first has not begun.
            let n = begun.wrapping_sub(seq).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            if n >= load.len() {
                self.loads.push_back((seq, load));
                continue;
            }
            if n > 0 {
                self.loads.push_back((seq, load.take_first(n)));
            }
            self.tasks -= load.len() as usize;
            rest.push(load);
        }
        rest
    }
}

impl Ledger {
    /// Gives the results at the start of `frames` to `on`, if they are those of the oldest tasks; returns what follows them.
    #[inline]
    pub(super) fn settle_all<'f, T: Load>(
        &mut self,
        in_flight: &mut InFlight<T>,
        frames: Frames<'f>,
        now: Instant,
        on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Option<Frames<'f>> {
        let (seq, load) = in_flight.loads.front_mut()?;
        let seq = *seq;
        // One that was to end has come to its outcome, whatever it says.
        let stopped = u32::from(in_flight.stop.is_some() && in_flight.tasks == load.len() as usize);
        let (results, after) = Results::split_from(frames, seq, load.len() - stopped);
        let n = results.len();
        if n == 0 {
            return None;
        }
        self.ended_seq = seq.wrapping_add(n).wrapping_sub(1);
        // Results end nothing: what `on` says to them does not count.
        let _ = on(Step::Done { load, results });
        in_flight.done(n);
        self.settled(n, in_flight.tasks, now);
        Some(after)
    }

    /// Notes what a reply about a task says. Replies come in the order of the requests: this one is about the oldest task.
    pub(super) fn settle<T: Load>(
        &mut self,
        in_flight: &mut InFlight<T>,
        reply: Reply<'_>,
        now: Instant,
        on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Malformed> {
        let (oldest, load) = in_flight.loads.front_mut().ok_or(Malformed)?;
        let oldest = *oldest;
        let stopped = if in_flight.tasks == 1 { in_flight.stop.as_ref() } else { None };
        let flow = match reply {
            Reply::Panic { seq, panic } => {
                self.panic = Some((seq, panic));
                return Ok(ControlFlow::Continue(()));
            }
            Reply::Done { seq, nanos, .. } | Reply::Fault { seq, nanos, .. }
                if seq == oldest
                    && let Some(Stop { kind, .. }) = stopped =>
            {
                on(Step::Stopped { load, nanos, kind: kind.clone() })
            }
            Reply::Done { seq, nanos, result } if seq == oldest => on(Step::DoneOne { load, nanos, result }),
            Reply::Fault { seq, nanos, fault } if seq == oldest => on(Step::Failed { load, nanos, fault }),
            _ => return Err(Malformed),
        };
        self.ended_seq = oldest;
        in_flight.done(1);
        self.settled(1, in_flight.tasks, now);
        Ok(flow)
    }

    /// A worker of ours may have begun this task last: it has an outcome, or is in flight. (What was taken back lies between the two.)
    pub(super) fn is_plausible<T: Load>(&self, begun: u32, in_flight: &InFlight<T>) -> bool {
        let oldest = in_flight.loads.front().map(|(seq, _)| *seq);
        let is_in_flight =
            oldest.is_some_and(|seq| has_begun(seq, begun)) && !has_begun(self.next_seq, begun);
        begun == self.ended_seq || is_in_flight
    }

    fn settled(&mut self, n: u32, left: usize, now: Instant) {
        self.results += u64::from(n);
        self.panic = None;
        self.count_anew(now);
        self.look_later(left, now);
    }

    /// When the time that the oldest task has run is to be counted next.
    pub(super) fn next_count(&self, limit: Duration) -> Instant {
        self.counted + slice(limit).min(limit.saturating_sub(self.ran)).max(LEAST_SLICE)
    }

    /// Another task is the oldest, or there is none.
    pub(super) fn count_anew(&mut self, now: Instant) {
        self.ran = Duration::ZERO;
        self.counted = now;
    }

    /// Counts the time since it was last counted, if the task has begun. Returns whether it is up.
    pub(super) fn count(&mut self, limit: Duration, has_begun: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        if has_begun {
            self.ran += passed.min(slice(limit) * 2 + LATE);
        }
        has_begun && self.ran >= limit
    }

    /// A worker that has one task more than it runs may have a reply ready without telling: if it stays silent, it is looked at.
    pub(super) fn look_later(&mut self, in_flight: usize, now: Instant) {
        self.look_after = LOOK_AFTER;
        self.look_at = self.next_look(in_flight, now);
    }

    fn next_look(&self, in_flight: usize, now: Instant) -> Option<Instant> {
        let may_hold_back = in_flight > 1 && self.is_quiet;
        (in_flight > 0).then(|| now + if may_hold_back { self.look_after } else { MOST_LOOK_AFTER })
    }

    /// It was looked at, and had nothing.
    pub(super) fn look_again(&mut self, in_flight: usize, now: Instant) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_after = (self.look_after * 2).min(MOST_LOOK_AFTER);
            self.look_at = self.next_look(in_flight, now);
        }
    }
}

fn slice(limit: Duration) -> Duration {
    (limit / SLICES).clamp(LEAST_SLICE, MOST_SLICE)
}
