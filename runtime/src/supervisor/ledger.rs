//! Accounts for the requests and replies of one worker: its tasks in flight, their order and their times.
//!
//! The supervisor updates it with each request and reply. It believes nothing that contradicts what was sent.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::event::WorkerEvent;
use crate::{
    batch::Batch,
    error::{Fault, TaskErrorKind},
    frame::Frames,
    id::has_begun,
    launch::Peer,
    panic::RemotePanic,
    protocol::{Malformed, Reply, Results},
    segment::Attachments,
};

/// The number of slices in which the time that a task has run is counted. A slice counts for little more than its intended
/// length: if it took longer, this process or the whole machine was stopped (Ctrl-Z).
const SLICES: u32 = 16;

const LEAST_SLICE: Duration = Duration::from_millis(1);

const MOST_SLICE: Duration = Duration::from_secs(1);

/// The time by which a busy machine may wake a thread late.
const LATE: Duration = Duration::from_millis(5);

/// The silence after which the host looks at the ring of a worker that may have published replies without ringing. The pause
/// doubles with each look.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(1);

/// The same for a worker whose tasks are patient. It rings in time for more, unless one of its tasks takes long.
const PATIENT_LOOK_AFTER: Duration = Duration::from_millis(10);

/// The longest pause between two looks. A worker with a single task is looked at this often: it would ring, unless a task has
/// overwritten the memory that it shares with the host.
const MOST_LOOK_AFTER: Duration = Duration::from_secs(1);

/// The number of results whose segments may have arrived before them. The results before are read first, and a worker sends segments for
/// one task at a time.
const MOST_RETURNED_AHEAD: usize = 4;

/// The tasks that were sent and have no outcome yet, oldest first.
#[derive(Default)]
pub(super) struct InFlight {
    /// The batches, each with the sequence number of its first task. No batch is empty.
    pub(super) batches: VecDeque<(u32, Batch)>,
    pub(super) tasks: usize,
    /// A recall has shown that none is left that has not begun.
    pub(super) all_begun: bool,
    /// The time at which the answer to a recall of these tasks is due. Meanwhile nothing is sent.
    pub(super) recall_due: Option<Instant>,
    /// The newest task is being stopped. It has begun, and all others have ended.
    pub(super) stop: Option<Stop>,
}

/// A task that is being stopped.
pub(super) struct Stop {
    /// The error with which it ends.
    pub(super) kind: TaskErrorKind,
    pub(super) stage: Stage,
    /// The time at which the next stage is due.
    pub(super) due: Instant,
}

/// The stage of stopping a task.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The task was told to end.
    Told,
    /// Its process was terminated with SIGTERM.
    Terminated,
    /// Its process was killed with SIGKILL.
    Killed,
}

/// The account of a worker's requests and replies.
pub(super) struct Ledger {
    pub(super) next_seq: u32,
    /// The sequence number of the last task that has an outcome.
    pub(super) ended_seq: u32,
    /// The number of results that have arrived.
    pub(super) results: u64,
    /// The number of tasks that were sent and not taken back.
    pub(super) given: u64,
    /// The number of recalls that were not answered. If all tasks have ended meanwhile, the answer does not matter.
    pub(super) recalls: u32,
    /// The time at which the size of the process was last read.
    pub(super) weighed: Option<Instant>,
    /// The panic that the task with this sequence number has reported. The process may end before it can report more.
    pub(super) panic: Option<(u32, RemotePanic)>,
    /// The segments that the results of these tasks name, or why they cannot be used. The results follow.
    pub(super) returned: VecDeque<(u32, Result<Attachments, String>)>,
    /// The worker may publish replies without ringing.
    pub(super) is_quiet: bool,
    /// The sequence number of the last task that is not patient.
    pub(super) last_urgent: u32,
    /// The time at which to look at the ring if the worker stays silent.
    pub(super) look_at: Option<Instant>,
    /// The pause before the next look if there may be unannounced replies.
    pub(super) look_after: Duration,
    /// For how long the oldest task in flight has run, as far as it was counted, if it was seen to have begun. Only tasks with a time
    /// limit are counted.
    pub(super) ran: Option<Duration>,
    /// The time of the last count. Without tasks, the time since which the worker is idle.
    pub(super) counted: Instant,
}

impl InFlight {
    pub(super) fn oldest(&self) -> Option<&Batch> {
        self.batches.front().map(|(_, batch)| batch)
    }

