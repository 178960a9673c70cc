//! Gives frames their meaning: the messages between host and worker, and between host and template.
//!
//! Both sides use it. It makes and reads bytes, never touches a socket, and trusts nothing that it reads. `docs/protocol.md`
//! describes the layout.

mod batch;
mod boundary;
mod encoding;
mod handshake;
mod notice;
mod preamble;
mod reply;
mod request;
mod results;
mod template;
#[cfg(feature = "tracing")]
mod trace;

#[cfg(test)]
pub(crate) use batch::put_record;
pub(crate) use batch::{EncodedTasks, RECORD_HEAD_BYTES, Wire, record_head};
pub(crate) use boundary::{Boundary, encode_boundary, find_boundary};
pub(crate) use encoding::Malformed;
pub(crate) use handshake::{Folder, Hello, Ready, Refused, VERSION, WorkerSetup};
pub(crate) use notice::{LogRecord, Note, Notice, Record};
pub(crate) use preamble::{PREAMBLE_BYTES, Preamble, StreamTarget};
pub(crate) use reply::{Reply, ReplyFrame, ReplyWire};
pub(crate) use request::{Levels, RunFlags, RunHead, RunTask, RunTasks, ToWorker, encode_forget};
pub(crate) use results::Results;
pub(crate) use template::{FORK_REQUEST, Preload, Prepared, REPORT_BYTES, ReturnKind, Setup, TemplateReport};
#[cfg(feature = "tracing")]
pub(crate) use trace::{FieldValue, Parent, Said, SourceLocation, TraceRecord, level_number};
