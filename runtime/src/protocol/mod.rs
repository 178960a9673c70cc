//! Gives frames meaning. Knows no socket: it makes and reads bytes. The layout is written down in `docs/protocol.md`.

mod handshake;
mod message;

pub(crate) use handshake::{Hello, PREAMBLE_BYTES, Preamble, Ready, Refused, VERSION};
pub(crate) use message::{LogRecord, Reply, RunBuilder, RunTask, ToWorker, encode_done, encode_reply};
