//! Values to bytes and back, in postcard's encoding.
//!
//! Called by the expansion of `#[worker]` for arguments and results, by the protocol for its messages, and by handles to decode
//! results. Every error is a sentence that names the value's type; none leaves a partial value behind.
//!
//! A byte vector and a sequence of bytes have the same encoding, so either side may take the short way by itself.

pub mod path;
mod varint;

use std::{
    any::{Any, type_name},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::Fault,
    sample,
    sys::{buffer_cache, memory::advise_huge},
};

/// Encoded bytes that are short more often than not: those of one task's arguments, or of its result.
#[derive(Clone, Debug)]
pub(crate) struct ShortBytes(Short);

#[derive(Clone, Debug)]
enum Short {
    Here {
        len: u8,
        bytes: [u8; HERE_BYTES],
    },
    Apart(Vec<u8>),
    /// A byte vector, and its length not before it: to put that there would move all of it.
    Bare(Vec<u8>),
}

/// So many bytes need no allocation.
pub(crate) const HERE_BYTES: usize = 30;

impl ShortBytes {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self(Short::Here { len: 0, bytes: [0; HERE_BYTES] })
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Self {
        let mut short = Self::new();
        short.extend_from_slice(bytes);
        short
    }

    /// The bytes, and how many of these they are, if they are few.
    #[inline]
    pub(crate) fn few(&self) -> Option<(&[u8; HERE_BYTES], usize)> {
        match &self.0 {
            Short::Here { len, bytes } => Some((bytes, usize::from(*len))),
            Short::Apart(_) | Short::Bare(_) => None,
        }
    }

    /// The bytes, and whether they are a byte vector without its length.
    pub(crate) fn into_parts(self) -> (Vec<u8>, bool) {
        match self.0 {
            Short::Here { len, bytes } => (bytes[..usize::from(len)].to_vec(), false),
            Short::Apart(bytes) => (bytes, false),
            Short::Bare(bytes) => (bytes, true),
        }
    }

    /// A copy, with the length of a byte vector before it.
    pub(crate) fn to_plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        match &self.0 {
            Short::Bare(bytes) => encode_bytes(bytes, &mut plain),
            _ => plain.extend_from_slice(self),
        }
        plain
    }

    /// Puts others behind these.
    pub(crate) fn append(&mut self, next: &Self) {
        match &next.0 {
            Short::Bare(bytes) => encode_bytes(bytes, self),
            _ => self.extend_from_slice(next),
        }
    }

    /// To be decoded.
    pub(crate) fn as_input(&self) -> Input<'_> {
        match &self.0 {
            Short::Bare(bytes) => Input { rest: &[], whole: Some(Whole::Lent(bytes)) },
            _ => Input::new(self),
        }
    }

    /// Many bytes, or such as only just fit.
    #[inline(never)]
    fn extend_slowly(&mut self, more: &[u8]) {
        if let Short::Here { len, bytes } = &mut self.0
            && let Some(place) = bytes.get_mut(usize::from(*len)..usize::from(*len) + more.len())
        {
            place.copy_from_slice(more);
            *len += more.len() as u8;
            return;
        }
        self.apart(more.len()).extend_from_slice(more);
    }

    /// Where more bytes go than there is room for here.
    #[cold]
    fn apart(&mut self, more: usize) -> &mut Vec<u8> {
        match &mut self.0 {
            Short::Here { len, bytes } => {
                let mut apart = buffer_cache::take(usize::from(*len) + more);
                apart.reserve(usize::from(*len) + more);
                apart.extend_from_slice(&bytes[..usize::from(*len)]);
                self.0 = Short::Apart(apart);
            }
            Short::Bare(bytes) => {
                let mut apart = std::mem::take(bytes);
                let mut head = Vec::with_capacity(MOST_VARINT_BYTES);
                encode_len(apart.len(), &mut head);
                apart.reserve(head.len() + more);
                apart.splice(..0, head);
                self.0 = Short::Apart(apart);
            }
            Short::Apart(_) => {}
        }
        match &mut self.0 {
            Short::Apart(bytes) => bytes,
            Short::Here { .. } | Short::Bare(_) => unreachable!("it was moved just now"),
        }
    }
}

