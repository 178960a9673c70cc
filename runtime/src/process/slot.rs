//! One process under watch: reads what it says, runs its task when it is ready, and turns its end into an outcome.
//!
//! Only the watching thread locks a [`ProcessSlot`]. It holds the process's supervisor and never waits.

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::{
    caller::Caller,
    captured::Captured,
    codec::{Encoded, ShortBytes},
    error::{Exit, TaskError, TaskErrorKind, TaskLocation},
    handle::{Completer, Outcome, Wakes},
    id::{FunctionId, WorkerId},
    launch::{Launcher, ResolvedOptions, StartMethod},
    observe::{levels::levels, record::ForwardedRecord},
    protocol::{EncodedTasks, Levels, Record, RunFlags},
    supervisor::{
        event::{ExitReport, Phase, WorkerEvent},
        exit::{crash, is_killed_for_memory, killed_for_memory, why_not_started},
        ledger::InFlightTasks,
        state::Supervisor,
    },
    sys::identified::CLOSED,
};

/// The settings of a process that is to be started.
pub(crate) struct Order {
    pub(super) name: Arc<str>,
    pub(super) function: FunctionId,
    pub(super) args: ShortBytes,
    /// The ID of the task.
    pub(super) number: u64,
    /// The seed of the task.
    pub(super) seed: u64,
    pub(super) surroundings: ResolvedOptions,
    pub(super) method: StartMethod,
    pub(super) start_timeout: Duration,
    pub(super) completer: Arc<Completer>,
}

/// How a process ended, if that is known. Empty until it has been reaped.
pub(super) type End = Arc<OnceLock<Option<Exit>>>;

/// A process that has not been reaped.
pub(super) struct ProcessSlot {
    pub(super) supervisor: Supervisor<Sole>,
    /// Its task, until it is ready.
    pub(super) sole: Option<Sole>,
    pub(super) name: Arc<str>,
    pub(super) function: &'static str,
    /// It did not reach its function in time.
    pub(super) is_late: bool,
    pub(super) outcome: Option<Outcome>,
    /// The output of the function, if it is kept.
    pub(super) wrote: Option<Arc<Captured>>,
    pub(super) completer: Arc<Completer>,
    pub(super) end: End,
    pub(super) memory_limit: Option<u64>,
    /// How many processes the kernel had killed for lack of memory when this one was started.
    pub(super) oom_kills: Option<u64>,
    /// Started it, and keeps its template alive until it has ended.
    pub(super) launcher: Arc<dyn Launcher>,
}

/// The task of a process.
pub(super) struct Sole {
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) function: &'static str,
    pub(super) records: EncodedTasks,
}

impl InFlightTasks for Sole {
    fn len(&self) -> u32 {
        self.records.len()
    }

    fn first_task(&self) -> u64 {
        self.number
    }

    fn records(&mut self) -> &mut EncodedTasks {
        &mut self.records
    }

    fn done(&mut self, n: u32) {
        self.records.advance(n);
    }

    fn take_first(&mut self, n: u32) -> Self {
        Self {
            number: self.number,
            seed: self.seed,
            function: self.function,
            records: self.records.take_first(n),
        }
    }

    fn function_after(&self, _n: u32) -> &'static str {
        self.function
    }
}

/// The identity of a process, for its log records.
pub(super) struct About {
    pid: u32,
    caller: Caller,
}

impl About {
    pub(super) fn says(&self, record: Record) -> ForwardedRecord {
        ForwardedRecord { record, worker: WorkerId::ALONE, pid: self.pid, caller: self.caller.clone() }
    }
}

impl ProcessSlot {
    pub(super) fn about(&self) -> About {
        About { pid: self.supervisor.pid().unwrap_or_default(), caller: self.completer.caller.get() }
    }

