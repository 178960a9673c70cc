//! The rare messages from worker to host: records, notes, panics and progress. Also encodes the worker's part of the handshake.

use serde::{Deserialize, Serialize};

#[cfg(feature = "tracing")]
use super::encoding::TRACE;
#[cfg(feature = "tracing")]
use super::trace::Said;
use super::{
    encoding::{LOG, NOTE, PANIC, PROGRESS, READY, REFUSED, tagged},
    handshake::{Ready, Refused},
};
use crate::{codec, panic::RemotePanic};

/// What a worker reports about time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The measurement of some tasks: the nanoseconds that decoding and encoding took.
    Sample { tasks: u64, encoding: u64, peak_rss_bytes: u64 },
    /// The tasks whose replies follow began at this time of the monotonic clock, and ran one after the other.
    Begun { nanos: u64 },
    /// The last `tasks` tasks whose replies reported no time took `nanos`, because the tasks that were to be timed with them were
    /// taken back. `task` was the last of them.
    Late { nanos: u64, tasks: u32, task: u64, function: u32 },
}

/// What functions say in addition to their results.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Log(LogRecord),
    #[cfg(feature = "tracing")]
    Trace(Said),
}

impl Record {
    /// Returns the task that made the record, if one did.
    pub(crate) fn task(&self) -> Option<u64> {
        match self {
            Self::Log(record) => record.task,
            #[cfg(feature = "tracing")]
            Self::Trace(said) => said.task,
        }
    }
}

/// A record of the `log` facade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    /// Numbered like `log::Level`.
    pub(crate) level: u8,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// The task that made the record, if one did.
    pub(crate) task: Option<u64>,
    pub(crate) fields: Vec<(String, String)>,
}

/// The messages that are encoded with postcard.
pub(crate) enum Plain<'a> {
    Ready(&'a Ready),
    Refused(&'a Refused),
    Log(&'a LogRecord),
    #[cfg(feature = "tracing")]
    Trace(&'a Said),
    Note(&'a Note),
}

/// Encodes a panic when it begins.
pub(crate) fn encode_panic(seq: u32, panic: &RemotePanic) -> Vec<u8> {
    let mut bytes = vec![PANIC];
    bytes.extend_from_slice(&seq.to_le_bytes());
    codec::encode(panic, &mut bytes).expect("our own messages are plain structs, which always encode");
    bytes
}

/// Encodes the progress of a task.
pub(crate) fn encode_progress(seq: u32, fraction: f64) -> [u8; 13] {
    let mut bytes = [PROGRESS; 13];
    bytes[1..5].copy_from_slice(&seq.to_le_bytes());
    bytes[5..].copy_from_slice(&fraction.to_le_bytes());
    bytes
}

/// Encodes one of the rare replies.
pub(crate) fn encode_reply<'a>(reply: impl Into<Plain<'a>>) -> Vec<u8> {
    match reply.into() {
        Plain::Ready(ready) => tagged(READY, ready),
        Plain::Refused(refused) => tagged(REFUSED, refused),
        Plain::Log(record) => tagged(LOG, record),
        Plain::Note(note) => tagged(NOTE, note),
        #[cfg(feature = "tracing")]
        Plain::Trace(said) => tagged(TRACE, said),
    }
}

impl<'a> From<&'a Ready> for Plain<'a> {
    fn from(ready: &'a Ready) -> Self {
        Self::Ready(ready)
    }
}

impl<'a> From<&'a Refused> for Plain<'a> {
    fn from(refused: &'a Refused) -> Self {
        Self::Refused(refused)
    }
}

impl<'a> From<&'a LogRecord> for Plain<'a> {
    fn from(record: &'a LogRecord) -> Self {
        Self::Log(record)
    }
}

#[cfg(feature = "tracing")]
impl<'a> From<&'a Said> for Plain<'a> {
    fn from(said: &'a Said) -> Self {
        Self::Trace(said)
    }
}

impl<'a> From<&'a Note> for Plain<'a> {
    fn from(note: &'a Note) -> Self {
        Self::Note(note)
    }
}
