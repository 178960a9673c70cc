//! The prefix of each frame: eight bytes, little-endian. It contains the length of the frame and of its head, or the number of
//! records that were sent aside before the next frame.
//!
//! `transport` writes and reads prefixes, and the layers above iterate over [`Frames`]. A *brief* is a frame whose head fits into
//! the prefix. Otherwise the head would be half of the bytes of many short frames.

/// The length of a prefix.
pub(crate) const PREFIX_BYTES: usize = 8;
/// The maximum length of a frame. A longer one was not sent by us.
const MOST_FRAME_BYTES: u64 = (1 << 48) - 1;
/// The maximum length of a head.
pub(crate) const MOST_HEAD_BYTES: usize = 255;
const HEAD_SHIFT: u32 = 48;
/// This is not a frame, but the number of records that were sent aside before the next one.
const MARK: u64 = 1 << 63;
const UNUSED: u64 = 0x3f << 56;
/// The frame is a brief. Its head follows the length.
const BRIEF: u64 = 1 << 62;
const BRIEF_HEAD_SHIFT: u32 = 16;
/// The maximum length of the body of a brief.
pub(crate) const MOST_BRIEF_BYTES: usize = 4 << 10;
/// The number of bits in the head of a brief.
pub(crate) const BRIEF_HEAD_BITS: u32 = 62 - BRIEF_HEAD_SHIFT;

/// The meaning of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// A frame follows.
    Frame { head_len: usize, len: usize },
    /// A brief's body follows.
    Brief { head: u64, len: usize },
    /// The number of frames that were sent aside before the next frame was sent.
    Mark(u64),
}

/// These eight bytes are not a valid prefix.
#[derive(Debug)]
pub(crate) struct NoPrefix;

impl Prefix {
    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        match self {
            Self::Frame { head_len, len } => {
                debug_assert!(head_len <= MOST_HEAD_BYTES && len as u64 <= MOST_FRAME_BYTES);
                ((head_len as u64) << HEAD_SHIFT | len as u64).to_le_bytes()
            }
            Self::Brief { head, len } => {
                debug_assert!(head >> BRIEF_HEAD_BITS == 0 && len <= MOST_BRIEF_BYTES);
                (BRIEF | head << BRIEF_HEAD_SHIFT | len as u64).to_le_bytes()
            }
            Self::Mark(count) => (MARK | count).to_le_bytes(),
        }
    }

    #[inline]
    pub(crate) fn from_bytes(bytes: [u8; PREFIX_BYTES]) -> Result<Self, NoPrefix> {
        let word = u64::from_le_bytes(bytes);
        if word & MARK != 0 {
            return Ok(Self::Mark(word & !MARK));
        }
        if word & BRIEF != 0 {
            let (head, len) = split_brief(word);
            return if len <= MOST_BRIEF_BYTES { Ok(Self::Brief { head, len }) } else { Err(NoPrefix) };
        }
        let len = usize::try_from(word & MOST_FRAME_BYTES).map_err(|_| NoPrefix)?;
        let head_len = (word >> HEAD_SHIFT) as usize & MOST_HEAD_BYTES;
        if word & UNUSED != 0 || head_len > len {
            return Err(NoPrefix);
        }
        Ok(Self::Frame { head_len, len })
    }
}

/// Returns the head and the length of a brief.
#[inline]
fn split_brief(word: u64) -> (u64, usize) {
    ((word & !BRIEF) >> BRIEF_HEAD_SHIFT, word as u16 as usize)
}

/// Frames in order, each with its prefix. The last one may be incomplete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Creates a view of bytes that begin with a prefix.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Splits off the first frame if it is a complete brief. Returns its head, its body, and the frames after it.
    #[inline]
    pub(crate) fn split_brief(&self) -> Option<(u64, &'a [u8], Self)> {
        let (prefix, rest) = self.bytes.split_first_chunk::<PREFIX_BYTES>()?;
        let word = u64::from_le_bytes(*prefix);
        if word >> 62 != BRIEF >> 62 {
            return None;
        }
        let (head, len) = split_brief(word);
        let (body, rest) = rest.split_at_checked(len)?;
        Some((head, body, Self { bytes: rest }))
    }

    /// Splits off the first frame if it is complete and not a brief. Also returns the frames after it.
    #[inline]
    pub(crate) fn split_first(&self) -> Option<(&'a [u8], Self)> {
        let (prefix, rest) = self.bytes.split_first_chunk::<PREFIX_BYTES>()?;
        let Ok(Prefix::Frame { len, .. }) = Prefix::from_bytes(*prefix) else { return None };
        let (frame, rest) = rest.split_at_checked(len)?;
        Some((frame, Self { bytes: rest }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_comes_back_as_it_was_written() {
        for prefix in [
            Prefix::Frame { head_len: 0, len: 0 },
            Prefix::Frame { head_len: 255, len: 1 << 40 },
            Prefix::Brief { head: 0, len: 0 },
            Prefix::Brief { head: (1 << BRIEF_HEAD_BITS) - 1, len: MOST_BRIEF_BYTES },
            Prefix::Mark(0),
            Prefix::Mark(u64::MAX >> 1),
        ] {
            assert_eq!(Prefix::from_bytes(prefix.to_bytes()).ok(), Some(prefix));
        }
    }

    #[test]
    fn a_brief_is_no_other_frame() {
        let brief = Prefix::Brief { head: 7, len: 2 }.to_bytes();
        let bytes = [&brief[..], b"ab", &Prefix::Frame { head_len: 0, len: 1 }.to_bytes(), b"c"].concat();
        let frames = Frames::new(&bytes);
        assert!(frames.split_first().is_none());
        let (head, body, rest) = frames.split_brief().unwrap();
        assert_eq!((head, body), (7, &b"ab"[..]));
        assert!(rest.split_brief().is_none());
        assert_eq!(rest.split_first().unwrap().0, b"c");
        assert!(Frames::new(&bytes[..9]).split_brief().is_none());
    }

    #[test]
    fn an_impossible_prefix_is_refused() {
        let brief = ((1u64 << 62) + MOST_BRIEF_BYTES as u64 + 1).to_le_bytes();
        for bytes in [*b"garbage?", brief, (1u64 << 57).to_le_bytes(), (3u64 << 48 | 2).to_le_bytes()] {
            assert!(Prefix::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }
}