impl std::ops::Deref for ShortBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Short::Here { len, bytes } => &bytes[..usize::from(*len)],
            Short::Apart(bytes) | Short::Bare(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for ShortBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Short::Apart(bytes))
    }
}

impl Default for ShortBytes {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies a few bytes without the call of a function that copies any number.
///
/// One by one: they have just been written so, and a processor that is to read several of them at once would wait for that.
#[inline]
fn copy_few(to: &mut [u8; FEW_BYTES], from: &[u8]) {
    debug_assert!(from.len() <= FEW_BYTES);
    macro_rules! each {
        ($($i:literal)*) => { $(
            let Some(&byte) = from.get($i) else { return };
            to[$i] = byte;
        )* };
    }
    each!(0 1 2 3 4 5 6 7 8 9);
}

/// So few bytes are copied by [`copy_few`].
const FEW_BYTES: usize = 10;

/// Byte vectors from this size on are handed on as they are, not copied behind other bytes.
pub(crate) const LARGE_BYTES: usize = 32 << 10;
/// Byte vectors from this size on are not moved to make room for their length.
const BARE_BYTES: usize = 256 << 10;

/// What encoded bytes are appended to.
pub(crate) trait Buffer {
    fn len(&self) -> usize;
    fn truncate(&mut self, len: usize);
    fn push(&mut self, byte: u8);
    fn extend_from_slice(&mut self, bytes: &[u8]);
    /// Appends the first `len` bytes of a word, eight at the most.
    fn push_word(&mut self, word: u64, len: usize);
    /// Makes room for many bytes at once.
    fn reserve_large(&mut self, more: usize);
}

impl Buffer for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn extend_from_slice(&mut self, bytes: &[u8]) {
        if bytes.len() > FEW_BYTES {
            return self.extend_from_slice(bytes);
        }
        let start = self.len();
        self.extend_from_slice(&[0; FEW_BYTES]);
        if let Some(place) = self[start..].first_chunk_mut() {
            copy_few(place, bytes);
        }
        self.truncate(start + bytes.len());
    }

    #[inline(always)]
    fn push_word(&mut self, word: u64, len: usize) {
        let end = self.len() + len;
        self.extend_from_slice(&word.to_le_bytes());
        self.truncate(end);
    }

    fn reserve_large(&mut self, more: usize) {
        if self.capacity() == 0 {
            *self = buffer_cache::take(more);
        }
        self.reserve(more);
        advise_huge(self.as_ptr(), self.capacity());
    }
}

impl Buffer for ShortBytes {
    #[inline]
    fn len(&self) -> usize {
        (**self).len()
    }

    fn truncate(&mut self, to: usize) {
        match &mut self.0 {
            Short::Here { len, .. } => *len = (*len).min(u8::try_from(to).unwrap_or(u8::MAX)),
            Short::Apart(bytes) => bytes.truncate(to),
            Short::Bare(_) => self.apart(0).truncate(to),
        }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if let Short::Here { len, bytes } = &mut self.0
            && let Some(place) = bytes.get_mut(usize::from(*len))
        {
            *place = byte;
            *len += 1;
            return;
        }
        self.apart(1).push(byte);
    }

    #[inline]
    fn extend_from_slice(&mut self, more: &[u8]) {
        if let Short::Here { len, bytes } = &mut self.0
            && more.len() <= FEW_BYTES
            && let Some(place) = bytes[usize::from(*len)..].first_chunk_mut()
        {
            copy_few(place, more);
            *len += more.len() as u8;
            return;
        }
        self.extend_slowly(more);
    }

    #[inline(always)]
    fn push_word(&mut self, word: u64, word_len: usize) {
        if let Short::Here { len, bytes } = &mut self.0
            && let Some(place) = bytes.get_mut(usize::from(*len)..).and_then(|rest| rest.first_chunk_mut())
        {
            *place = word.to_le_bytes();
            *len += word_len as u8;
            return;
        }
        self.extend_slowly(&word.to_le_bytes()[..word_len]);
    }

