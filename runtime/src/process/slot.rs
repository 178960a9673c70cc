//! A process that has not been reaped: reads what it sends, runs its task when it is ready, and turns its end into an outcome.
//!
//! It holds the process's supervisor and never waits.

use std::{
    any::Any,
    io,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::Instant,
};

use crate::{
    batch::{Batch, Single},
    captured::Captured,
    codec::Encoded,
    error::{Error, Exit, TaskError, TaskErrorKind, TaskLocation},
    handle::{Completer, Outcome, Wakes},
    id::WorkerId,
    launch::{Launcher, OUTPUT, PROCESS, ResolvedOptions},
    observe::{levels::levels, record::ForwardedRecord},
    protocol::{Levels, Record, RunFlags},
    scheduler::effects::Effects,
    supervisor::{
        event::{ExitReport, Phase, WorkerEvent},
        exit::{cause_of_death, is_killed_for_memory, why_not_started},
        state::Supervisor,
    },
    sys::identified::CLOSED,
};

/// The settings of a process that is to be started.
pub(super) struct ProcessConfig {
    pub(super) name: Arc<str>,
    pub(super) task: Single,
    /// The seed of the task.
    pub(super) seed: u64,
    pub(super) spawn: ResolvedOptions,
}

impl ProcessConfig {
    /// Returns the error of a process that cannot be started.
    pub(super) fn not_started(&self, error: io::Error) -> Error {
        Error::system(format!("process `{}` cannot be started", self.name), error)
    }
}

/// The exit status of a process, if it is known. Empty until it has been reaped.
pub(super) type ExitCell = Arc<OnceLock<Option<Exit>>>;

/// A process that has not been reaped.
pub(super) struct ProcessSlot {
    pub(super) supervisor: Supervisor,
    /// Its task, until it is ready.
    pub(super) task: Option<Batch>,
    pub(super) seed: u64,
    pub(super) name: Arc<str>,
    pub(super) function: &'static str,
    /// It did not reach its function in time.
    pub(super) is_late: bool,
    pub(super) outcome: Option<Outcome>,
    /// The output of the function, if it is kept.
    pub(super) wrote: Option<Arc<Captured>>,
    pub(super) completer: Arc<Completer>,
    pub(super) end: ExitCell,
    pub(super) memory_limit: Option<u64>,
    /// The kernel's count of out-of-memory kills when this process was started.
    pub(super) oom_kills: Option<u64>,
    /// Started it, and keeps its template alive until it has ended.
    pub(super) launcher: Arc<dyn Launcher>,
    /// Keeps the engine of a process that has no owner any more. An owner keeps it itself, and its drop waits for the engine's end.
    pub(super) engine: Option<Arc<dyn Any + Send + Sync>>,
}

impl ProcessSlot {
    fn pid(&self) -> u32 {
        self.supervisor.pid().unwrap_or_default()
    }

    /// Returns what makes its records ready for the logger.
    fn forward(&self) -> impl Fn(Record) -> ForwardedRecord + use<> {
        let (pid, caller) = (self.pid(), self.completer.caller.get());
        move |record| ForwardedRecord { record, worker: WorkerId::ALONE, pid, caller: caller.clone() }
    }

    /// Reads what the poller has reported, up to the next record, and reaps the process if it has ended. Returns whether there is
    /// more to read.
    pub(super) fn read(&mut self, kind: u64, now: Instant, effects: &mut Effects) -> bool {
        let forward = self.forward();
        if kind == OUTPUT {
            self.supervisor.read_output(|record, _| effects.records.push(forward(record)));
            return false;
        }
        if !self.read_messages(now, effects) {
            return true;
        }
        if kind == PROCESS {
            self.supervisor.read_last_output(|record, _| effects.records.push(forward(record)));
            if !effects.records.is_empty() {
                return true;
            }
            if let Some(exit_report) = self.supervisor.reap(now) {
                self.finish(exit_report, effects);
            }
        }
        false
    }

