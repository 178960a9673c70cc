//! What workers say and how they end: the part of the [`Scheduler`] that listens.

use std::time::{Duration, Instant};

use super::{
    queue::Parcel,
    queues::{GivenUp, Words},
    restarts::{Others, Streak, Verdict},
    state::{SHARE_AFTER, Scheduler},
};
use crate::{
    codec::Encoded,
    error::{Exit, POOL_ENDED, TaskErrorKind},
    id::{FunctionId, WorkerId},
    launch::LaunchError,
    marker::{PROTOCOL_BROKEN, meaning_at_start},
    panic::RemotePanic,
    protocol::{Note, Outcome},
    supervisor::state::{Load, OUTPUT, Obituary, PROCESS, Phase, Step, Supervisor},
    sys::{
        memory::oom_kills,
        poll::{CLOSED, Event, Poller},
    },
    task::Call,
    transport::Cause,
};

/// The launcher among the workers; no worker has this key.
pub(crate) const LAUNCHER: u64 = u64::MAX - 1;

impl Scheduler {
    /// Reacts to what the poller saw.
    pub(crate) fn handle(&mut self, events: &[Event], poller: &Poller, now: Instant) {
        for place in std::mem::take(&mut self.unread) {
            self.read(place, true, poller, now);
        }
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
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

    fn role(&self, id: WorkerId) -> Role {
        if self.book.initializing.contains(&id) {
            Role::Initializing
        } else if self.leaving.is_finalizing(id) {
            Role::Finalizing
        } else {
            Role::Serving
        }
    }

    /// Reads a worker to the end, or as far as its share of a turn goes, or to a record that must be out before what follows it is seen:
    /// until then it is read no further, and only whoever drives may read. Returns whether it came to the end.
    pub(crate) fn read(&mut self, place: usize, readable: bool, poller: &Poller, now: Instant) -> bool {
        let worker = &self.workers[place];
        let (id, pid) = (worker.id(), worker.pid().unwrap_or_default());
        let was_useful = worker.was_useful();
        let role = self.role(id);
        let worker = &mut self.workers[place];
        let (book, leaving, after) = (&mut self.book, &mut self.leaving, &mut self.after);
        let initializer = self.config.initializer.as_ref();
        let finalizer = self.config.lives.finalizer.as_ref();
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
        let paused = worker.read(readable, now, poller, |step| {
            match step {
                Step::Started => started = true,
                Step::Done { load, results } => {
                    useful = true;
                    match role {
                        Role::Serving => book.done(load, results, id, after),
                        Role::Initializing => {
                            book.initializing.remove(&id);
                            book.tally(id).initialized(now);
                            let mut results = results;
                            failed_to_initialize = results
                                .next()
                                .and_then(|result| failure(initializer, &Encoded::Short(result)));
                        }
                        Role::Finalizing => results.for_each(|result| {
                            leaving.add_exit(Ok(Encoded::Short(result).into_owned()));
                        }),
                    }
                }
                Step::DoneOne { load, nanos, result } => {
                    useful = true;
                    load.tell(output.take(), after);
                    match role {
                        Role::Serving => book.done_one(load, nanos, Ok(result), id, after),
                        Role::Initializing => {
                            book.initializing.remove(&id);
                            book.tally(id).initialized(now);
                            failed_to_initialize = failure(initializer, &result);
                        }
                        Role::Finalizing => leaving.add_exit(Ok(result.into_owned())),
                    }
                }
                Step::Failed { load, nanos, fault } => {
                    useful = true;
                    let output = output.take();
                    load.tell(output.clone(), after);
                    match role {
                        Role::Serving => book.failed(load, nanos, fault, (id, pid), output, after),
                        Role::Initializing => {
                            book.initializing.remove(&id);
                            let kind = TaskErrorKind::from(fault);
                            failed_to_initialize = Some((kind.of(&the_initializer(initializer)), Some(kind)));
                        }
                        Role::Finalizing => {
                            leaving.add_exit(Err(book.exit_error(finalizer, fault.into(), (id, pid))));
                        }
                    }
                }
                Step::Stopped { load, nanos, kind } => {
                    useful = true;
                    stopped = true;
                    let output = output.take();
                    load.tell(output.clone(), after);
                    match role {
                        Role::Serving => book.stopped(load, nanos, kind, (id, pid), output, after),
                        Role::Initializing => {
                            book.initializing.remove(&id);
                        }
                        Role::Finalizing => {
                            leaving.add_exit(Err(book.exit_error(finalizer, kind, (id, pid))));
                        }
                    }
                }
                Step::Progress { load, fraction } => {
                    load.to.give_progress(load.first, fraction, &mut after.wakes)
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
            if failed_to_initialize.is_some() {
                useful = false;
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        });
        to_the_end &= !paused;
        if !to_the_end {
            self.unread.insert(place);
        }
        if started {
            self.book.tally(id).started(now, self.config.initializer.is_some());
        }
        if useful && self.workers[place].is_idle() {
            self.book.tally(id).released(now);
        }
        if useful {
            self.book.tally(id).heard(now);
        }
        if useful || started {
            self.book.progress.insert(id, now);
            self.book.overdue.remove(&id);
        }
        if useful || started {
            self.look_for_the_idle(now);
        }
        // It may have ended since it said so.
        if started
            && self.workers[place].is_live()
            && let Some((call, _)) = self.config.initializer.clone()
        {
            self.book.initializing.insert(id);
            self.run_own(place, call, poller, now);
        }
        if useful && role == Role::Serving {
            self.weigh(place, now);
        }
        if useful && !was_useful {
            self.restarts.came_up();
            self.pinned = None;
        }
        if (useful && !was_useful) || (started && self.config.initializer.is_none()) {
            // The pool may have been given up while this one started.
            self.book.given_up = None;
        }
        if useful {
            self.restarts.forgive();
            self.share_after = SHARE_AFTER;
        }
        if stopped && self.workers[place].is_idle() && !self.workers[place].has_board() {
            // It was told by the end of what it hears.
            self.workers[place].drain(now);
        }
        if let Some(kind) = failed_to_initialize {
            let begun = self.workers[place].launched_at().unwrap_or(now);
            self.workers[place].dismiss(now, poller);
            self.initializer_failed(begun, now, kind);
        }
        to_the_end
    }

    /// Collects a worker that has ended, and sees to the tasks that it had.
    fn reap(&mut self, place: usize, poller: &Poller, now: Instant) {
        let worker = &mut self.workers[place];
        let id = worker.id();
        let obituary = worker.reap(now, poller);
        let Some(obituary) = obituary else { return };
        let had_begun = obituary.running.is_some() || !obituary.unknown.is_empty();
        self.book.tally(id).ended(now, had_begun);
        self.book.progress.remove(&id);
        self.book.overdue.remove(&id);
        let initializing = self.book.initializing.remove(&id);
        let finalizing = self.forget_leaving(id);
        let Obituary {
            pid,
            launched_at,
            was,
            exit,
            cause,
            reason,
            was_short,
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
            let how = exit.map_or_else(|_| "unknown".to_owned(), |exit| exit.to_string());
            let name = if was == Phase::Draining || exit.is_ok_and(|exit| exit.code() == Some(0)) {
                "end"
            } else {
                "crash"
            };
            timeline.instant(id, name, &[("process", &pid.to_string()), ("how", &how)]);
        }
        // Which of a worker's tasks ended it is known only where it could note what it began.
        let was_idle = running.is_none() && unknown.is_empty();
        if let Some(output) = output.as_ref().filter(|_| was_idle || initializing || finalizing) {
            self.after.shows.push(output.clone());
        }
        if initializing {
            if !killed {
                let by_kernel = is_killed_for_memory(exit, &mut self.oom_kills);
                let kind = self.crash((exit, cause, reason), panic.take(), by_kernel);
                let words = kind.of(&the_initializer(self.config.initializer.as_ref()));
                self.initializer_failed(launched_at, now, (words, Some(kind)));
            }
            return;
        }
        if finalizing {
            // Idle, it had done with it.
            if !was_idle || !waiting.is_empty() {
                let kind = stopped.unwrap_or_else(|| crash(exit, cause, panic, reason));
                let error = self.book.exit_error(self.config.lives.finalizer.as_ref(), kind, (id, pid));
                self.leaving.add_exit(Err(error));
            }
            return;
        }
        let by_kernel = !killed && is_killed_for_memory(exit, &mut self.oom_kills);
        let mut waiting = waiting;
        let mut running = running;
        if running.is_none() && cause == Some(Cause::OutOfMemory) && !waiting.is_empty() {
            // It was refused the memory for what it was to read next.
            let mut next = waiting.remove(0);
            running = Some(next.take_first(1));
            if next.len() > 0 {
                waiting.insert(0, next);
            }
        }
        self.book.take_home(waiting, id);
        if let Some(mut task) = running {
            self.book.leave(&task, id);
            let kind = if let Some(kind) = &stopped {
                kind.clone()
            } else if let Some(reason) = reason.as_ref().filter(|_| killed) {
                TaskErrorKind::Lost { message: format!("its worker was killed: {reason}") }
            } else {
                self.crash((exit, cause, reason.clone()), panic.take(), by_kernel)
            };
            let died = matches!(kind, TaskErrorKind::Crash { .. } | TaskErrorKind::OutOfMemory { .. });
            let again = task.retries > 0 && died && !self.closing;
            if again {
                self.after.shows.extend(output.clone());
                task.retries -= 1;
                if let Some(timeline) = &self.book.timeline {
                    let (function, number) = (task.function(), task.first.to_string());
                    timeline.instant(id, "retry", &[("function", function), ("index", &number)]);
                }
                self.book.put_first(task, id);
            } else {
                task.tell(output.clone(), &mut self.after);
                let by = (id, pid, output.as_ref());
                self.book.fail(task, &kind, Some(by), &mut self.after);
            }
        }
        if self.closing {
            // What the worker had not begun has gone back to the queue, which nobody serves any more.
            self.fail_queued(&TaskErrorKind::Cancelled { why: POOL_ENDED });
        } else if let Some(given_up) = &self.book.given_up {
            // The pool was given up while this worker was ending.
            let kind = given_up.kind.clone();
            self.fail_queued(&kind);
        }
        for parcel in unknown {
            self.book.leave(&parcel, id);
            let how = match (exit, &reason) {
                (Ok(exit), Some(reason)) => format!(" ({exit}): {reason}"),
                (Ok(exit), None) => format!(" ({exit})"),
                (Err(why), _) => format!(" ({why})"),
            };
            // Where nobody knows, one task is in flight at most.
            let kind = stopped.clone().unwrap_or_else(|| TaskErrorKind::Lost {
                message: format!("its worker has ended{how}, and nobody knows whether it ran"),
            });
            parcel.tell(output.clone(), &mut self.after);
            self.book.fail(parcel, &kind, Some((id, pid, output.as_ref())), &mut self.after);
        }
        let died_at_start = was == Phase::Starting || (was == Phase::Serving && was_idle && !was_useful);
        if died_at_start && !killed && !self.closing {
            if was_short && let Some(reason) = &reason {
                return self.is_short(launched_at, now, reason);
            }
            let why = why_not_started(&format!("worker {id} (pid {pid})"), exit, cause, reason);
            self.start_failed(launched_at, now, why, None);
        }
    }

    /// As [`crash`], with what the pool knows.
    fn crash(
        &self,
        (exit, cause, reason): (Result<Exit, &'static str>, Option<Cause>, Option<String>),
        panic: Option<RemotePanic>,
        by_kernel: bool,
    ) -> TaskErrorKind {
        if by_kernel {
            return killed_for_memory(exit);
        }
        match (crash(exit, cause, panic, reason), self.config.surroundings.memory) {
            (TaskErrorKind::OutOfMemory { exit, .. }, Some(bytes)) => {
                let why = format!("it asked for more memory than the {} MiB of memory_limit", bytes >> 20);
                TaskErrorKind::OutOfMemory { exit, why: why.into() }
            }
            (kind, _) => kind,
        }
    }

    /// The launcher has not started a worker.
    pub(crate) fn launch_failed(&mut self, now: Instant, error: LaunchError) {
        match error {
            error if error.is_shortage() => self.is_short(now, now, &error),
            LaunchError::Refused(why) => {
                let kind = TaskErrorKind::NotStarted { why, cause: None };
                if self.others(now) != Others::None {
                    self.restarts.pause(now);
                    self.fail_pinned(&kind);
                } else {
                    self.give_up_for_now(kind, now);
                }
            }
            error => self.start_failed(now, now, error.to_string(), None),
        }
    }

    /// The system is short of something that a worker takes, whose start was begun at `begun`.
    fn is_short(&mut self, begun: Instant, now: Instant, of: &dyn std::fmt::Display) {
        let others = self.others(now);
        if let Verdict::GiveUp { starts, time } = self.restarts.short(begun, others, now) {
            let why = format!("{of}; given up after {starts} attempts in {time:.1?}");
            self.give_up_for_now(TaskErrorKind::NotStarted { why, cause: None }, now);
        } else if others == Others::Serve && self.is_enough_for_pinned(begun, now) {
            self.fail_pinned(&TaskErrorKind::NotStarted { why: of.to_string(), cause: None });
        }
    }

    /// While others serve starts are tried for ever. Tasks that only a worker may run that does not start are not to wait for that.
    fn is_enough_for_pinned(&mut self, begun: Instant, now: Instant) -> bool {
        if !self.has_pinned_for_vacant() {
            self.pinned = None;
            return false;
        }
        let start_timeout = self.config.start_timeout;
        let is_enough = Streak::add(&mut self.pinned, begun, now, start_timeout) >= start_timeout;
        self.pinned.take_if(|_| is_enough);
        is_enough
    }

    fn has_pinned_for_vacant(&self) -> bool {
        self.book.pinned.keys().any(|id| self.workers[id.0 as usize].is_vacant())
    }

    /// Completes with one error what only those workers may run that are not there.
    fn fail_pinned(&mut self, kind: &TaskErrorKind) {
        let vacant = |id: &&WorkerId| self.workers[id.0 as usize].is_vacant();
        let ids: Vec<WorkerId> = self.book.pinned.keys().filter(vacant).copied().collect();
        for parcel in
            ids.into_iter().filter_map(|id| self.book.pinned.remove(&id)).flatten().collect::<Vec<_>>()
        {
            self.book.fail(parcel, kind, None, &mut self.after);
        }
    }

    /// An initializer has come to this, in words and as a task's outcome.
    fn initializer_failed(
        &mut self,
        begun: Instant,
        now: Instant,
        (why, kind): (String, Option<TaskErrorKind>),
    ) {
        self.start_failed(begun, now, why, kind);
    }

    /// A start that was begun at `begun` has failed: pause before the next, or give up.
    fn start_failed(&mut self, begun: Instant, now: Instant, why: String, cause: Option<TaskErrorKind>) {
        let others = self.others(now);
        let verdict = if self.book.is_given_up(now) {
            Verdict::Retry
        } else {
            self.restarts.failed(begun, others, now)
        };
        let Verdict::GiveUp { starts, time } = verdict else {
            if others == Others::Serve && self.is_enough_for_pinned(begun, now) {
                self.fail_pinned(&TaskErrorKind::NotStarted { why, cause: cause.map(Box::new) });
            }
            return;
        };
        let why = format!("{why}; given up after {starts} failed starts in {time:.1?}");
        let kind = TaskErrorKind::NotStarted { why, cause: cause.map(Box::new) };
        self.give_up(kind, None, now);
    }

    /// Fails what waits, and what the calls that have begun will add. What is handed in later may have more luck.
    fn give_up_for_now(&mut self, kind: TaskErrorKind, now: Instant) {
        self.give_up(kind, Some(self.next_call), now);
    }

    fn give_up(&mut self, kind: TaskErrorKind, next_call: Option<u64>, now: Instant) {
        self.fail_queued(&kind);
        self.book.given_up = Some(GivenUp { kind, until: Some(self.restarts.over_at(now)), next_call });
    }

    /// There is a worker that could run tasks.
    fn some_serve(&self) -> bool {
        let initializing = &self.book.initializing;
        let is_initializing =
            |worker: &&Supervisor<Parcel>| worker.is_live() && initializing.contains(&worker.id());
        self.workers.live() > self.workers.up().filter(is_initializing).count()
    }

    /// What there is besides a start that failed.
    fn others(&self, now: Instant) -> Others {
        if self.some_serve() {
            return Others::Serve;
        }
        let initializing = &self.book.initializing;
        let begun = self
            .workers
            .up()
            .filter(|worker| {
                worker.is_starting() || (worker.is_live() && initializing.contains(&worker.id()))
            })
            .filter_map(Supervisor::launched_at)
            .filter(|&at| now.saturating_duration_since(at) < self.config.start_timeout);
        begun.min().map_or(Others::None, Others::Start)
    }

    /// Other code has closed the pool's descriptors, whose numbers may be others' by now: the workers are left alone, and all that there is
    /// and will be comes to an error. Workers end by themselves, as their connections have ended.
    pub(crate) fn break_down(&mut self) {
        let kind = TaskErrorKind::Lost { message: CLOSED.to_owned() };
        self.book.given_up = Some(GivenUp { kind: kind.clone(), until: None, next_call: None });
        self.unread.clear();
        let mut next = 0;
        while let Some(place) = self.workers.next_manned(next) {
            next = place + 1;
            let id = self.workers[place].id();
            let Some((pid, parcels)) = self.workers[place].abandon() else { continue };
            let was_own = self.book.initializing.remove(&id) | self.forget_leaving(id);
            self.book.progress.remove(&id);
            self.book.overdue.remove(&id);
            for parcel in parcels.filter(|_| !was_own) {
                self.book.leave(&parcel, id);
                self.book.fail(parcel, &kind, Some((id, pid, None)), &mut self.after);
            }
        }
        self.fail_queued(&kind);
    }

    /// Completes everything that waits with one error.
    pub(crate) fn fail_queued(&mut self, kind: &TaskErrorKind) {
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
    pub(crate) fn tend(&mut self, poller: &Poller, now: Instant) {
        let mut next = 0;
        while let Some(place) = self.workers.next_up(next) {
            next = place + 1;
            let worker = &self.workers[place];
            let late = worker.is_starting() && worker.deadline().is_some_and(|at| at <= now);
            // One that is late may have shaken hands in time, and this process may have been stopped since.
            if !(late || worker.is_look_due(now)) || self.read_before_deadline(place, poller, now) {
                self.workers[place].on_deadline(now);
            }
            if self.workers[place].is_given_up() {
                self.reap(place, poller, now);
                continue;
            }
            let is_due = |worker: &Supervisor<Parcel>| worker.stop_due().is_some_and(|at| at <= now);
            // It may have ended since.
            if is_due(&self.workers[place])
                && self.read_before_deadline(place, poller, now)
                && is_due(&self.workers[place])
            {
                self.workers[place].stop_further(now);
            }
            self.time_out(place, poller, now);
        }
        self.workers.settle();
    }

    /// Reads what a worker has said until now, as it may have kept a deadline that is over. Returns whether that is known: it came to the
    /// end, or it says so much that no end is to be expected.
    fn read_before_deadline(&mut self, place: usize, poller: &Poller, now: Instant) -> bool {
        let to_the_end = self.read(place, true, poller, now);
        self.workers[place].is_heard(to_the_end)
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
        if self.read_before_deadline(place, poller, now) && is_over(self) {
            let worker = &mut self.workers[place];
            let id = worker.id();
            self.book.take_home(worker.take_back(), id);
            if self.read_before_deadline(place, poller, now) && is_over(self) {
                self.workers[place].stop(TaskErrorKind::Timeout { limit }, now);
            }
        }
    }
}

/// What a worker is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Serving,
    Initializing,
    Finalizing,
}

/// What an initializer's result says of failure.
fn failure(
    initializer: Option<&(Call, Outcome)>,
    result: &Encoded<'_>,
) -> Option<(String, Option<TaskErrorKind>)> {
    let (call, outcome) = initializer?;
    outcome.check("initializer", call.entry.name, result).map_err(|words| (words, None)).err()
}

fn the_initializer(initializer: Option<&(Call, Outcome)>) -> String {
    format!("the initializer `{}`", initializer.map_or("", |(call, _)| call.entry.name))
}

/// Why a worker has not come to its first task, in its own words or in these.
pub(crate) fn why_not_started(
    who: &str,
    exit: Result<Exit, &'static str>,
    cause: Option<Cause>,
    reason: Option<String>,
) -> String {
    reason.unwrap_or_else(|| match (exit, cause) {
        (Err(why), _) => format!("{who} disappeared as it started: {why}"),
        (Ok(exit), Some(Cause::OutOfMemory)) => format!("{who} ran out of memory as it started ({exit})"),
        (Ok(exit), Some(Cause::StackOverflow)) => {
            format!("{who} overflowed its stack as it started ({exit})")
        }
        (Ok(exit), Some(Cause::ConnectionEnded) | None) => match exit.code().and_then(meaning_at_start) {
            Some(words) => format!("{who} {words} ({exit})"),
            None => format!("{who} ended with {exit} as it started"),
        },
    })
}

/// Returns whether the kernel may have killed a worker because there was no memory left: it was killed, not by its host, and the kernel has
/// killed processes for that reason since they were counted last. They are counted anew.
pub(crate) fn is_killed_for_memory(exit: Result<Exit, &'static str>, counted: &mut Option<u64>) -> bool {
    if exit.ok().and_then(|exit| exit.signal()) != Some(nix::libc::SIGKILL) {
        return false;
    }
    let now = oom_kills();
    let before = std::mem::replace(counted, now);
    before.zip(now).is_some_and(|(before, now)| before < now)
}

/// The kernel has killed a worker, for there was no memory left.
pub(crate) fn killed_for_memory(exit: Result<Exit, &'static str>) -> TaskErrorKind {
    let why = "the kernel has killed its process, for want of memory";
    TaskErrorKind::OutOfMemory { exit: exit.ok(), why: why.into() }
}

/// What the death of a worker says of the task that it was running.
pub(crate) fn crash(
    exit: Result<Exit, &'static str>,
    cause: Option<Cause>,
    panic: Option<RemotePanic>,
    reason: Option<String>,
) -> TaskErrorKind {
    const SIGABRT: i32 = nix::libc::SIGABRT;
    match (panic, exit, cause) {
        // It was told as all that follows was the end: what `errno` makes of that end is a guess.
        (Some(panic), Ok(end), None | Some(Cause::OutOfMemory)) if end.signal() == Some(SIGABRT) => {
            TaskErrorKind::Panic { panic, exit: Some(end) }
        }
        // How it ended nobody knows, and it has said that it panics: it came no further.
        (Some(panic), Err(_), None) => TaskErrorKind::Panic { panic, exit: None },
        (_, _, Some(Cause::OutOfMemory)) => TaskErrorKind::OutOfMemory {
            exit: exit.ok(),
            why: "it asked for more memory than it may have".into(),
        },
        (_, _, Some(Cause::StackOverflow)) => {
            TaskErrorKind::Crash { exit, cause: Some("stack overflow".into()) }
        }
        (_, _, Some(Cause::ConnectionEnded)) => {
            let cause = "the process's connection to this one ended while it ran";
            TaskErrorKind::Crash { exit, cause: Some(cause.into()) }
        }
        (_, _, None) => {
            // Whatever else ends it says more than a connection that ends with it.
            let is_broken = exit.is_ok_and(|exit| exit.code() == Some(PROTOCOL_BROKEN));
            let cause = reason.filter(|_| is_broken).map(Into::into);
            TaskErrorKind::Crash { exit, cause }
        }
    }
}