    /// Removes the first `n` tasks of the oldest batch, which have their outcome.
    fn done(&mut self, n: u32) {
        if let Some((seq, batch)) = self.batches.front_mut() {
            batch.done(n);
            *seq = seq.wrapping_add(n);
            self.tasks -= n as usize;
            if batch.len() == 0 {
                self.batches.pop_front();
            }
            if self.tasks == 0 {
                self.stop = None;
                self.recall_due = None;
            }
        }
    }

    /// Returns the number and function of the task that began after the one with this sequence number, or `None` if none has
    /// begun since.
    pub(super) fn first_after(&self, seq: u32, peer: &dyn Peer) -> Option<(u64, &'static str)> {
        let begun = peer.begun();
        self.batches.iter().find_map(|(first, batch)| {
            // Negative if all of them come after it.
            let n = seq.wrapping_sub(*first).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            let has_begun = begun.is_none_or(|begun| has_begun(first.wrapping_add(n), begun));
            (n < batch.len() && has_begun).then(|| (batch.first + u64::from(n), batch.function_after(n)))
        })
    }

    /// Returns how many tasks have not begun if the worker has begun this one last, or is not known to have begun any.
    pub(super) fn unbegun_len(&self, begun: Option<u32>) -> usize {
        let Some(begun) = begun else { return self.tasks };
        let unbegun = self.batches.iter().map(|(first, batch)| {
            // Negative if even the first has not begun.
            let n = begun.wrapping_sub(*first).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            batch.len().saturating_sub(n) as usize
        });
        unbegun.sum()
    }

    /// Keeps the tasks that have begun and returns the others.
    pub(super) fn split_begun(&mut self, begun: u32) -> Vec<Batch> {
        let mut rest = Vec::new();
        for (seq, mut batch) in std::mem::take(&mut self.batches) {
            // Negative if even the first has not begun.
            let n = begun.wrapping_sub(seq).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            if n >= batch.len() {
                self.batches.push_back((seq, batch));
                continue;
            }
            if n > 0 {
                self.batches.push_back((seq, batch.take_first(n)));
            }
            self.tasks -= batch.len() as usize;
            rest.push(batch);
        }
        rest
    }
}

