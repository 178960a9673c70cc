//! Encoding of messages, into memory that is used again.

use std::{cell::Cell, mem::needs_drop};

use serde::Serialize;

use super::error::Failure;
use crate::{
    codec,
    error::Error,
    segment::{Attachments, outliving, read_by},
};

/// The number of bytes up to which a buffer is kept for the next message.
const KEPT_BYTES: usize = 64 << 10;

thread_local! {
    /// The memory of the last message that was encoded or decoded.
    static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends memory for the bytes of a message.
#[inline(always)]
pub(super) fn with_bytes<R>(use_them: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut bytes = BYTES.take();
    bytes.clear();
    let result = use_them(&mut bytes);
    if bytes.capacity() <= KEPT_BYTES {
        BYTES.set(bytes);
    }
    result
}

/// Appends the encoded message. Returns what travels beside it.
#[inline]
pub(super) fn encode<T: Serialize + 'static>(
    message: &T,
    bytes: &mut Vec<u8>,
) -> Result<Attachments, Failure> {
    let mut attachments = Attachments::default();
    if needs_drop::<T>() {
        outliving(|| read_by(&mut attachments, || codec::encode_value(message, bytes)))
    } else {
        // It contains no handles.
        codec::encode(message, bytes)
    }
    .map_err(|words| Failure::Failed(Error::config(format!("a message: {words}"))))?;
    Ok(attachments)
}
