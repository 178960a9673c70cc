//! Every transition of a supervisor, and every death of a worker in every phase, on the test's own time.

mod death;
mod output;
mod recall;
mod transitions;
mod turns;

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    event::{ExitReport, WorkerEvent},
    state::Supervisor,
};
use crate::{
    batch::InFlightTasks,
    id::{FunctionId, WorkerId},
    launch::{
        LaunchError, LaunchRequest, Outputs,
        fake::{FakeLauncher, FakeWorker},
    },
    protocol::{EncodedTasks, Hello, RunFlags, WorkerSetup, put_record},
};

const SECOND: Duration = Duration::from_secs(1);

const MILLI: Duration = Duration::from_millis(1);

/// Consecutive tasks.
struct Load {
    first: u64,
    records: EncodedTasks,
}

impl InFlightTasks for Load {
    fn len(&self) -> u32 {
        self.records.len()
    }

    fn first_task(&self) -> u64 {
        self.first
    }

    fn records(&mut self) -> &mut EncodedTasks {
        &mut self.records
    }

    fn done(&mut self, n: u32) {
        self.records.advance(n);
        self.first += u64::from(n);
    }

    fn take_first(&mut self, n: u32) -> Self {
        let first = Self { first: self.first, records: self.records.take_first(n) };
        self.first += u64::from(n);
        first
    }

    fn function_after(&self, _n: u32) -> &'static str {
        "f"
    }
}

fn numbers<'a>(loads: impl IntoIterator<Item = &'a Load>) -> Vec<u64> {
    loads.into_iter().flat_map(|load| load.first..load.first + u64::from(load.len())).collect()
}

/// A supervisor and its worker.
struct Pair {
    supervisor: Supervisor<Load>,
    launcher: FakeLauncher,
    outputs: Outputs,
    now: Instant,
    next: u64,
    /// The reports of the worker.
    seen: Vec<String>,
}

impl Pair {
    fn new() -> Self {
        let supervisor = Supervisor::new(WorkerId(0));
        let now = Instant::now();
        Self {
            supervisor,
            launcher: FakeLauncher::default(),
            outputs: Outputs::default(),
            now,
            next: 0,
            seen: Vec::new(),
        }
    }

    fn launch(&mut self) -> Result<bool, LaunchError> {
        let hello = Hello::new(WorkerId(0), WorkerSetup::default(), 0);
        let request = LaunchRequest { env: &[], outputs: self.outputs, key: 0 };
        self.supervisor.launch(&self.launcher, &request, &hello, self.now, self.now + SECOND)
    }

    fn worker(&self) -> FakeWorker {
        self.launcher.lock().workers.last().expect("it was started").clone()
    }

    fn run(&mut self, tasks: u32) {
        let mut bytes = Vec::new();
        (0..tasks).for_each(|_| put_record(FunctionId(0), &[], &mut bytes));
        let load = Load { first: self.next, records: EncodedTasks::from_bytes(bytes) };
        self.next += u64::from(tasks);
        self.supervisor.run(load, RunFlags::default());
        self.supervisor.ring(self.now);
    }

    /// Reads all that the worker has sent.
    fn read(&mut self) {
        let seen = &mut self.seen;
        let on = |event: WorkerEvent<'_, Load>| {
            match event {
                WorkerEvent::Started => seen.push("started".to_owned()),
                WorkerEvent::Done { load, results } => {
                    (0..results.len()).for_each(|n| seen.push(format!("done {}", load.first + u64::from(n))));
                }
                WorkerEvent::DoneOne { load, .. } => seen.push(format!("done {}", load.first)),
                WorkerEvent::Failed { load, .. } => seen.push(format!("failed {}", load.first)),
                WorkerEvent::Stopped { load, .. } => seen.push(format!("stopped {}", load.first)),
                WorkerEvent::Progress { load, .. } => seen.push(format!("progress {}", load.first)),
                WorkerEvent::Said(..) => seen.push("said".to_owned()),
                WorkerEvent::Wrote(output) => seen.push(format!("wrote {:?}", output.stdout())),
                WorkerEvent::Noted(_) => seen.push("noted".to_owned()),
                WorkerEvent::Recalled(loads) => {
                    seen.extend(numbers(&loads).iter().map(|number| format!("recalled {number}")));
                }
            }
            ControlFlow::Continue(())
        };
        let paused = self.supervisor.read(true, self.now, on);
        assert!(!paused);
    }

    /// Lets time pass, until the worker that is told to end has ended.
    fn until_ended(&mut self) {
        for _ in 0..20 {
            self.worker().obey();
            if self.worker().has_ended() || self.supervisor.is_given_up() {
                return;
            }
            let due = self.supervisor.deadline().into_iter().chain(self.supervisor.stop_due()).min();
            self.now = due.expect("something is due until the process has ended");
            self.supervisor.on_deadline(self.now);
            if self.supervisor.stop_due().is_some_and(|due| due <= self.now) {
                self.supervisor.stop_further(self.now);
            }
            self.read();
        }
        panic!("the process is not ended");
    }

    fn reap(&mut self) -> ExitReport<Load> {
        self.read();
        let report = self.supervisor.reap(self.now).expect("the process has ended");
        assert!(self.supervisor.is_vacant());
        assert_eq!(self.supervisor.deadline(), None);
        report
    }
}