impl Ledger {
    /// Passes the results at the start of `frames` to `on`, if they belong to the oldest tasks. Returns the frames after them.
    #[inline]
    pub(super) fn settle_all<'f>(
        &mut self,
        in_flight: &mut InFlight,
        frames: Frames<'f>,
        now: Instant,
        on: &mut impl FnMut(WorkerEvent<'_>) -> ControlFlow<()>,
    ) -> Option<Frames<'f>> {
        let (seq, batch) = in_flight.batches.front_mut()?;
        let seq = *seq;
        // The outcome of a task that is being stopped is decided already.
        let stopped = u32::from(in_flight.stop.is_some() && in_flight.tasks == batch.len() as usize);
        // A result that names segments is settled by itself.
        let plain = self.returned.front().map_or(u32::MAX, |(next, _)| next.wrapping_sub(seq));
        let (results, after) = Results::split_from(frames, seq, plain.min(batch.len() - stopped));
        let n = results.len();
        if n == 0 {
            return None;
        }
        self.ended_seq = seq.wrapping_add(n).wrapping_sub(1);
        // Reading never pauses after results, so the answer of `on` is ignored.
        let _ = on(WorkerEvent::Done { batch, results });
        in_flight.done(n);
        self.settled(n, in_flight.tasks, now);
        Some(after)
    }

    /// Settles one reply. Replies arrive in the order of the requests, so it must be about the oldest task.
    pub(super) fn settle(
        &mut self,
        in_flight: &mut InFlight,
        reply: Reply<'_>,
        now: Instant,
        on: &mut impl FnMut(WorkerEvent<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Malformed> {
        let (oldest, batch) = in_flight.batches.front_mut().ok_or(Malformed)?;
        let oldest = *oldest;
        let stopped = if in_flight.tasks == 1 { in_flight.stop.as_ref() } else { None };
        let has_returned = self.returned.front().is_some_and(|(seq, _)| *seq == oldest);
        let returned = if has_returned { self.returned.pop_front() } else { None };
        let flow = match reply {
            Reply::Done { seq, nanos, .. } | Reply::Fault { seq, nanos, .. }
                if seq == oldest
                    && let Some(Stop { kind, .. }) = stopped =>
            {
                on(WorkerEvent::Stopped { batch, nanos, kind: kind.clone() })
            }
            Reply::Done { seq, nanos, result } if seq == oldest => match returned {
                None => on(WorkerEvent::DoneOne { batch, nanos, result }),
                Some((_, Ok(returned))) => {
                    on(WorkerEvent::DoneOne { batch, nanos, result: result.attach(returned) })
                }
                Some((_, Err(why))) => {
                    let fault = Fault::codec(format!("the result: {why}"));
                    on(WorkerEvent::Failed { batch, nanos, fault })
                }
            },
            Reply::Fault { seq, nanos, fault } if seq == oldest => {
                on(WorkerEvent::Failed { batch, nanos, fault })
            }
            _ => return Err(Malformed),
        };
        self.ended_seq = oldest;
        in_flight.done(1);
        self.settled(1, in_flight.tasks, now);
        Ok(flow)
    }

    /// Adds the segments that the result of task `seq` names.
    ///
    /// # Errors
    ///
    /// No such result can follow.
    pub(super) fn add_returned(
        &mut self,
        seq: u32,
        returned: Result<Attachments, String>,
        in_flight: &InFlight,
    ) -> Result<(), Malformed> {
        let oldest = in_flight.batches.front().map(|(seq, _)| *seq);
        let is_in_flight =
            oldest.is_some_and(|oldest| has_begun(oldest, seq)) && !has_begun(self.next_seq, seq);
        let is_next = self.returned.back().is_none_or(|(last, _)| !has_begun(seq, *last));
        if !is_in_flight || !is_next || self.returned.len() == MOST_RETURNED_AHEAD {
            return Err(Malformed);
        }
        self.returned.push_back((seq, returned));
        Ok(())
    }

    /// Takes back the tasks after `begun`, which the worker has begun last. A well-behaved worker has begun the last task with an
    /// outcome or one in flight. (Tasks that were taken back are between the two.) Otherwise nothing is taken back.
    pub(super) fn recall(&mut self, begun: u32, in_flight: &mut InFlight) -> Result<Vec<Batch>, Malformed> {
        let oldest = in_flight.batches.front().map(|(seq, _)| *seq);
        let is_in_flight =
            oldest.is_some_and(|seq| has_begun(seq, begun)) && !has_begun(self.next_seq, begun);
        if begun != self.ended_seq && !is_in_flight {
            return Err(Malformed);
        }
        in_flight.all_begun = true;
        let taken = in_flight.split_begun(begun);
        self.given -= taken.iter().map(|batch| u64::from(batch.len())).sum::<u64>();
        Ok(taken)
    }

    fn settled(&mut self, n: u32, left: usize, now: Instant) {
        self.results += u64::from(n);
        self.panic = None;
        self.count_anew(now);
        self.look_later(left, now);
    }

    /// Returns when the running time of the oldest task must be counted next.
    pub(super) fn next_count(&self, limit: Duration) -> Instant {
        self.counted + slice(limit).min(limit.saturating_sub(self.ran.unwrap_or_default())).max(LEAST_SLICE)
    }

    /// Starts counting from zero, because another task is the oldest or there is none.
    pub(super) fn count_anew(&mut self, now: Instant) {
        self.ran = None;
        self.counted = now;
    }

    /// Adds the time since the last count if the task had begun by then. A task that has begun since is counted from now on, because it
    /// is not known when it began, and no task may be stopped early. Returns whether the limit is reached.
    pub(super) fn count(&mut self, limit: Duration, has_begun: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        self.ran = has_begun.then(|| {
            self.ran.map_or(Duration::ZERO, |ran| ran.saturating_add(passed.min(slice(limit) * 2 + LATE)))
        });
        self.ran.is_some_and(|ran| ran >= limit)
    }

    /// Schedules the first look at the ring. A worker with more tasks than the running one may have published a reply without
    /// ringing.
    pub(super) fn look_later(&mut self, in_flight: usize, now: Instant) {
        let is_patient = has_begun(self.last_urgent, self.ended_seq);
        self.look_after = if is_patient { PATIENT_LOOK_AFTER } else { LOOK_AFTER };
        self.look_at = self.next_look(in_flight, now);
    }

    /// Schedules the next look for this time at the latest.
    pub(super) fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |look_at| look_at.min(at)));
    }

    fn next_look(&self, in_flight: usize, now: Instant) -> Option<Instant> {
        let may_hold_back = in_flight > 1 && self.is_quiet;
        (in_flight > 0).then(|| now + if may_hold_back { self.look_after } else { MOST_LOOK_AFTER })
    }

    /// Schedules the next look, because the last one found nothing.
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