    fn reserve_large(&mut self, more: usize) {
        self.apart(more).reserve_large(more);
    }
}

/// A task's encoded result.
#[derive(Debug)]
pub(crate) enum Encoded<'a> {
    Short(&'a [u8]),
    /// A large one, in two parts, the first of them short. Of a byte vector the second is what it holds.
    Large(ShortBytes, Vec<u8>),
}

impl Encoded<'_> {
    /// A copy that borrows nothing.
    pub(crate) fn into_owned(self) -> OwnedResult {
        match self {
            Self::Short(bytes) => OwnedResult { head: ShortBytes::from_slice(bytes), body: Vec::new() },
            Self::Large(head, body) => OwnedResult { head, body },
        }
    }
}

/// A task's encoded result, kept.
#[derive(Debug, Default)]
pub(crate) struct OwnedResult {
    head: ShortBytes,
    body: Vec<u8>,
}

impl OwnedResult {
    pub(crate) fn as_encoded(&mut self) -> Encoded<'_> {
        if self.body.is_empty() {
            Encoded::Short(&self.head)
        } else {
            Encoded::Large(std::mem::take(&mut self.head), std::mem::take(&mut self.body))
        }
    }
}

/// Appends `value` to `out`; on an error `out` is as it was.
#[inline(always)]
pub(crate) fn encode<T: Serialize + ?Sized, B: Buffer>(value: &T, out: &mut B) -> Result<(), String> {
    let start = out.len();
    varint::encode(value, out).map_err(|error| {
        out.truncate(start);
        explain::<T>("encoded", error)
    })
}

/// Decodes a whole result. A large byte vector is what came, without a copy.
#[inline(always)]
pub(crate) fn decode_result<T: DeserializeOwned + 'static>(encoded: Encoded<'_>) -> Result<T, String> {
    let mut slot: Option<T> = None;
    let vec = (&mut slot as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>();
    match (encoded, vec) {
        (Encoded::Short(bytes), Some(vec)) => *vec = Some(decode::<&[u8]>(bytes)?.to_vec()),
        (Encoded::Short(bytes), None) => return decode_value(bytes),
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
    }
    slot.ok_or_else(|| explain::<T>("decoded", postcard::Error::DeserializeUnexpectedEnd))
}

/// Decodes a result that is no byte vector.
#[inline(always)]
fn decode_value<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
    path::decode_as_paths(bytes).unwrap_or_else(|| decode(bytes))
}

/// Decodes one value that fills `bytes` to the last.
#[inline(always)]
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let mut rest = bytes;
    match varint::take(&mut rest) {
        Ok(value) if rest.is_empty() => Ok(value),
        Ok(_) => Err(left_unread::<T>(rest.len(), bytes.len())),
        Err(error) => Err(explain::<T>("decoded", error)),
    }
}

#[cold]
fn left_unread<T>(left: usize, of: usize) -> String {
    format!(
        "`{}` left {left} of {of} bytes unread when it was decoded: its Serialize and Deserialize do not agree",
        type_name::<T>(),
    )
}

/// What can be an argument: its worker's side. Expansions ask for [`Argument`](crate::__private::Argument) first, which has the words.
pub trait Received<'a>: Deserialize<'a> {}

#[diagnostic::do_not_recommend]
impl<'a, T: Deserialize<'a>> Received<'a> for T {}

/// What is left of a task's encoded arguments. Part of the expansion's interface.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
    /// All of them, as long as none was taken: if a byte vector is all that they are, it is taken as it is.
    whole: Option<Whole<'a>>,
}

