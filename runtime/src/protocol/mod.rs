//! Gives frames meaning. Knows no socket: it makes and reads bytes. The layout is written down in `docs/protocol.md`.

mod handshake;
mod message;

pub(crate) use handshake::{Hello, PREAMBLE_BYTES, Preamble, Ready, Refused, VERSION};
pub(crate) use message::{
    Batch, LogRecord, Malformed, Reply, RunBuilder, RunTask, ToWorker, add_to_batch, begin_batch,
    encode_done, encode_panic, encode_reply,
};
