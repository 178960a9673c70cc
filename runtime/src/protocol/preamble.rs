//! The preamble: the first bytes of a connection, before any frame, with which the descriptors travel.
//!
//! It shows a new process that the descriptor it inherited belongs to its host. `launch` and `worker` send and receive it.

use super::handshake::VERSION;

/// The first bytes of a connection. The marker in the worker's environment repeats the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) token: u64,
    /// The memory that comes with the preamble holds rings.
    pub(crate) rings: bool,
    /// The destinations of stdout and stderr.
    pub(crate) targets: [StreamTarget; 2],
}

/// The destination of one of a worker's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamTarget {
    /// To where it went when the process started.
    #[default]
    Inherit,
    /// To `/dev/null`.
    Null,
    /// To the host, through a pipe that comes with the preamble.
    Host,
}

impl StreamTarget {
    pub(super) const ALL: [Self; 3] = [Self::Inherit, Self::Null, Self::Host];

    fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|target| *target as u32 == bits)
    }
}

/// A magic number, the version, the token, and flags.
pub(crate) const PREAMBLE_BYTES: usize = 20;

const RINGS: u32 = 1;

const STDOUT_SHIFT: u32 = 1;

const STDERR_SHIFT: u32 = 3;

const TARGET_MASK: u32 = 0b11;

const MAGIC: u32 = u32::from_le_bytes(*b"prcs");

impl Preamble {
    pub(crate) fn to_bytes(self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.token.to_le_bytes());
        let [stdout, stderr] = self.targets.map(|target| target as u32);
        let there_is = u32::from(self.rings) | stdout << STDOUT_SHIFT | stderr << STDERR_SHIFT;
        bytes[16..].copy_from_slice(&there_is.to_le_bytes());
        bytes
    }

    /// Parses the preamble. Returns `None` if the bytes are not a preamble of this version.
    pub(crate) fn from_bytes(bytes: [u8; PREAMBLE_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (version, token) = rest.split_first_chunk::<4>()?;
        let (token, rings) = token.split_first_chunk::<8>()?;
        let token = u64::from_le_bytes(*token);
        let there_is = u32::from_le_bytes(*rings.first_chunk()?);
        let targets = [
            StreamTarget::from_bits(there_is >> STDOUT_SHIFT & TARGET_MASK)?,
            StreamTarget::from_bits(there_is >> STDERR_SHIFT & TARGET_MASK)?,
        ];
        (u32::from_le_bytes(*magic) == MAGIC && u32::from_le_bytes(*version) == VERSION).then_some(Self {
            token,
            rings: there_is & RINGS != 0,
            targets,
        })
    }
}
