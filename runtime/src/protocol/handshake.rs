//! What host and worker say before the first task.
//!
//! The preamble travels with the board's descriptor, before any frame: it proves that the inherited descriptor is the host's. Then
//! the host says [`Hello`], and the worker answers [`Ready`] or [`Refused`].

use serde::{Deserialize, Serialize};

/// Changes whenever a byte of the protocol does.
pub(crate) const VERSION: u32 = 2;

/// The token that the marker in the worker's environment repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) token: u64,
    /// The memory that comes with it holds rings.
    pub(crate) rings: bool,
}

/// A magic number, the version, the token, what there is.
pub(crate) const PREAMBLE_BYTES: usize = 20;
const MAGIC: u32 = u32::from_le_bytes(*b"prcs");

impl Preamble {
    pub(crate) fn to_bytes(self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.token.to_le_bytes());
        bytes[16..].copy_from_slice(&u32::from(self.rings).to_le_bytes());
        bytes
    }

    /// The preamble, if these bytes are one of this version.
    pub(crate) fn from_bytes(bytes: [u8; PREAMBLE_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (version, token) = rest.split_first_chunk::<4>()?;
        let (token, rings) = token.split_first_chunk::<8>()?;
        let token = u64::from_le_bytes(*token);
        let rings = u32::from_le_bytes(*rings.first_chunk()?) != 0;
        (u32::from_le_bytes(*magic) == MAGIC && u32::from_le_bytes(*version) == VERSION)
            .then_some(Self { token, rings })
    }
}

/// The host's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    /// The worker's place in its pool.
    pub(crate) worker: u32,
    /// Bytes of the folder to work in.
    pub(crate) current_dir: Option<Vec<u8>>,
    /// The most verbose level of records that the host wants, as `log::LevelFilter` counts them.
    pub(crate) log_level: u8,
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
}
