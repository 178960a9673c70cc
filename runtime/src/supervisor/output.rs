//! Reads what a worker writes to its streams, and turns lines into log records.
//!
//! The streams are owned by `capture`. This part connects them with the tasks in flight.

use super::{
    capture::{Line, Transcript},
    ledger::InFlight,
    state::{Link, Supervisor},
};
use crate::{
    batch::Batch,
    launch::{Peer, Watched, output::StreamName},
    protocol::{LogRecord, Record},
};

/// Returns the record that a line becomes, if records of its level are wanted.
pub(super) fn record_of(line: Line, in_flight: &InFlight, peer: &dyn Peer) -> Option<LogRecord> {
    let level = match line.stream {
        StreamName::Stdout => log::Level::Info,
        StreamName::Stderr => log::Level::Warn,
    };
    if level > log::max_level() {
        return None;
    }
    let author = in_flight.first_after(line.after_seq, peer);
    let module = author.map(|(_, function)| module_of(function));
    Some(LogRecord {
        level: level as u8,
        target: module.unwrap_or("procession").to_owned(),
        message: line.words,
        module: module.map(str::to_owned),
        file: None,
        line: None,
        task: author.map(|(task, _)| task),
        fields: vec![("stream".to_owned(), line.stream.as_str().to_owned())],
    })
}

/// Returns the path of the module that contains a function.
fn module_of(function: &str) -> &str {
    // The types of a generic function, in angle brackets, contain paths, too.
    let path = function.split('<').next().unwrap_or_default().trim_end_matches("::");
    path.rsplit_once("::").map_or(path, |(module, _)| module)
}

impl Supervisor {
    /// Reads what the worker has written until now.
    pub(crate) fn read_output(&mut self, on: impl FnMut(Record, Option<&Batch>)) {
        self.with_transcript(on, |transcript, next_seq, watched, say| {
            transcript.read(next_seq, watched, say);
        });
    }

    /// Reads the rest of what the worker has written, after its process has ended.
    pub(crate) fn read_last_output(&mut self, on: impl FnMut(Record, Option<&Batch>)) {
        self.with_transcript(on, |transcript, next_seq, watched, say| {
            transcript.end(next_seq, watched, say);
        });
    }

    fn with_transcript(
        &mut self,
        mut on: impl FnMut(Record, Option<&Batch>),
        read: impl FnOnce(&mut Transcript, u32, &Watched, &mut dyn FnMut(Line)),
    ) {
        let Some(Link { launched, transcript: Some(transcript), ledger, in_flight, .. }) = &mut self.link
        else {
            return;
        };
        read(transcript, ledger.next_seq, &launched.watched, &mut |line| {
            if let Some(record) = record_of(line, in_flight, &*launched.peer) {
                on(Record::Log(record), in_flight.oldest());
            }
        });
    }
}
