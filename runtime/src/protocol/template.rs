//! The messages between a host and its template: the setup, the answer to it, fork requests, and reports about workers.
//!
//! `launch` and `worker::template` use it. The bytes of both sides are checked before they are used.

use serde::{Deserialize, Serialize};

use super::handshake::Folder;
use crate::codec::{self, Encoded};

/// The setup of a template, which is done before it forks workers. It is in the file that comes with the preamble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    pub(crate) preload: Option<Preload>,
}

impl Setup {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(self, &mut bytes).expect("plain data always encodes");
        bytes
    }

    /// Decodes a setup.
    ///
    /// # Errors
    ///
    /// The bytes are not a setup of this version. The error is a message for the user.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        codec::decode(bytes)
    }
}

/// The task that a template runs once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preload {
    /// The function's index in the table.
    pub(crate) function: u32,
    pub(crate) args: Vec<u8>,
    /// The working folder.
    pub(crate) folder: Option<Folder>,
    /// The kind of its return type.
    pub(crate) returns: ReturnKind,
}

/// The kind of a function's return type, which says how its encoded result shows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReturnKind {
    /// Not a `Result`, so no result is a failure.
    Value,
    /// A `Result` whose error begins with its message.
    Text,
    /// Another `Result`.
    Result,
}

impl ReturnKind {
    /// Checks the result of a preload. An `Err` is a failure, because it would affect every worker.
    ///
    /// # Errors
    ///
    /// The result is a failure. The error is a message for the user, with `what` and the name of the function.
    pub(crate) fn check(self, what: &str, name: &str, result: &Encoded<'_>) -> Result<(), String> {
        // The first byte of an encoded `Result`. 0 is `Ok`.
        match (self, result.start().split_first()) {
            (Self::Value, _) | (_, None | Some((0, _))) => Ok(()),
            (Self::Text, Some((_, error))) => match postcard::take_from_bytes::<&str>(error) {
                Ok((words, _)) => Err(format!("the {what} `{name}` returned an error: {words}")),
                Err(_) => Err(format!("the {what} `{name}` returned an error")),
            },
            (Self::Result, _) => Err(format!("the {what} `{name}` returned an error")),
        }
    }
}

/// Reports that a template is ready for requests, or why it never will be. Encoded after its length, as four bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Prepared {
    Ready,
    Failed(String),
}

/// The length before it.
const PREPARED_PREFIX_BYTES: usize = 4;

impl Prepared {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; PREPARED_PREFIX_BYTES];
        codec::encode(self, &mut bytes).expect("plain data always encodes");
        let len = u32::try_from(bytes.len() - PREPARED_PREFIX_BYTES).expect("words are not that long");
        bytes[..PREPARED_PREFIX_BYTES].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    /// Decodes the message. Returns `None` if it is not complete yet.
    ///
    /// # Errors
    ///
    /// The bytes are not such a message. The error is a message for the user.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some((len, rest)) = bytes.split_first_chunk::<PREPARED_PREFIX_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        rest.get(..len).map(codec::decode).transpose()
    }
}

/// Asks a template for a worker. The worker's connection and the socket for its reports come with it.
pub(crate) const FORK_REQUEST: u8 = b'f';

/// A report of a template about one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TemplateReport {
    /// It was forked and has this pid. A pidfd comes with the report.
    Forked(u32),
    /// It could not be forked, for this reason (an errno).
    NotForked(i32),
    /// It has ended with this exit code.
    Exited(i32),
    /// It was ended by this signal.
    Signaled(i32),
    /// It has ended, and other code collected its exit status.
    Vanished,
    /// It has ended, and the system does not say how.
    Untold,
}

/// A tag and a number.
pub(crate) const REPORT_BYTES: usize = 8;

impl TemplateReport {
    pub(crate) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let (tag, number) = match self {
            Self::Forked(pid) => (1u32, pid),
            Self::NotForked(errno) => (2, errno.cast_unsigned()),
            Self::Exited(code) => (3, code.cast_unsigned()),
            Self::Signaled(signal) => (4, signal.cast_unsigned()),
            Self::Vanished => (5, 0),
            Self::Untold => (6, 0),
        };
        let mut bytes = [0; REPORT_BYTES];
        bytes[..4].copy_from_slice(&tag.to_le_bytes());
        bytes[4..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// Decodes a report.
    pub(crate) fn from_bytes(bytes: [u8; REPORT_BYTES]) -> Option<Self> {
        let (tag, number) = bytes.split_first_chunk::<4>()?;
        let number = u32::from_le_bytes(*number.first_chunk()?);
        Some(match u32::from_le_bytes(*tag) {
            1 => Self::Forked(number),
            2 => Self::NotForked(number.cast_signed()),
            3 => Self::Exited(number.cast_signed()),
            4 => Self::Signaled(number.cast_signed()),
            5 => Self::Vanished,
            6 => Self::Untold,
            _ => return None,
        })
    }
}