#[derive(Debug)]
enum Whole<'a> {
    Plain(&'a mut Vec<u8>),
    /// A byte vector without its length.
    Bare(&'a mut Vec<u8>),
    /// The same, and not to be taken.
    Lent(&'a [u8]),
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, whole: None }
    }

    /// Arguments that nobody needs any more: one byte vector without its length, if they are bare. What is left of them is the caller's
    /// to drop.
    pub(crate) fn of(bytes: &'a mut Vec<u8>, is_bare: bool) -> Self {
        let whole = if is_bare { Whole::Bare(bytes) } else { Whole::Plain(bytes) };
        Self { rest: &[], whole: Some(whole) }
    }

    #[inline]
    fn rest(&mut self) -> &'a [u8] {
        if self.whole.is_some() {
            self.open();
        }
        self.rest
    }

    #[cold]
    fn open(&mut self) {
        // What is bare is taken as bytes, or not at all.
        if let Some(Whole::Plain(whole)) = self.whole.take() {
            self.rest = whole;
        }
    }

    /// Takes the next argument.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    #[inline]
    pub fn take<T: Received<'a>>(&mut self, name: &str) -> Result<T, Fault> {
        let mut rest = self.rest();
        let value = varint::take(&mut rest).map_err(|error| {
            Fault::codec(format!("argument `{name}`: {}", explain::<T>("decoded", error)))
        })?;
        self.rest = rest;
        Ok(value)
    }

    /// Takes the next argument, a slice's elements.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    #[inline]
    pub fn take_slice<T: Received<'a>>(&mut self, name: &str) -> Result<Vec<T>, Fault> {
        self.take(name)
    }

    /// Takes the next argument, bytes, without a copy.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    pub fn take_bytes(&mut self, name: &str) -> Result<&'a [u8], Fault> {
        match self.whole.take() {
            Some(Whole::Bare(bytes)) => return Ok(bytes),
            Some(Whole::Lent(bytes)) => return Ok(bytes),
            plain => self.whole = plain,
        }
        self.take(name)
    }

    /// Takes the next argument, bytes: without a copy, if they are many and the only argument.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    pub fn take_byte_vec(&mut self, name: &str) -> Result<Vec<u8>, Fault> {
        match &mut self.whole {
            Some(Whole::Bare(whole)) => {
                let bytes = std::mem::take(*whole);
                self.whole = None;
                return Ok(bytes);
            }
            Some(Whole::Plain(whole)) if whole.len() >= LARGE_BYTES => {
                if let Ok((len, rest)) = postcard::take_from_bytes::<u64>(whole)
                    && len == rest.len() as u64
                {
                    let before = whole.len() - rest.len();
                    let mut bytes = std::mem::take(*whole);
                    self.whole = None;
                    bytes.drain(..before);
                    return Ok(bytes);
                }
            }
            _ => {}
        }
        let bytes = self.take_bytes(name)?;
        let mut vec = Vec::with_capacity(bytes.len());
        advise_huge(vec.as_ptr(), vec.capacity());
        vec.extend_from_slice(bytes);
        Ok(vec)
    }

    /// Takes the next argument, a path of any bytes, without a copy.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    pub fn take_path(&mut self, name: &str) -> Result<&'a Path, Fault> {
        self.take_bytes(name).map(|bytes| Path::new(OsStr::from_bytes(bytes)))
    }

    /// Ends the decoding of a function's arguments.
    ///
    /// # Errors
    ///
    /// There are bytes left: an argument's `Serialize` and `Deserialize` do not agree.
    #[inline]
    pub fn finish(mut self) -> Result<(), Fault> {
        sample::end();
        match self.rest().len() {
            0 => Ok(()),
            left => Err(Fault::codec(format!(
                "{left} bytes of the arguments were left unread: an argument's Serialize and Deserialize do not agree"
            ))),
        }
    }
}

/// Where a function's result goes. Part of the expansion's interface.
#[derive(Debug)]
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    /// Follows `bytes`: a large byte vector, which is not copied behind them.
    large: &'a mut Vec<u8>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>, large: &'a mut Vec<u8>) -> Self {
        Self { bytes, large }
    }

    /// Puts the result.
    ///
    /// # Errors
    ///
    /// It does not encode.
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
        path::encode_as_paths(&value, self.bytes)
            .unwrap_or_else(|| encode(&value, self.bytes))
            .map_err(|words| Fault::codec(format!("the result: {words}")))
    }
}

