//! Gives frames meaning. Knows no socket: it makes and reads bytes. The layout is written down in `docs/protocol.md`.

mod batch;
mod boundary;
mod handshake;
mod reply;
#[cfg(feature = "tracing")]
mod trace;

#[cfg(test)]
pub(crate) use batch::put_record;
pub(crate) use batch::{RECORD_HEAD_BYTES, Records, Wire, record_head};
pub(crate) use boundary::{Mark, encode_mark, find_mark};
pub(crate) use handshake::{
    FORK_REQUEST, Folder, Hello, Outcome, PREAMBLE_BYTES, Preamble, Preload, Prepared, REPORT_BYTES, Ready,
    Refused, Report, Setup, Sink, Station, VERSION,
};
pub(crate) use reply::{
    Levels, LogRecord, Malformed, Note, Orders, Record, Reply, ReplyFrame, ReplyWire, Results, RunHead,
    RunTask, RunTasks, ToWorker, encode_panic, encode_progress, encode_reply,
};
#[cfg(feature = "tracing")]
pub(crate) use trace::{FieldValue, Parent, Place, Said, TraceRecord};
