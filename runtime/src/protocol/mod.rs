//! Gives frames meaning. Knows no socket: it makes and reads bytes. The layout is written down in `docs/protocol.md`.

mod frame;
mod handshake;
mod message;
mod records;

pub(crate) use frame::{Frames, MOST_HEAD_BYTES, PREFIX_BYTES, Prefix};
pub(crate) use handshake::{
    FORK_REQUEST, Hello, Outcome, PREAMBLE_BYTES, Preamble, Preload, Prepared, REPORT_BYTES, Ready, Refused,
    Report, Setup, VERSION,
};
pub(crate) use message::{
    DONE_HEAD_BYTES, LogRecord, Malformed, Reply, Results, RunHead, RunTask, RunTasks, ToWorker, encode_done,
    encode_panic, encode_reply, set_nanos,
};
#[cfg(test)]
pub(crate) use records::put_record;
pub(crate) use records::{Records, Wire, record_head};