/// Appends bytes as postcard does: their number, then themselves.
pub(crate) fn encode_bytes<B: Buffer>(bytes: &[u8], out: &mut B) {
    if bytes.len() >= LARGE_BYTES {
        out.reserve_large(bytes.len() + MOST_VARINT_BYTES);
    }
    encode_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// As [`encode_bytes`]: many bytes stay in the memory that they have, if there is little before them.
pub(crate) fn encode_byte_vec(mut bytes: Vec<u8>, out: &mut ShortBytes) {
    if bytes.len() >= BARE_BYTES && out.is_empty() {
        out.0 = Short::Bare(bytes);
        return;
    }
    if bytes.len() < LARGE_BYTES || out.len() >= LARGE_BYTES {
        return encode_bytes(&bytes, out);
    }
    encode_len(bytes.len(), out);
    bytes.reserve_exact(out.len());
    bytes.splice(..0, out.iter().copied());
    *out = bytes.into();
}

fn encode_len<B: Buffer>(mut len: usize, out: &mut B) {
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// A 64-bit number, seven bits a byte.
const MOST_VARINT_BYTES: usize = 10;

/// Lets postcard append to a buffer that it does not own.
struct Appender<'a, B>(&'a mut B);

impl<B: Buffer> Flavor for Appender<'_, B> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Says what postcard's error means for a person who never heard of postcard.
#[cold]
fn explain<T: ?Sized>(done: &str, error: postcard::Error) -> String {
    use postcard::Error as E;
    if error == varint::TOO_MANY_UNBACKED {
        return format!(
            "`{}` cannot be {done}: it says that it has over {} elements more than there are bytes; of elements that take no bytes, send \
             the number instead",
            type_name::<T>(),
            varint::MOST_UNBACKED,
        );
    }
    let why = match error {
        E::WontImplement => {
            "it asks the encoding to describe itself (serde's `flatten`, untagged enums, `serde_json::Value`), \
             which a compact encoding does not do; pass a plain struct, or the value as a string"
        }
        E::SerializeSeqLengthUnknown => "a sequence in it does not know its length; collect it into a Vec",
        E::DeserializeUnexpectedEnd => "the bytes end too soon",
        E::SerdeSerCustom => {
            "its own Serialize refused; if that was for a path which is not valid UTF-8, put the path into a field of a struct, \
             with `#[serde(with = \"procession::path\")]`"
        }
        E::SerdeDeCustom => "its own Deserialize refused",
        E::DeserializeBadUtf8 | E::DeserializeBadChar => "the bytes are not valid UTF-8",
        _ => "the bytes do not fit the type",
    };
    format!("`{}` cannot be {done}: {why}", type_name::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_vectors_have_one_encoding_whichever_way_they_take() {
        for len in [0usize, 1, 127, 128, 300, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (mut short, mut large, mut long) = (Vec::new(), Vec::new(), Vec::new());
            Output::new(&mut short, &mut large).put(bytes.clone()).unwrap();
            encode(&bytes, &mut long).unwrap();
            assert_eq!([&short[..], &large].concat(), long);
            assert_eq!(large.is_empty(), len < LARGE_BYTES);
            assert_eq!(decode::<Vec<u8>>(&long).unwrap(), bytes);
            for (head, body) in [
                (&short[..], large),
                (&[][..], long.clone()),
                (&long[..2.min(len)], long[2.min(len)..].to_vec()),
            ] {
                let encoded = Encoded::Large(ShortBytes::from_slice(head), body.clone());
                let all = [head, &body].concat();
                // Cut elsewhere than between the number and the bytes it is refused, or put together; never misread.
                match decode_result::<Vec<u8>>(encoded) {
                    Ok(back) => assert_eq!(back, bytes),
                    Err(_) => assert!(!head.is_empty() && head.len() + len != all.len()),
                }
            }
            assert_eq!(decode_result::<Vec<u8>>(Encoded::Short(&long)).unwrap(), bytes);
        }
    }

    #[test]
    fn many_bytes_stay_where_they_are_on_either_way() {
        let value: Vec<u8> = (0..LARGE_BYTES + 5).map(|n| n as u8).collect();
        let mut encoded = ShortBytes::new();
        encode_byte_vec(value.clone(), &mut encoded);
        let mut plain = Vec::new();
        encode_bytes(&value, &mut plain);
        assert_eq!(&encoded[..], plain);
        let at = plain.as_ptr();
        let mut input = Input::of(&mut plain, false);
        let taken = input.take_byte_vec("bytes").unwrap();
        assert_eq!((taken.as_ptr(), &taken), (at, &value), "it is the memory that came");
        input.finish().unwrap();

        // Behind and before others it is copied.
        for (first, last) in [(true, false), (false, true)] {
            let mut args = ShortBytes::new();
            if first {
                encode(&7u8, &mut args).unwrap();
            }
            encode_byte_vec(value.clone(), &mut args);
            if last {
                encode(&9u8, &mut args).unwrap();
            }
            let (mut args, is_bare) = args.into_parts();
            assert!(!is_bare);
            let mut input = Input::of(&mut args, false);
            assert!(!first || input.take::<u8>("first").unwrap() == 7);
            assert_eq!(input.take_byte_vec("bytes").unwrap(), value);
            assert!(!last || input.take::<u8>("last").unwrap() == 9);
            input.finish().unwrap();
        }
        let mut left = vec![1, 2, 3];
        assert!(Input::of(&mut left, false).finish().is_err());
    }

    #[test]
    fn very_many_bytes_stay_where_they_are_and_are_not_moved_for_their_length() {
        let value = vec![7; BARE_BYTES];
        let mut encoded = ShortBytes::new();
        let at = value.as_ptr();
        encode_byte_vec(value.clone(), &mut encoded);
        let plain = encoded.to_plain();
        assert_eq!(decode::<Vec<u8>>(&plain).unwrap(), value);

        let mut input = encoded.as_input();
        assert_eq!(input.take_bytes("bytes").unwrap(), value);
        input.finish().unwrap();
        assert_eq!(encoded.as_input().take_byte_vec("bytes").unwrap(), value);
        assert!(encoded.as_input().take::<u32>("number").is_err(), "that is not what they are");

        let mut encoded = ShortBytes::new();
        encode_byte_vec(value, &mut encoded);
        let mut more = encoded.clone();
        let (mut bytes, is_bare) = encoded.into_parts();
        assert!(is_bare);
        let mut input = Input::of(&mut bytes, true);
        let taken = input.take_byte_vec("bytes").unwrap();
        assert_eq!(taken.as_ptr(), at, "it is the memory that was given");
        input.finish().unwrap();

        // Others follow.
        encode(&7u32, &mut more).unwrap();
        assert_eq!(more[..plain.len()], plain);
        let (mut bytes, is_bare) = more.into_parts();
        assert!(!is_bare);
        let mut input = Input::of(&mut bytes, is_bare);
        assert_eq!(input.take_byte_vec("bytes").unwrap(), taken);
        assert_eq!(input.take::<u32>("number").unwrap(), 7);
        input.finish().unwrap();
    }

    #[test]
    fn an_encoding_that_fails_leaves_the_output_as_it_was() {
        struct Liar;
        impl Serialize for Liar {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple;
                let mut t = s.serialize_tuple(2)?;
                t.serialize_element(&7u8)?;
                Err(serde::ser::Error::custom("no"))
            }
        }
        let mut out = vec![1, 2, 3];
        let error = encode(&Liar, &mut out).unwrap_err();
        assert_eq!(out, [1, 2, 3]);
        assert!(error.contains("Liar"), "{error}");
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let error = decode::<u8>(&[1, 2]).unwrap_err();
        assert!(error.contains("1 of 2 bytes"), "{error}");
    }
}
