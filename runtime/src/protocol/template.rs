//! Messages between a host and its template.

use serde::{Deserialize, Serialize};

use super::handshake::Folder;
use crate::codec::{self, Encoded};

/// What a template is to do before it forks workers. It lies in the file that comes with the preamble.
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

    /// # Errors
    ///
    /// They are no setup of this version, in words for people.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        codec::decode(bytes)
    }
}

/// The task that a template runs, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preload {
    /// The function's place in the table.
    pub(crate) function: u32,
    pub(crate) args: Vec<u8>,
    /// The folder to work in.
    pub(crate) folder: Option<Folder>,
    /// What kind of result it has.
    pub(crate) outcome: Outcome,
}

/// What the encoded result of a preload says of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Nothing: it is no `Result`.
    Value,
    /// It is a `Result`, whose error begins with its words.
    Words,
    /// It is a `Result`.
    Result,
}

impl Outcome {
    /// An `Err` is a failure, too: what is missing now will be missing in every worker.
    ///
    /// # Errors
    ///
    /// In words for people, of `what` and its function's name.
    pub(crate) fn check(self, what: &str, name: &str, result: &Encoded<'_>) -> Result<(), String> {
        let result = match result {
            Encoded::Short(bytes) => bytes,
            Encoded::Large(head, body) => {
                if head.is_empty() {
                    &body[..]
                } else {
                    &head[..]
                }
            }
        };
        // The first byte of an encoded `Result`: 0 is `Ok`.
        match (self, result.split_first()) {
            (Self::Value, _) | (_, None | Some((0, _))) => Ok(()),
            (Self::Words, Some((_, error))) => match postcard::take_from_bytes::<&str>(error) {
                Ok((words, _)) => Err(format!("the {what} `{name}` returned an error: {words}")),
                Err(_) => Err(format!("the {what} `{name}` returned an error")),
            },
            (Self::Result, _) => Err(format!("the {what} `{name}` returned an error")),
        }
    }
}

/// What a template says once it is ready for requests, or why it never will be: after its length, as four bytes.
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

    /// What these bytes say, if they are all there already.
    ///
    /// # Errors
    ///
    /// They are no such message, in words for people.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some((len, rest)) = bytes.split_first_chunk::<PREPARED_PREFIX_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        rest.get(..len).map(codec::decode).transpose()
    }
}

/// What asks a template for a worker; with it come the worker's connection and the socket on which its life is told of.
pub(crate) const FORK_REQUEST: u8 = b'f';

/// What a template says of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It was forked and has this id; with it comes a pidfd.
    Forked(u32),
    /// It could not be forked, for this reason (an errno).
    NotForked(i32),
    /// It has ended with this code.
    Exited(i32),
    /// It was ended by this signal.
    Signaled(i32),
    /// It has ended, and somebody else collected it.
    Vanished,
    /// It has ended, and the system does not say how.
    Untold,
}

/// A tag and a number.
pub(crate) const REPORT_BYTES: usize = 8;

impl Report {
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

    /// The report, if these bytes are one.
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
