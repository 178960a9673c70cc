//! What workers say and how they end: the part of the [`Scheduler`] that listens.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    book::Words,
    lane::{LaneId, Parcel, Recipient},
    scheduler::{SHARE_AFTER, Scheduler, levels},
};
use crate::{
    error::{Exit, POOL_ENDED, TaskErrorKind},
    id::FunctionId,
    launch::NeverReady,
    protocol::{Note, Records},
    registry,
    supervisor::{OUTPUT, Obituary, PROCESS, Phase, Step, Supervisor},
    sys::fd::{Event, Poller},
    task::Call,
};

/// So many starts may fail in a row before the pool gives up.
const MOST_FAILED_STARTS: u32 = 5;
/// The pause before a start is tried again; it doubles with each failure.
const FIRST_BACK_OFF: Duration = Duration::from_millis(10);

/// The launcher among the workers; no worker has this key.
pub(super) const LAUNCHER: u64 = u64::MAX - 1;

impl Scheduler {
    /// Reacts to what the poller saw.
    pub(super) fn handle(&mut self, events: &[Event], poller: &Poller, now: Instant) {
        for place in std::mem::take(&mut self.unread) {
            self.read(place, true, poller, now);
        }
        for place in 0..self.workers.len() {
            if self.workers[place].has_arrivals() {
                self.read(place, false, poller, now);
            }
        }
        if events.iter().any(|event| event.key == LAUNCHER) {
            self.launcher.tend();
        }
        for event in events {
            let (place, kind) = Supervisor::<Parcel>::place_and_kind(event.key);
            if self.workers.get(place).is_none_or(|worker| !worker.owns(event.key)) {
                continue;
            }
            if kind == OUTPUT {
                self.read_output(place, false, poller);
            } else if self.read(place, true, poller, now)
                && kind == PROCESS
                // Its end is reported again.
                && !self.read_output(place, true, poller)
            {
                self.reap(place, poller, now);
            }
        }
    }

    /// Reads what a worker has written until now, or, if it is the `last`, all that there is. Returns whether some of it must be out before
    /// anything else is seen.
    fn read_output(&mut self, place: usize, last: bool, poller: &Poller) -> bool {
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let words = &mut self.after.words;
        let is_said = |words: &[Words]| words.iter().any(|words| words.worker == id);
        if !is_said(words) {
            let on = |record, load: Option<&Parcel>| words.push(Words::new(record, id, pid, load));
            if last { worker.read_last_output(poller, on) } else { worker.read_output(poller, on) }
        }
        is_said(&self.after.words)
    }

    /// Reads a worker to the end, or to a record that must be out before what follows it is seen: until then it is read no further,
    /// and only whoever drives may read. Returns whether it came to the end.
    pub(super) fn read(&mut self, place: usize, readable: bool, poller: &Poller, now: Instant) -> bool {
        let worker = &mut self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let (book, after) = (&mut self.book, &mut self.after);
        if after.words.iter().any(|words| words.worker == id) {
            self.unread.insert(place);
            return false;
        }
        let mut to_the_end = true;
        let mut started = false;
        let mut useful = false;
        let mut stopped = false;
        let mut failed_to_initialize = None;
        let mut output = None;
        worker.read(readable, now, poller, |step| {
            match step {
                Step::Started => started = true,
                Step::Done { load, results } => {
                    useful = true;
                    if book.initializing.remove(&id) {
                        book.tally(id).initialized(now);
                    } else {
                        book.done(load, results, id, after);
                    }
                }
                Step::DoneOne { load, nanos, result } => {
                    useful = true;
                    load.tell(output.take(), after);
                    if book.initializing.remove(&id) {
                        book.tally(id).initialized(now);
                    } else {
                        book.done_one(load, nanos, Ok(result), id, after);
                    }
                }
                Step::Failed { load, nanos, fault } => {
                    useful = true;
                    let output = output.take();
                    load.tell(output.clone(), after);
                    if book.initializing.remove(&id) {
                        useful = false;
                        failed_to_initialize = Some(TaskErrorKind::from(fault));
                        return std::ops::ControlFlow::Break(());
                    }
                    book.failed(load, nanos, fault, (id, pid), output, after);
                }
                Step::Stopped { load, kind } => {
                    useful = true;
                    stopped = true;
                    let output = output.take();
                    load.tell(output.clone(), after);
                    if !book.initializing.remove(&id) {
                        book.stopped(load, kind, (id, pid), output, after);
                    }
                }
                Step::Wrote(wrote) => output = Some(wrote),
                Step::Noted(Note::Sample { tasks, encoding, peak_rss_bytes }) => {
                    book.tally(id).sampled(tasks, Duration::from_nanos(encoding), peak_rss_bytes);
                }
                Step::Noted(Note::Late { nanos, tasks, task, function }) => {
                    book.late(id, FunctionId(function), task, tasks, nanos);
                }
                Step::Noted(Note::Begun { nanos }) => {
                    if let Some(timeline) = &mut book.timeline {
                        timeline.begun(id, nanos);
                    }
                }
                Step::Said(record, load) => {
                    after.words.push(Words::new(record, id, pid, load));
                    to_the_end = false;
                    return std::ops::ControlFlow::Break(());
                }
            }
            std::ops::ControlFlow::Continue(())
        });
        if !to_the_end {
            self.unread.insert(place);
        }
        if started {
            self.book.tally(id).started(now, self.config.initializer.is_some());
        }
        if useful && self.workers[place].is_idle() {
            self.book.tally(id).released(now);
        }
        if useful || started {
            self.book.progress.insert(id, now);
            self.book.overdue.remove(&id);
        }
        if started && let Some(call) = self.config.initializer.clone() {
            self.initialize(place, call, poller, now);
        }
        if useful {
            self.failed_starts = 0;
            self.share_after = SHARE_AFTER;
        }
        if stopped && self.workers[place].is_idle() && !self.workers[place].has_board() {
            // It was told by the end of what it hears.
            self.workers[place].drain(now);
        }
        if let Some(kind) = failed_to_initialize {
            self.workers[place].dismiss(now, poller);
            self.start_failed(now, kind);
        }
        to_the_end
    }

