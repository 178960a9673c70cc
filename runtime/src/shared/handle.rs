//! The encoding of handles.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::{
    codec::Bytes,
    segment::{Mode, Segment, SegmentId, attach, look_up, mode, set_why},
};

/// A handle as it is encoded.
#[derive(Serialize, Deserialize)]
pub(super) enum Handle<'a> {
    /// A part of a segment that travels beside the bytes.
    Part { id: SegmentId, offset_bytes: usize, len_bytes: usize },
    /// The contents themselves.
    Contents(#[serde(borrow)] Bytes<'a>),
}

/// The part of a segment that a handle stands for.
pub(super) struct Part<'a> {
    pub(super) segment: &'a Arc<Segment>,
    pub(super) offset_bytes: usize,
    pub(super) len_bytes: usize,
}

impl Part<'_> {
    /// Encodes the handle, or the contents where the segment does not travel beside the bytes.
    pub(super) fn serialize_or<'c, S: Serializer>(
        &self,
        serializer: S,
        contents: impl FnOnce() -> Result<Cow<'c, [u8]>, String>,
    ) -> Result<S::Ok, S::Error> {
        match mode() {
            Mode::Closed => {
                let why =
                    "shared memory can only be sent by the calls of procession: encode its contents instead";
                Err(ser::Error::custom(why))
            }
            Mode::Attach { to, .. } if self.segment.can_go(to) => {
                attach(self.segment);
                let Self { offset_bytes, len_bytes, .. } = *self;
                Handle::Part { id: self.segment.id(), offset_bytes, len_bytes }.serialize(serializer)
            }
            Mode::Attach { .. } | Mode::Inline => {
                let contents = contents().map_err(|why| ser::Error::custom(set_why(why)))?;
                Handle::Contents(Bytes(&contents)).serialize(serializer)
            }
        }
    }
}

/// What was decoded from a handle.
pub(super) enum Decoded<'a> {
    Part { segment: Arc<Segment>, offset_bytes: usize, len_bytes: usize },
    Contents(&'a [u8]),
}

/// Decodes a handle, which must be of a part of its segment.
pub(super) fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decoded<'de>, D::Error> {
    Ok(match Handle::deserialize(deserializer)? {
        Handle::Contents(Bytes(bytes)) => Decoded::Contents(bytes),
        Handle::Part { id, offset_bytes, len_bytes } => {
            let segment = look_up(id).map_err(|why| de::Error::custom(set_why(why)))?;
            let end = offset_bytes.checked_add(len_bytes);
            if end.is_none_or(|end| end > segment.len_bytes()) {
                return Err(de::Error::custom(set_why("a part beyond the end of shared memory".to_owned())));
            }
            Decoded::Part { segment, offset_bytes, len_bytes }
        }
    })
}