    /// Reads up to the next record, or all that has arrived. Returns whether there may be more, for another round.
    pub(super) fn read(&mut self, now: Instant) -> (Vec<ForwardedRecord>, bool) {
        let about = self.about();
        let pid = about.pid;
        let (mut words, mut has_started, mut outcome) = (Vec::new(), false, None);
        let wrote = &mut self.wrote;
        let paused = self.supervisor.read(true, now, |step| {
            match step {
                WorkerEvent::Started => has_started = true,
                WorkerEvent::Done { mut results, .. } => {
                    outcome = results.next().map(|result| Ok(Encoded::Short(result).into_owned()));
                }
                WorkerEvent::DoneOne { result, .. } => outcome = Some(Ok(result.into_owned())),
                WorkerEvent::Failed { fault, .. } => outcome = Some(Err(fault.into())),
                // It was not requested.
                WorkerEvent::Progress { .. } | WorkerEvent::Noted(_) | WorkerEvent::Recalled(_) => {}
                WorkerEvent::Wrote(output) => *wrote = Some(output),
                // A process is not stopped in this way. Its owner sends signals.
                WorkerEvent::Stopped { kind, .. } => outcome = Some(Err(kind)),
                WorkerEvent::Said(record, _) => {
                    words.push(about.says(record));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        // It may have ended since it reported that it is ready.
        if has_started
            && self.supervisor.is_live()
            && let Some(sole) = self.sole.take()
        {
            let seed = sole.seed;
            // Timelines do not show processes.
            let levels = Levels { is_timed: false, ..levels() };
            self.supervisor.run(sole, RunFlags { levels, seed, ..RunFlags::default() });
            self.supervisor.ring(now);
        }
        if let Some(outcome) = outcome {
            self.outcome = Some(outcome.map_err(|kind| self.error(kind, 1, pid)));
            if self.supervisor.is_idle() {
                self.supervisor.drain(now);
            }
        }
        (words, paused)
    }

    pub(super) fn on_deadline(&mut self, now: Instant) {
        self.is_late |=
            self.supervisor.is_starting() && self.supervisor.deadline().is_some_and(|at| at <= now);
        self.supervisor.on_deadline(now);
    }

    /// Handles the end of the process.
    pub(super) fn finish(&mut self, exit_report: ExitReport<Sole>) -> Wakes {
        let exit = exit_report.exit.ok();
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome,
            None => {
                self.wrote = exit_report.output.clone();
                Err(self.failure(exit_report))
            }
        };
        // Set first, because a thread that has the outcome may ask how the process ended.
        let _ = self.end.set(exit);
        if let Some(wrote) = self.wrote.take() {
            self.completer.tell(wrote);
        }
        let mut wakes = Wakes::default();
        self.completer.complete(outcome, &mut wakes);
        wakes
    }

    /// Gives up the process and completes its task with what is known.
    pub(super) fn abandon(&mut self, wakes: &mut Wakes) {
        let Some((pid, _)) = self.supervisor.abandon() else { return };
        let kind = TaskErrorKind::Lost { message: CLOSED.to_owned() };
        let outcome = self.outcome.take().unwrap_or_else(|| Err(self.error(kind, 1, pid)));
        let _ = self.end.set(None);
        self.completer.complete(outcome, wakes);
    }

    fn is_killed_for_memory(&mut self, exit: Result<Exit, &'static str>) -> bool {
        is_killed_for_memory(exit, &mut self.oom_kills, || self.launcher.oom_kills())
    }

    /// Returns the error of a process that ended without a result.
    fn failure(&mut self, exit_report: ExitReport<Sole>) -> TaskError {
        let ExitReport { pid, was, exit, cause, reason, panic, killed, running, unknown, .. } = exit_report;
        let has_begun = running.is_some() || !unknown.is_empty();
        let is_signal = exit.is_ok_and(|exit| exit.signal().is_some());
        let kind = match reason {
            Some(reason) if self.is_late || (killed && was == Phase::Starting) => could_not_start(&reason),
            Some(reason) if killed => {
                TaskErrorKind::Lost { message: format!("its process was killed: {reason}") }
            }
            _ if !killed && self.is_killed_for_memory(exit) => killed_for_memory(exit),
            reason if !has_begun && !is_signal => {
                could_not_start(&why_not_started("it", exit, cause, reason))
            }
            reason => match crash((exit, cause, reason), panic, self.memory_limit) {
                TaskErrorKind::Crash { exit, cause: None } if !has_begun => {
                    TaskErrorKind::Crash { exit, cause: Some("killed while starting".into()) }
                }
                kind => kind,
            },
        };
        self.error(kind, u32::from(has_begun), pid)
    }

    fn error(&self, kind: TaskErrorKind, attempts: u32, pid: u32) -> TaskError {
        let place = TaskLocation { index: None, attempts, worker: Some((WorkerId::ALONE, pid)) };
        TaskError::new(self.function, kind, place).in_pool(Some(&self.name)).with_output(self.wrote.clone())
    }
}

fn could_not_start(reason: &str) -> TaskErrorKind {
    TaskErrorKind::Lost { message: format!("the process could not be started: {reason}") }
}
