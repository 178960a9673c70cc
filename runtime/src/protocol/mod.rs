//! Gives frames meaning. Knows no socket: it makes and reads bytes. The layout is written down in `docs/protocol.md`.

mod boundary;
mod handshake;
mod message;
mod records;
#[cfg(feature = "tracing")]
mod trace;

pub(crate) use boundary::{Mark, encode_mark, find_mark};
pub(crate) use handshake::{
    FORK_REQUEST, Folder, Hello, Outcome, PREAMBLE_BYTES, Preamble, Preload, Prepared, REPORT_BYTES, Ready,
    Refused, Report, Setup, Sink, Station, VERSION,
};
pub(crate) use message::{
    Levels, LogRecord, Malformed, Note, Orders, Record, Reply, ReplyFrame, ReplyWire, Results, RunHead,
    RunTask, RunTasks, ToWorker, encode_panic, encode_progress, encode_reply,
};
#[cfg(test)]
pub(crate) use records::put_record;
pub(crate) use records::{RECORD_HEAD_BYTES, Records, Wire, record_head};
#[cfg(feature = "tracing")]
pub(crate) use trace::{FieldValue, Parent, Place, Said, TraceRecord};
