//! Buffers for encoded arguments and results: short ones are stored in place, others on the heap. Also bytes within other values.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys::{buffer_cache, memory::advise_huge};

/// Bytes that are encoded at once, and decoded without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

/// Encoded bytes that are usually short: those of one task's arguments, or of its result.
#[derive(Clone, Debug)]
pub(crate) struct ShortBytes(pub(super) Short);

#[derive(Clone, Debug)]
pub(super) enum Short {
    Here {
        len: u8,
        bytes: [u8; HERE_BYTES],
    },
    Apart(Vec<u8>),
    /// A byte vector without its length in front. Inserting the length would move all of the bytes.
    Bare(Vec<u8>),
}

/// This many bytes need no allocation.
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

    /// Returns the bytes and their number, if they are stored in place.
    #[inline]
    pub(crate) fn few(&self) -> Option<(&[u8; HERE_BYTES], usize)> {
        match &self.0 {
            Short::Here { len, bytes } => Some((bytes, usize::from(*len))),
            Short::Apart(_) | Short::Bare(_) => None,
        }
    }

    /// Returns the bytes, and whether they are a byte vector without its length.
    pub(crate) fn into_parts(self) -> (Vec<u8>, bool) {
        match self.0 {
            Short::Here { len, bytes } => (bytes[..usize::from(len)].to_vec(), false),
            Short::Apart(bytes) => (bytes, false),
            Short::Bare(bytes) => (bytes, true),
        }
    }

    /// Returns a copy, with the length of a byte vector in front.
    pub(crate) fn to_plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        match &self.0 {
            Short::Bare(bytes) => encode_bytes(bytes, &mut plain),
            _ => plain.extend_from_slice(self),
        }
        plain
    }

    /// Appends other encoded bytes.
    pub(crate) fn append(&mut self, next: &Self) {
        match &next.0 {
            Short::Bare(bytes) => encode_bytes(bytes, self),
            _ => self.extend_from_slice(next),
        }
    }

    /// Appends many bytes, or bytes that just fit.
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

    /// Returns the vector to which bytes go that have no room in place.
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

/// Copies a few bytes without calling a general copy function.
///
/// They are copied one by one. They have just been written that way, and a processor that reads several of them at once would
/// stall.
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

/// The maximum number of bytes that [`copy_few`] copies.
const FEW_BYTES: usize = 10;

/// Byte vectors from this size on are passed on as they are instead of being copied behind other bytes.
pub(crate) const LARGE_BYTES: usize = 32 << 10;

/// Byte vectors from this size on are not moved to make room for their length.
pub(super) const BARE_BYTES: usize = 256 << 10;

/// The number of bytes in a word.
pub(crate) const WORD_BYTES: usize = 8;

/// A buffer to which encoded bytes are appended.
pub(crate) trait Buffer {
    fn len(&self) -> usize;
    fn truncate(&mut self, len: usize);
    fn push(&mut self, byte: u8);
    /// Appends the lowest `len` bytes of a word.
    fn push_word(&mut self, word: u64, len: usize);
    fn extend_from_slice(&mut self, bytes: &[u8]);
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
    fn push_word(&mut self, word: u64, len: usize) {
        let end = self.len() + len;
        self.extend_from_slice(&word.to_le_bytes());
        self.truncate(end);
    }

    #[inline]
    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
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

    fn reserve_large(&mut self, more: usize) {
        self.apart(more).reserve_large(more);
    }
}

/// Appends bytes as postcard does: their length, then the bytes.
pub(crate) fn encode_bytes<B: Buffer>(bytes: &[u8], out: &mut B) {
    if bytes.len() >= LARGE_BYTES {
        out.reserve_large(bytes.len() + MOST_VARINT_BYTES);
    }
    encode_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Like [`encode_bytes`]. Many bytes keep their memory if there is little in front of them.
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

pub(super) fn encode_len<B: Buffer>(mut len: usize, out: &mut B) {
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// The maximum length of an encoded 64-bit number, with seven bits per byte.
const MOST_VARINT_BYTES: usize = 10;
