//! Every transition of a supervisor, and every death of a worker in every phase, on the test's own time.

mod death;
mod output;
mod recall;
mod segments;
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
    batch::{Batch, QueueId, Recipient},
    codec::Encoded,
    id::{FunctionId, WorkerId},
    launch::{
        LaunchError, LaunchRequest, Outputs,
        fake::{FakeLauncher, FakeWorker},
    },
    protocol::{EncodedTasks, Hello, RunFlags, WorkerSetup, put_record},
};

const SECOND: Duration = Duration::from_secs(1);

const MILLI: Duration = Duration::from_millis(1);

/// Returns a batch of this many tasks, whose results have no recipient.
fn batch(first: u64, tasks: u32) -> Batch {
    let mut bytes = Vec::new();
    (0..tasks).for_each(|_| put_record(FunctionId(0), &[], &mut bytes));
    let (queue, records) = (QueueId::Pinned, EncodedTasks::from_bytes(bytes));
    Batch { queue, first, records, to: Recipient::Unclaimed, attempts: 1 }
}

fn numbers<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Vec<u64> {
    batches.into_iter().flat_map(|batch| batch.first..batch.first + u64::from(batch.len())).collect()
}

/// A supervisor and its worker.
struct Pair {
    supervisor: Supervisor,
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
        let batch = batch(self.next, tasks);
        self.next += u64::from(tasks);
        self.supervisor.run(batch, RunFlags::default());
        self.supervisor.ring(self.now);
    }

    /// Reads all that the worker has sent.
    fn read(&mut self) {
        let seen = &mut self.seen;
        let on = |event: WorkerEvent<'_>| {
            match event {
                WorkerEvent::Started => seen.push("started".to_owned()),
                WorkerEvent::Done { batch, results } => {
                    (0..results.len())
                        .for_each(|n| seen.push(format!("done {}", batch.first + u64::from(n))));
                }
                WorkerEvent::DoneOne { batch, result: Encoded::Attached(_), .. } => {
                    seen.push(format!("done {} with segments", batch.first));
                }
                WorkerEvent::DoneOne { batch, .. } => seen.push(format!("done {}", batch.first)),
                WorkerEvent::Failed { batch, .. } => seen.push(format!("failed {}", batch.first)),
                WorkerEvent::Stopped { batch, .. } => seen.push(format!("stopped {}", batch.first)),
                WorkerEvent::Progress { batch, .. } => seen.push(format!("progress {}", batch.first)),
                WorkerEvent::Said(..) => seen.push("said".to_owned()),
                WorkerEvent::Wrote(output) => seen.push(format!("wrote {:?}", output.stdout())),
                WorkerEvent::Noted(..) => seen.push("noted".to_owned()),
                WorkerEvent::Recalled(batches) => {
                    seen.extend(numbers(&batches).iter().map(|number| format!("recalled {number}")));
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

    fn reap(&mut self) -> ExitReport {
        self.read();
        let report = self.supervisor.reap(self.now).expect("the process has ended");
        assert!(self.supervisor.is_vacant());
        assert_eq!(self.supervisor.deadline(), None);
        report
    }
}
