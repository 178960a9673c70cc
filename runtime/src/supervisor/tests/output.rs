//! The output and the records of a worker, and the time at which they are reported.

use super::{MILLI, Pair, numbers};
use crate::{
    batch::Batch,
    error::Exit,
    launch::{Output, Outputs},
    protocol::{Note, Notice, Record, Refused},
};

fn message(record: Record) -> String {
    match record {
        Record::Log(record) => record.message,
        #[cfg(feature = "tracing")]
        Record::Trace(_) => unreachable!("these workers log"),
    }
}

#[test]
fn output_of_a_task_is_reported_before_its_outcome() {
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
    let mut line = |record: Record, batch: Option<&Batch>| {
        assert_eq!((record.task(), batch.map(|batch| batch.first)), (Some(0), Some(0)));
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