    fn initialize(&mut self, place: usize, call: Call, poller: &Poller, now: Instant) {
        let (Some(function), Ok(args)) = (registry::id_of(call.entry), call.args) else { return };
        let parcel = Parcel {
            lane: LaneId::Pinned,
            first: self.next_id(),
            records: Records::of(function, args),
            to: Recipient::Nobody,
            attempts: 1,
            retries: 0,
        };
        let worker = &mut self.workers[place];
        self.book.initializing.insert(worker.id());
        worker.run(parcel, levels(), false);
        worker.ring(now, poller);
    }

    /// Collects a worker that has ended, and sees to the tasks that it had.
    fn reap(&mut self, place: usize, poller: &Poller, now: Instant) {
        let worker = &mut self.workers[place];
        let id = worker.id();
        let obituary = worker.reap(now, poller);
        let Some(obituary) = obituary else { return };
        self.book.tally(id).ended(now);
        self.book.progress.remove(&id);
        self.book.overdue.remove(&id);
        let initializing = self.book.initializing.remove(&id);
        let Obituary {
            pid,
            was,
            exit,
            cause,
            reason,
            mut panic,
            killed,
            stopped,
            running,
            output,
            waiting,
            unknown,
            was_useful,
        } = obituary;
        #[cfg(feature = "tracing")]
        self.after.ended.push(pid);
        if let Some(timeline) = &self.book.timeline {
            let how = exit.map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
            let name = if was == Phase::Draining || exit.is_some_and(|exit| exit.code() == Some(0)) {
                "end"
            } else {
                "crash"
            };
            timeline.instant(id, name, &[("process", &pid.to_string()), ("how", &how)]);
        }
        // Which of a worker's tasks ended it is known only where it could note what it began.
        let was_idle = running.is_none() && unknown.is_empty();
        if let Some(output) = output.as_ref().filter(|_| was_idle || initializing) {
            self.after.shows.push(output.clone());
        }
        if initializing {
            let kind = crash(exit, cause, panic.take());
            if !killed {
                self.start_failed(now, kind);
            }
            return;
        }
        self.book.take_home(waiting, id);
        if let Some(mut task) = running {
            self.book.leave(&task, id);
            let kind = if let Some(kind) = &stopped {
                kind.clone()
            } else if let Some(reason) = reason.as_ref().filter(|_| killed) {
                TaskErrorKind::Lost { message: format!("its worker was killed: {reason}") }
            } else {
                crash(exit, cause, panic.take())
            };
            let again = task.retries > 0 && matches!(kind, TaskErrorKind::Crash { .. }) && !self.closing;
            if again {
                self.after.shows.extend(output.clone());
                task.retries -= 1;
                if let Some(timeline) = &self.book.timeline {
                    let (function, number) = (task.function(), task.first.to_string());
                    timeline.instant(id, "retry", &[("function", function), ("index", &number)]);
                }
                self.book.push_front(task);
            } else {
                task.tell(output.clone(), &mut self.after);
                let by = (id, pid, output.as_ref());
                self.book.fail(task, &kind, Some(by), &mut self.after);
            }
        }
        if self.closing {
            // What the worker had not begun has gone back to the queue, which nobody serves any more.
            self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        }
        for parcel in unknown {
            self.book.leave(&parcel, id);
            let how = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
            // Where nobody knows, one task is in flight at most.
            let kind = stopped.clone().unwrap_or_else(|| TaskErrorKind::Lost {
                message: format!("its worker has ended{how}, and nobody knows whether it ran"),
            });
            parcel.tell(output.clone(), &mut self.after);
            self.book.fail(parcel, &kind, Some((id, pid, output.as_ref())), &mut self.after);
        }
        let died_at_start = was == Phase::Starting || (was == Phase::Serving && was_idle && !was_useful);
        if died_at_start && !killed && !self.closing {
            let how = match (reason, exit) {
                (Some(reason), _) => reason,
                (None, Some(exit)) => format!("it ended with {exit}"),
                (None, None) => "it ended".to_owned(),
            };
            self.start_failed(
                now,
                TaskErrorKind::Lost { message: format!("no worker could be started: {how}") },
            );
        }
    }

