//! Gives frames meaning. Knows no socket: it makes and reads bytes. The layout is written down in `docs/protocol.md`.

mod handshake;
mod message;

pub(crate) use handshake::{
    FORK_REQUEST, Hello, Outcome, PREAMBLE_BYTES, Preamble, Preload, Prepared, REPORT_BYTES, Ready, Refused,
    Report, Setup, VERSION,
};
pub(crate) use message::{
    Batch, LogRecord, Malformed, Reply, RunBuilder, RunTask, ToWorker, add_to_batch, begin_batch,
    encode_done, encode_panic, encode_reply,
};
