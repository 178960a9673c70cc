//! What host and worker say before the first task.
//!
//! The preamble travels with the board's descriptor, before any frame: it proves that the inherited descriptor is the host's. Then
//! the host says [`Hello`], and the worker answers [`Ready`] or [`Refused`].

use serde::{Deserialize, Serialize};

use crate::codec::{self, Encoded};

/// Changes whenever a byte of the protocol does.
pub(crate) const VERSION: u32 = 5;

/// The token that the marker in the worker's environment repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) token: u64,
    /// The memory that comes with it holds rings.
    pub(crate) rings: bool,
    /// Where stdout and stderr go.
    pub(crate) sinks: [Sink; 2],
}

/// Where one of a worker's streams goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Where it went from the start.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// To the host, by a pipe that comes with the preamble.
    Host,
}

impl Sink {
    const ALL: [Self; 3] = [Self::Inherit, Self::Null, Self::Host];

    fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|sink| *sink as u32 == bits)
    }
}

/// A magic number, the version, the token, what there is.
pub(crate) const PREAMBLE_BYTES: usize = 20;
const RINGS: u32 = 1;
const STDOUT_SHIFT: u32 = 1;
const STDERR_SHIFT: u32 = 3;
const SINK_MASK: u32 = 0b11;
const MAGIC: u32 = u32::from_le_bytes(*b"prcs");

impl Preamble {
    pub(crate) fn to_bytes(self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.token.to_le_bytes());
        let [stdout, stderr] = self.sinks.map(|sink| sink as u32);
        let there_is = u32::from(self.rings) | stdout << STDOUT_SHIFT | stderr << STDERR_SHIFT;
        bytes[16..].copy_from_slice(&there_is.to_le_bytes());
        bytes
    }

    /// The preamble, if these bytes are one of this version.
    pub(crate) fn from_bytes(bytes: [u8; PREAMBLE_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (version, token) = rest.split_first_chunk::<4>()?;
        let (token, rings) = token.split_first_chunk::<8>()?;
        let token = u64::from_le_bytes(*token);
        let there_is = u32::from_le_bytes(*rings.first_chunk()?);
        let sinks = [
            Sink::from_bits(there_is >> STDOUT_SHIFT & SINK_MASK)?,
            Sink::from_bits(there_is >> STDERR_SHIFT & SINK_MASK)?,
        ];
        (u32::from_le_bytes(*magic) == MAGIC && u32::from_le_bytes(*version) == VERSION).then_some(Self {
            token,
            rings: there_is & RINGS != 0,
            sinks,
        })
    }
}

/// The host's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    /// The worker's place in its pool.
    pub(crate) worker: u32,
    pub(crate) station: Station,
    /// The most verbose level of records that the host wants, as `log::LevelFilter` counts them.
    pub(crate) log_level: u8,
}

/// What a worker makes of itself before it is ready: each is done in the new process, once it is the worker's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Station {
    /// The folder to work in; none: the one that it begins in.
    pub(crate) folder: Option<Folder>,
    /// To be added to its niceness.
    pub(crate) nice: Option<i32>,
    /// The CPU to run on, and on no other.
    pub(crate) cpu: Option<u32>,
    /// The process's name; none: the program's.
    pub(crate) title: Option<Vec<u8>>,
    /// How many bytes of memory it may have on top of what it begins with.
    pub(crate) memory: Option<u64>,
}

/// A folder to work in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// The bytes of its path.
    pub(crate) path: Vec<u8>,
    /// Its device and inode, if it need not be entered by its path where the process is in it already.
    pub(crate) id: Option<(u64, u64)>,
}

/// The worker is ready for tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    pub(crate) pid: u32,
}

/// The worker will not serve, for this reason, and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    /// The system is short of something, of which it may have more later.
    pub(crate) is_short: bool,
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self { reason, is_short: false }
    }
}

impl From<&str> for Refused {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_says_is_understood_once_it_is_whole() {
        let said = Prepared::Failed("out of corn".to_owned());
        let bytes = said.to_bytes();
        for n in 0..bytes.len() {
            assert_eq!(Prepared::from_bytes(&bytes[..n]), Ok(None), "{n}");
        }
        assert_eq!(Prepared::from_bytes(&bytes), Ok(Some(said)));
        assert!(Prepared::from_bytes(&[1, 0, 0, 0, 99]).is_err());
    }

    #[test]
    fn a_preamble_comes_back_as_it_was_made() {
        for stdout in Sink::ALL {
            for stderr in Sink::ALL {
                let preamble = Preamble { token: 0xfeed, rings: stdout == stderr, sinks: [stdout, stderr] };
                assert_eq!(Preamble::from_bytes(preamble.to_bytes()), Some(preamble));
            }
        }
        assert_eq!(Preamble::from_bytes([0; PREAMBLE_BYTES]), None);
    }

    #[test]
    fn a_report_comes_back_as_it_was_made() {
        for report in [
            Report::Forked(u32::MAX),
            Report::NotForked(11),
            Report::Exited(-1),
            Report::Signaled(9),
            Report::Vanished,
            Report::Untold,
        ] {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes([0; REPORT_BYTES]), None);
    }
}
