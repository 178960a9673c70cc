//! Every transition of a supervisor, and every death of a worker in every phase, on the test's own time.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use super::{
    event::{ExitReport, Phase, WorkerEvent},
    ledger::InFlightTasks,
    state::Supervisor,
};
use crate::{
    error::{Exit, TaskErrorKind},
    id::{FunctionId, WorkerId},
    launch::{
        LaunchError, LaunchRequest, Output, Outputs, WorkerProcess,
        fake::{FakeLauncher, FakeWorker, Outcome, Told},
    },
    protocol::{
        EncodedTasks, Hello, Note, Notice, Record, Refused, RunFlags, VERSION, WorkerSetup, put_record,
    },
    registry,
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

fn message(record: Record) -> String {
    match record {
        Record::Log(record) => record.message,
        #[cfg(feature = "tracing")]
        Record::Trace(_) => unreachable!("these workers log"),
    }
}

/// A supervisor and its worker.
struct Pair {
    supervisor: Supervisor<Load>,
    launcher: FakeLauncher,
    outputs: Outputs,
    now: Instant,
    next: u64,
    /// What the worker has reported.
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
        let hello = Hello {
            version: VERSION,
            build_id: registry::build_id(),
            worker: 0,
            station: WorkerSetup::default(),
            log_level: 0,
        };
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

/// What a worker is doing when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Starting,
    Greeting,
    Idle,
    Waiting,
    Running,
    Stopping,
    Replied,
    Draining,
}

/// How it dies.
#[derive(Clone, Copy, Debug)]
enum How {
    Code,
    Signal,
    Unknown,
    /// It closes its connection and does not end.
    Disconnects,
    /// It sends what no worker of ours sends.
    Garbage,
    /// The host kills it.
    Killed,
    /// The host kills it, and the system refuses that.
    Unkillable,
}

fn die(when: When, how: How) -> (Pair, ExitReport<Load>) {
    let mut pair = Pair::new();
    assert!(pair.launch().expect("the launcher is ready") && pair.supervisor.is_starting());
    let worker = pair.worker();
    if when != When::Starting {
        worker.ready();
    }
    if !matches!(when, When::Starting | When::Greeting) {
        pair.read();
        assert!(pair.supervisor.is_idle());
        if when == When::Draining {
            pair.supervisor.drain(pair.now);
            assert!(worker.is_left() && !pair.supervisor.is_live());
        } else if when != When::Idle {
            pair.run(3);
            if when != When::Waiting {
                assert_eq!(worker.begin().map(|task| task.number), Some(0));
            }
            match when {
                When::Replied => worker.finish(MILLI),
                When::Stopping => {
                    let rest = pair.supervisor.take_back();
                    assert_eq!(numbers(&rest), [1, 2]);
                    pair.supervisor.stop(TaskErrorKind::Timeout { limit: SECOND }, pair.now);
                    assert!(worker.is_told_to_end());
                }
                _ => {}
            }
        }
    }
    match how {
        How::Code => worker.end(Exit::from_code(3)),
        How::Signal => worker.end(Exit::from_signal(11)),
        How::Unknown => worker.end_as(Err("it was collected")),
        How::Disconnects => worker.disconnect(),
        How::Garbage => worker.send(b"\xffgarbage"),
        How::Killed => pair.supervisor.kill(),
        How::Unkillable => {
            worker.refuse_signals();
            pair.supervisor.kill();
        }
    }
    pair.read();
    pair.until_ended();
    let report = pair.reap();
    (pair, report)
}

#[test]
fn every_death_in_every_phase_is_reported_with_what_became_of_each_task() {
    use When::{Draining, Greeting, Idle, Replied, Running, Starting, Stopping, Waiting};
    let phases = [Starting, Greeting, Idle, Waiting, Running, Stopping, Replied, Draining];
    let deaths =
        [How::Code, How::Signal, How::Unknown, How::Disconnects, How::Garbage, How::Killed, How::Unkillable];
    for (when, how) in phases.into_iter().flat_map(|when| deaths.map(|how| (when, how))) {
        let (pair, report) = die(when, how);
        let case = format!("{when:?}, {how:?}");
        let was = match when {
            Starting => Phase::Starting,
            Draining => Phase::Draining,
            _ => Phase::Serving,
        };
        assert_eq!(report.was, was, "{case}");
        match how {
            How::Code => assert_eq!(report.exit.unwrap().code(), Some(3), "{case}"),
            How::Signal => assert_eq!(report.exit.unwrap().signal(), Some(11), "{case}"),
            // A worker that was told to leave obeys.
            How::Disconnects | How::Unkillable if when == Draining => {
                assert_eq!(report.exit.unwrap().code(), Some(0), "{case}");
            }
            How::Disconnects | How::Garbage | How::Killed => {
                assert_eq!(report.exit.unwrap().signal(), Some(9), "{case}");
            }
            How::Unknown | How::Unkillable => assert!(report.exit.is_err(), "{case}"),
        }
        let is_left = matches!(how, How::Unkillable) && when != Draining;
        assert_eq!(pair.worker().is_given_up(), is_left, "{case}");
        // A late start or end is not a kill: it counts as the worker's own end.
        if when != Stopping {
            let is_killed = matches!(how, How::Garbage | How::Killed | How::Unkillable);
            assert_eq!(report.killed, is_killed, "{case}");
        }
        let running: Vec<u64> = numbers(&report.running);
        assert_eq!(running, if matches!(when, Running | Stopping) { vec![0] } else { vec![] }, "{case}");
        let waiting = match when {
            Waiting => vec![0, 1, 2],
            Running | Replied => vec![1, 2],
            _ => vec![],
        };
        assert_eq!(numbers(&report.waiting), waiting, "{case}");
        assert!(report.unknown.is_empty(), "{case}");
        assert_eq!(report.stopped.is_some(), when == Stopping, "{case}");
        assert_eq!(report.was_useful, when == Replied, "{case}");
        assert_eq!(pair.seen.contains(&"done 0".to_owned()), when == Replied, "{case}");
        if let How::Garbage = how {
            let reason = report.reason.expect("the reason of the kill");
            assert!(reason.contains("an invalid message"), "{case}: {reason}");
        }
    }
}

#[test]
fn a_start_ends_with_the_handshake_or_at_its_deadline() {
    let mut pair = Pair::new();
    pair.launcher
        .lock()
        .outcomes
        .extend([Outcome::NotYet, Outcome::Fails(LaunchError::Refused("no".to_owned()))]);
    assert!(!pair.launch().unwrap(), "the launcher is not ready");
    assert!(pair.supervisor.is_vacant());
    assert_eq!(pair.launch(), Err(LaunchError::Refused("no".to_owned())));
    assert!(pair.supervisor.is_vacant());
    assert!(pair.launch().unwrap());
    assert_eq!(pair.supervisor.deadline(), Some(pair.now + SECOND));
    pair.supervisor.on_deadline(pair.now);
    assert!(pair.supervisor.is_starting());
    pair.now += SECOND;
    pair.supervisor.on_deadline(pair.now);
    assert_eq!(pair.worker().told(), [Told::Kill]);
    pair.worker().obey();
    let report = pair.reap();
    assert_eq!(
        (report.was, report.reason.as_deref()),
        (Phase::Starting, Some("it did not complete the handshake in time"))
    );
}

#[test]
fn a_worker_of_another_build_is_not_accepted() {
    let mut pair = Pair::new();
    pair.launch().unwrap();
    let ready = crate::protocol::Ready { version: VERSION, build_id: 1, pid: 7 };
    pair.worker().send(&Notice::Ready(ready).encode());
    pair.read();
    pair.until_ended();
    let report = pair.reap();
    assert!(report.reason.unwrap().contains("it is build 0000000000000001"));
    assert!(pair.seen.is_empty());
}

#[test]
fn an_event_of_an_earlier_process_is_recognized() {
    let mut pair = Pair::new();
    pair.launch().unwrap();
    pair.worker().end(Exit::from_code(0));
    let keys = pair.worker().events();
    assert!(keys.iter().all(|key| pair.supervisor.owns(*key)));
    drop(pair.reap());
    assert!(keys.iter().all(|key| !pair.supervisor.owns(*key)));
    pair.launch().unwrap();
    assert!(keys.iter().all(|key| !pair.supervisor.owns(*key)));
}

#[test]
fn tasks_that_were_taken_back_are_not_begun_and_the_others_are_answered_in_order() {
    let mut pair = Pair::new();
    pair.launch().unwrap();
    pair.worker().ready();
    pair.read();
    pair.run(2);
    pair.run(3);
    let worker = pair.worker();
    worker.begin().unwrap();
    worker.finish(MILLI);
    worker.begin().unwrap();
    assert_eq!(numbers(&pair.supervisor.take_back()), [2, 3, 4]);
    assert_eq!(pair.supervisor.given(), 2);
    assert_eq!(numbers(pair.supervisor.in_flight()), [0, 1]);
    worker.finish(MILLI);
    assert!(worker.begin().is_none());
    pair.run(1);
    worker.begin().unwrap();
    worker.fail();
    pair.read();
    assert_eq!(pair.seen, ["started", "done 0", "done 1", "failed 5"]);
    assert!(pair.supervisor.is_idle());
}

#[test]
fn what_a_task_writes_is_told_before_its_outcome() {
    let mut pair = Pair::new();
    pair.outputs = Outputs { stdout: Output::Capture, ..Outputs::default() };
    pair.launch().expect("the launcher is ready");
    pair.worker().ready();
    pair.read();
    pair.run(4);
    let worker = pair.worker();
    worker.begin();
    worker.write("one");
    worker.finish(MILLI);
    worker.begin();
    worker.finish(MILLI);
    worker.begin();
    worker.write("three");
    worker.finish_large(vec![7; 100_000]);
    pair.read();
    let expected = ["started", "wrote \"one\"", "done 0", "done 1", "wrote \"three\"", "done 2"];
    assert_eq!(pair.seen, expected);
    worker.begin();
    worker.write("last");
    pair.supervisor.read_output(|_, _| panic!("nothing is forwarded line by line"));
    worker.end(Exit::from_signal(11));
    pair.read();
    pair.supervisor.read_last_output(|_, _| panic!("nothing is forwarded line by line"));
    let report = pair.reap();
    assert_eq!(report.output.expect("what it wrote").stdout(), "last");
    assert_eq!(numbers(&report.running), [3]);
}

#[test]
fn lines_that_are_forwarded_come_before_the_outcome_of_their_task() {
    log::set_max_level(log::LevelFilter::Info);
    let mut pair = Pair::new();
    pair.outputs = Outputs { stdout: Output::Log, ..Outputs::default() };
    pair.launch().expect("the launcher is ready");
    pair.worker().ready();
    pair.read();
    pair.run(3);
    let worker = pair.worker();
    worker.begin();
    worker.write("one\ntwo\nth");
    let mut lines = Vec::new();
    let mut line = |record: Record, load: Option<&Load>| {
        assert_eq!((record.task(), load.map(|load| load.first)), (Some(0), Some(0)));
        lines.push(message(record));
    };
    pair.supervisor.read_output(&mut line);
    assert_eq!(lines, ["one", "two"]);
    worker.write("ree");
    worker.finish(MILLI);
    // The rest of the line is said, and the outcome is left for the next round.
    pair.read();
    assert_eq!(pair.seen, ["started", "said"]);
    pair.read();
    assert_eq!(pair.seen[2..], ["wrote \"one\\ntwo\\nthree\"", "done 0"]);
    worker.begin();
    worker.write("large");
    worker.finish_large(vec![7; 100_000]);
    pair.read();
    pair.read();
    assert_eq!(pair.seen[4..], ["said", "wrote \"large\"", "done 1"]);
    worker.begin();
    worker.write("end");
    worker.end(Exit::from_code(3));
    pair.read();
    let mut last = Vec::new();
    pair.supervisor.read_last_output(|record, _| last.push(message(record)));
    assert_eq!(last, ["end"]);
    assert_eq!(numbers(&pair.reap().running), [2]);
}

#[test]
fn records_progress_and_notes_are_reported_as_they_come() {
    let mut pair = Pair::new();
    pair.launch().expect("the launcher is ready");
    pair.worker().ready();
    pair.read();
    pair.run(1);
    let worker = pair.worker();
    worker.begin();
    worker.log("half");
    worker.progress(0.5);
    worker.send(&Notice::Note(Note::Begun { nanos: 7 }).encode());
    pair.read();
    worker.finish_large(vec![7; 100_000]);
    pair.read();
    assert_eq!(pair.seen, ["started", "said", "progress 0", "noted", "done 0"]);
    assert!(!pair.supervisor.is_streaming() && !pair.supervisor.has_arrivals());
    worker
        .send(&Notice::Refused(Refused { reason: "the host is gone".to_owned(), is_short: false }).encode());
    worker.end(Exit::from_code(1));
    pair.read();
    assert_eq!(pair.reap().reason.as_deref(), Some("the host is gone"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_task_that_was_sent_is_answered_taken_back_or_reported_once(
        events in vec((0u8..7, 1u32..6), 0..60),
        has_board: bool,
    ) {
        let mut pair = Pair::new();
        pair.launcher.lock().without_board = !has_board;
        pair.launch().unwrap();
        pair.worker().ready();
        pair.read();
        let worker = pair.worker();
        let mut settled: Vec<u64> = Vec::new();
        let mut is_gone = false;
        for (event, n) in events {
            match event {
                0 if !pair.supervisor.is_live() || pair.supervisor.is_stopping() => {}
                0 if has_board || pair.supervisor.is_idle() => pair.run(if has_board { n } else { 1 }),
                1 if worker.running().is_none() => drop(worker.begin()),
                2 if worker.running().is_some() && !is_gone => worker.finish(MILLI),
                3 => settled.extend(numbers(&pair.supervisor.take_back())),
                4 => pair.read(),
                5 if n == 5 && pair.supervisor.has_begun() => {
                    settled.extend(numbers(&pair.supervisor.take_back()));
                    pair.supervisor.stop(TaskErrorKind::Cancelled { why: "" }, pair.now);
                }
                6 if n == 5 => {
                    is_gone = true;
                    worker.disconnect();
                }
                _ => {}
            }
        }
        worker.end(Exit::from_signal(11));
        let report = pair.reap();
        let reported = report.running.iter().chain(&report.waiting).chain(&report.unknown);
        settled.extend(numbers(reported));
        let answers = pair.seen.iter().filter_map(|event| event.rsplit_once(' '));
        settled.extend(answers.map(|(_, number)| number.parse::<u64>().unwrap()));
        settled.sort_unstable();
        prop_assert_eq!(settled, (0..pair.next).collect::<Vec<_>>());
        prop_assert_eq!(report.unknown.is_empty() || !has_board, true);
        prop_assert!(worker.pid() >= 1000 && worker.is_reaped());
    }
}