    /// Reads up to the next record, or all that has arrived. Returns whether that was all.
    fn read_messages(&mut self, now: Instant, effects: &mut Effects) -> bool {
        let forward = self.forward();
        let (mut has_started, mut outcome, mut to_the_end) = (false, None, true);
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
                WorkerEvent::Progress { .. } | WorkerEvent::Noted(..) | WorkerEvent::Recalled(_) => {}
                WorkerEvent::Wrote(output) => *wrote = Some(output),
                // A process is not stopped in this way. Its owner sends signals.
                WorkerEvent::Stopped { kind, .. } => outcome = Some(Err(kind)),
                WorkerEvent::Said(record, _) => {
                    effects.records.push(forward(record));
                    to_the_end = false;
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        // It may have ended since it reported that it is ready.
        if has_started
            && self.supervisor.is_live()
            && let Some(task) = self.task.take()
        {
            // Timelines do not show processes.
            let levels = Levels { is_timed: false, ..levels() };
            self.supervisor.run(task, RunFlags { levels, seed: self.seed, ..RunFlags::default() });
            self.supervisor.ring(now);
        }
        if let Some(outcome) = outcome {
            self.outcome = Some(outcome.map_err(|kind| self.error(kind, 1, self.pid())));
            if self.supervisor.is_idle() {
                self.supervisor.drain(now);
            }
        }
        to_the_end && !paused && self.supervisor.park()
    }

    pub(super) fn on_deadline(&mut self, now: Instant) {
        self.is_late |=
            self.supervisor.is_starting() && self.supervisor.deadline().is_some_and(|at| at <= now);
        self.supervisor.on_deadline(now);
    }

    /// Handles the end of the process.
    fn finish(&mut self, exit_report: ExitReport, effects: &mut Effects) {
        #[cfg(feature = "tracing")]
        effects.ended.push(exit_report.pid);
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
            self.completer.give_output(wrote);
        }
        self.completer.complete(outcome, &mut effects.wakes);
    }

    /// Gives up the process and completes its task with what is known.
    pub(super) fn abandon(&mut self, wakes: &mut Wakes) {
        let Some((pid, _)) = self.supervisor.abandon() else { return };
        let kind = TaskErrorKind::Lost { message: CLOSED.to_owned() };
        let outcome = self.outcome.take().unwrap_or_else(|| Err(self.error(kind, 1, pid)));
        let _ = self.end.set(None);
        self.completer.complete(outcome, wakes);
    }

    /// Returns the error of a process that ended without a result.
    fn failure(&mut self, mut report: ExitReport) -> TaskError {
        let has_begun = report.had_begun();
        let is_signal = report.exit.is_ok_and(|exit| exit.signal().is_some());
        let by_kernel = is_killed_for_memory(&report, &mut self.oom_kills, &*self.launcher);
        let kind = match &report.reason {
            Some(reason) if self.is_late || (report.killed && report.was == Phase::Starting) => {
                could_not_start(reason)
            }
            _ if !report.killed && !has_begun && !is_signal => {
                could_not_start(&why_not_started("it", &report))
            }
            _ => match cause_of_death(&mut report, by_kernel, self.memory_limit) {
                TaskErrorKind::Crash { exit, cause: None } if !has_begun => {
                    TaskErrorKind::Crash { exit, cause: Some("killed while starting".into()) }
                }
                kind => kind,
            },
        };
        self.error(kind, u32::from(has_begun), report.pid)
    }

    fn error(&self, kind: TaskErrorKind, attempts: u32, pid: u32) -> TaskError {
        let place = TaskLocation { index: None, attempts, worker: Some((WorkerId::ALONE, pid)) };
        TaskError::new(self.function, kind, place).in_pool(Some(&self.name)).with_output(self.wrote.clone())
    }
}

fn could_not_start(reason: &str) -> TaskErrorKind {
    TaskErrorKind::Lost { message: format!("the process could not be started: {reason}") }
}
