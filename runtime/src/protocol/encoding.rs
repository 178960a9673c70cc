//! Encodes and decodes messages with serde, behind one tag byte. Used by the other files of `protocol`.

use serde::{Deserialize, Serialize};

use crate::codec;

/// The frame is not a message of this protocol.
#[derive(Debug)]
pub(crate) struct Malformed;

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    codec::decode(bytes).map_err(|_| Malformed)
}

pub(super) fn tagged<T: Serialize>(tag: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![tag];
    codec::encode(value, &mut bytes).expect("our own messages are plain structs, which always encode");
    bytes
}

pub(super) const DONE: u8 = 129;

pub(super) const FAULT: u8 = 130;

/// All rare messages.
pub(super) const NOTICE: u8 = 131;