    /// The system would not start a worker: as for [`start_failed`](Self::start_failed), but what comes later may have more luck.
    pub(super) fn launch_failed(&mut self, now: Instant, error: &io::Error) {
        let message = format!("no worker could be started: {error}");
        self.start_failed(now, TaskErrorKind::Lost { message });
        let is_lasting = error.get_ref().is_some_and(|error| error.is::<NeverReady>());
        if !is_lasting && self.book.broken.take().is_some() {
            self.failed_starts = 0;
        }
    }

    /// One more start has failed: pause before the next, or give up.
    pub(super) fn start_failed(&mut self, now: Instant, kind: TaskErrorKind) {
        self.failed_starts += 1;
        let initializing = &self.book.initializing;
        let some_serve =
            self.workers.iter().any(|worker| worker.is_live() && !initializing.contains(&worker.id()));
        if self.failed_starts < MOST_FAILED_STARTS || some_serve {
            let doublings = (self.failed_starts - 1).min(MOST_FAILED_STARTS + 2);
            self.not_before = Some(now + FIRST_BACK_OFF * 2u32.pow(doublings));
            return;
        }
        let kind = match kind {
            TaskErrorKind::Lost { message } => TaskErrorKind::Lost {
                message: format!("{message}; given up after {MOST_FAILED_STARTS} attempts"),
            },
            other => other,
        };
        self.book.broken = Some(kind.clone());
        self.fail_queued(&kind);
    }

    /// Completes everything that waits with one error.
    pub(super) fn fail_queued(&mut self, kind: &TaskErrorKind) {
        let book = &mut self.book;
        for id in Vec::from(book.turns.clone()) {
            for parcel in book.take_all(id) {
                book.fail(parcel, kind, None, &mut self.after);
            }
            book.tidy(id);
        }
        for parcel in std::mem::take(&mut book.pinned).into_values().flatten() {
            book.fail(parcel, kind, None, &mut self.after);
        }
    }

    /// Does what is due. Only whoever drives may call it, for it reads.
    pub(super) fn tend(&mut self, poller: &Poller, now: Instant) {
        for place in 0..self.workers.len() {
            let worker = &self.workers[place];
            let late = worker.is_starting() && worker.deadline().is_some_and(|at| at <= now);
            // One that is late may have shaken hands in time, and this process may have been stopped since.
            if (late || worker.is_look_due(now)) && !self.read(place, true, poller, now) {
                continue;
            }
            self.workers[place].on_deadline(now);
            let is_due = |worker: &Supervisor<Parcel>| worker.stop_due().is_some_and(|at| at <= now);
            // It may have ended since.
            if is_due(&self.workers[place])
                && self.read(place, true, poller, now)
                && is_due(&self.workers[place])
            {
                self.workers[place].stop_further(now);
            }
            self.time_out(place, poller, now);
        }
    }

    /// Has the task end that has run at this worker for longer than it may.
    fn time_out(&mut self, place: usize, poller: &Poller, now: Instant) {
        let worker = &self.workers[place];
        let Some(limit) = self.limit_of(worker) else { return };
        if worker.over_due(limit).is_none_or(|at| at > now) || !self.workers[place].is_over(limit, now) {
            return;
        }
        let is_over = |scheduler: &mut Self| {
            scheduler.limit_of(&scheduler.workers[place]) == Some(limit)
                && scheduler.workers[place].is_over(limit, now)
        };
        // It may have ended since, and so may those that were sent behind it, until they are taken back.
        if self.read(place, true, poller, now) && is_over(self) {
            let worker = &mut self.workers[place];
            let id = worker.id();
            self.book.take_home(worker.take_back(), id);
            if self.read(place, true, poller, now) && is_over(self) {
                self.workers[place].stop(TaskErrorKind::Timeout { limit }, now);
            }
        }
    }
}

/// What the death of a worker says of the task that it was running.
fn crash(
    exit: Option<Exit>,
    cause: Option<&'static str>,
    panic: Option<crate::panic::RemotePanic>,
) -> TaskErrorKind {
    const SIGABRT: i32 = nix::libc::SIGABRT;
    match (panic, exit) {
        (Some(panic), Some(end)) if end.signal() == Some(SIGABRT) && cause.is_none() => {
            TaskErrorKind::Panic { panic, exit }
        }
        _ => TaskErrorKind::Crash { exit, cause },
    }
}
