//! Defines [`Output`], into which the expansion of `#[worker]` encodes a result, and decodes results on the caller's side.

use std::any::Any;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    bytes::{LARGE_BYTES, ShortBytes, encode_bytes, encode_len},
    decode, decode_value, encode, explain, path,
};
use crate::{
    error::Fault,
    segment::{Attachments, Loans, To, inlined, moved_by, with_available},
};

/// The most segments that a result may name. The contents of more are encoded instead.
pub(crate) const MOST_RETURNED: usize = 100;

/// The encoded result of a task.
#[derive(Debug)]
pub(crate) enum Encoded<'a> {
    Short(&'a [u8]),
    /// A large result in two parts, of which the first is short. For a byte vector, the second part is its contents.
    Large(ShortBytes, Vec<u8>),
    /// A result that names segments.
    Attached(OwnedResult),
}

impl Encoded<'_> {
    /// Adds the segments that the result names.
    pub(crate) fn attach(self, attachments: Attachments) -> Self {
        Self::Attached(OwnedResult { attachments, ..self.into_owned() })
    }

    /// Returns the start of the bytes.
    pub(crate) fn start(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Large(head, body) | Self::Attached(OwnedResult { head, body, .. }) => {
                if head.is_empty() {
                    body
                } else {
                    head
                }
            }
        }
    }

    /// Copies what is borrowed.
    pub(crate) fn into_owned(self) -> OwnedResult {
        match self {
            Self::Short(bytes) => {
                OwnedResult { head: ShortBytes::from_slice(bytes), ..OwnedResult::default() }
            }
            Self::Large(head, body) => OwnedResult { head, body, attachments: Attachments::default() },
            Self::Attached(result) => result,
        }
    }
}

/// The encoded result of a task, owned.
#[derive(Debug, Default)]
pub(crate) struct OwnedResult {
    head: ShortBytes,
    body: Vec<u8>,
    /// The segments that it names.
    attachments: Attachments,
}

impl OwnedResult {
    pub(crate) fn len_bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }

    pub(crate) fn as_encoded(&mut self) -> Encoded<'_> {
        if !self.attachments.is_empty() {
            Encoded::Attached(std::mem::take(self))
        } else if self.body.is_empty() {
            Encoded::Short(&self.head)
        } else {
            Encoded::Large(std::mem::take(&mut self.head), std::mem::take(&mut self.body))
        }
    }
}

/// Decodes a complete result. A large byte vector is returned as it arrived, without a copy.
#[inline(always)]
pub(crate) fn decode_result<T: DeserializeOwned + 'static>(encoded: Encoded<'_>) -> Result<T, String> {
    if let Encoded::Attached(mut result) = encoded {
        let attachments = std::mem::take(&mut result.attachments);
        return with_available(&attachments, || decode_result(result.as_encoded()));
    }
    let mut slot: Option<T> = None;
    let vec = (&mut slot as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>();
    match (encoded, vec) {
        (Encoded::Short(bytes), _) => return decode_short(bytes),
        (Encoded::Large(head, mut body), Some(vec)) => {
            let (len, rest) = postcard::take_from_bytes::<u64>(if head.is_empty() { &body } else { &head })
                .map_err(|error| explain::<T>("decoded", error))?;
            let before = if head.is_empty() { body.len() - rest.len() } else { 0 };
            if (!head.is_empty() && !rest.is_empty()) || len != (body.len() - before) as u64 {
                return Err(explain::<T>("decoded", postcard::Error::DeserializeUnexpectedEnd));
            }
            body.drain(..before);
            *vec = Some(body);
        }
        (Encoded::Large(head, body), None) if head.is_empty() => return decode_value(&body),
        (Encoded::Large(head, mut body), None) => {
            body.splice(..0, head.iter().copied());
            return decode_value(&body);
        }
        (Encoded::Attached(_), _) => unreachable!("its segments were made available"),
    }
    slot.ok_or_else(|| explain::<T>("decoded", postcard::Error::DeserializeUnexpectedEnd))
}

/// Decodes a result that is in one piece.
#[inline(always)]
pub(crate) fn decode_short<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
    let mut slot: Option<T> = None;
    if let Some(vec) = (&mut slot as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>() {
        *vec = Some(decode::<&[u8]>(bytes)?.to_vec());
    }
    slot.map_or_else(|| decode_value(bytes), Ok)
}

/// Encodes a value that is kept, as the result of a function is encoded.
pub(crate) fn encode_value<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Vec<u8>>() {
        encode_bytes(bytes, out);
        return Ok(());
    }
    path::encode_as_paths(value, out).unwrap_or_else(|| encode(value, out))
}

/// The destination of a function's result. Part of the expansion's interface.
#[derive(Debug)]
pub struct Output<'a> {
    to: To,
    bytes: &'a mut Vec<u8>,
    /// A large byte vector that follows `bytes` and is not copied behind them.
    large: &'a mut Vec<u8>,
    /// The segments that the result names.
    attachments: &'a mut Attachments,
}

impl<'a> Output<'a> {
    pub(crate) fn new(
        to: To,
        bytes: &'a mut Vec<u8>,
        large: &'a mut Vec<u8>,
        attachments: &'a mut Attachments,
    ) -> Self {
        Self { to, bytes, large, attachments }
    }

    /// Encodes the result.
    ///
    /// # Errors
    ///
    /// The result cannot be encoded.
    #[inline]
    pub fn put<T: Serialize + 'static>(&mut self, mut value: T) -> Result<(), Fault> {
        if let Some(bytes) = (&mut value as &mut dyn Any).downcast_mut::<Vec<u8>>() {
            if bytes.len() < LARGE_BYTES {
                encode_bytes(bytes, self.bytes);
            } else {
                encode_len(bytes.len(), self.bytes);
                *self.large = std::mem::take(bytes);
            }
            return Ok(());
        }
        let mut loans = Loans::default();
        path::encode_as_paths(&value, self.bytes)
            .unwrap_or_else(|| self.encode(&value, &mut loans))
            .and_then(|()| {
                drop(value);
                if loans.is_empty() { Ok(()) } else { loans.give_back() }
            })
            .map_err(|words| Fault::codec(format!("the result: {words}")))
    }

    #[inline]
    fn encode<T: Serialize>(&mut self, value: &T, loans: &mut Loans) -> Result<(), String> {
        let start = self.bytes.len();
        moved_by(self.to, self.attachments, loans, || encode(value, self.bytes))?;
        let named = self.attachments.len();
        if named > MOST_RETURNED {
            *self.attachments = Attachments::default();
            *loans = Loans::default();
            self.bytes.truncate(start);
            inlined(|| encode(value, self.bytes)).map_err(|words| {
                format!("it names {named} shared objects, and a result can name {MOST_RETURNED}: {words}")
            })?;
        }
        Ok(())
    }
}
