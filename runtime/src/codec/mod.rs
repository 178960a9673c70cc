//! Converts values to bytes and back, in postcard's encoding.
//!
//! The expansion of `#[worker]` uses it for arguments and results, the protocol for its messages, and handles to decode results.
//! Every error is a sentence that names the value's type. No error leaves a partial value behind.
//!
//! A byte vector and a sequence of bytes have the same encoding, so either side may use a shortcut independently of the other.

pub(crate) mod bytes;
mod guard;
mod input;
pub(crate) mod output;
pub mod path;

use std::any::type_name;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use input::Input;
pub use output::Output;

pub(crate) use bytes::{Buffer, Bytes, HERE_BYTES, LARGE_BYTES, ShortBytes, WORD_BYTES};
pub(crate) use output::{Encoded, OwnedResult, decode_result, encode_value};

use crate::segment::take_why;

/// Appends `value` to `out`. If that fails, `out` is unchanged.
#[inline(always)]
pub(crate) fn encode<T: Serialize + ?Sized, B: Buffer>(value: &T, out: &mut B) -> Result<(), String> {
    let start = out.len();
    let mut postcard = postcard::Serializer { output: Appender { out, word: 0, len: 0 } };
    match value.serialize(&mut postcard) {
        Ok(()) => {
            postcard.output.flush();
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(explain::<T>("encoded", error))
        }
    }
}

/// Decodes a result that is not a byte vector.
#[inline(always)]
fn decode_value<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
    path::decode_as_paths(bytes).unwrap_or_else(|| decode(bytes))
}

/// Decodes one value that uses all of `bytes`.
#[inline(always)]
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let mut rest = bytes;
    match guard::take(&mut rest) {
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

/// Types that can be arguments, on the worker's side. Expansions require [`Argument`](crate::__private::Argument) first, which has
/// the error message.
pub trait Received<'a>: Deserialize<'a> {}

#[diagnostic::do_not_recommend]
impl<'a, T: Deserialize<'a>> Received<'a> for T {}

/// Lets postcard append to a buffer that it does not own.
///
/// Up to eight bytes are collected in a register and appended together. A processor stalls if it reads several bytes at once that have
/// just been written one by one, and short values are sent immediately.
struct Appender<'a, B> {
    out: &'a mut B,
    /// The last bytes, which are not in `out` yet, from the lowest on.
    word: u64,
    /// Their number.
    len: usize,
}

impl<B: Buffer> Appender<'_, B> {
    #[inline(always)]
    fn flush(&mut self) {
        if self.len > 0 {
            self.out.push_word(self.word, self.len);
            (self.word, self.len) = (0, 0);
        }
    }
}

impl<B: Buffer> Flavor for Appender<'_, B> {
    type Output = ();

    #[inline(always)]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        if self.len == WORD_BYTES {
            self.flush();
        }
        self.word |= u64::from(data) << (8 * self.len);
        self.len += 1;
        Ok(())
    }

    #[inline(always)]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if data.len() > WORD_BYTES - self.len {
            self.flush();
        }
        if data.len() > WORD_BYTES {
            self.out.extend_from_slice(data);
        } else {
            let mut shift = 8 * self.len;
            for &byte in data {
                self.word |= u64::from(byte) << shift;
                shift += 8;
            }
            self.len += data.len();
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Explains a postcard error to users who do not know postcard.
#[cold]
fn explain<T: ?Sized>(done: &str, error: postcard::Error) -> String {
    use postcard::Error as E;
    if error == guard::TOO_MANY_UNBACKED {
        return format!(
            "`{}` cannot be {done}: it claims to have over {} elements more than it has bytes; for elements that \
             take no bytes, send their number instead",
            type_name::<T>(),
            guard::MOST_UNBACKED,
        );
    }
    if let Some(why) = take_why() {
        return format!("`{}` cannot be {done}: {why}", type_name::<T>());
    }
    let why = match error {
        E::WontImplement => {
            "it needs a self-describing encoding (serde's `flatten`, untagged enums, `serde_json::Value`), and this \
             one is not; pass a plain struct, or the value as a string"
        }
        E::SerializeSeqLengthUnknown => "a sequence in it does not know its length; collect it into a Vec",
        E::DeserializeUnexpectedEnd => "the data ends too early",
        E::SerdeSerCustom => {
            "its Serialize implementation failed; if that was because of a path that is not valid UTF-8, put the \
             path into a field of a struct, \
             with `#[serde(with = \"procession::path\")]`"
        }
        E::SerdeDeCustom => "its Deserialize implementation failed",
        E::DeserializeBadUtf8 | E::DeserializeBadChar => "the bytes are not valid UTF-8",
        _ => "the bytes do not fit the type",
    };
    format!("`{}` cannot be {done}: {why}", type_name::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{
        bytes::{BARE_BYTES, encode_byte_vec, encode_bytes},
        output::decode_result,
    };
    use crate::segment::{Attachments, To};

    #[test]
    fn byte_vectors_have_one_encoding_on_both_paths() {
        for len in [0usize, 1, 127, 128, 300, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (mut short, mut large, mut long) = (Vec::new(), Vec::new(), Vec::new());
            Output::new(To::Caller, &mut short, &mut large, &mut Attachments::default())
                .put(bytes.clone())
                .unwrap();
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
                // If it is cut anywhere else than between the length and the bytes, it is refused or joined, but never misread.
                match decode_result::<Vec<u8>>(encoded) {
                    Ok(back) => assert_eq!(back, bytes),
                    Err(_) => assert!(!head.is_empty() && head.len() + len != all.len()),
                }
            }
            assert_eq!(decode_result::<Vec<u8>>(Encoded::Short(&long)).unwrap(), bytes);
        }
    }

    #[test]
    fn short_values_that_are_collected_have_postcards_encoding() {
        fn check<T: Serialize>(value: &T) {
            let plain = postcard::to_allocvec(value).unwrap();
            let (mut vec, mut short) = (vec![1, 2, 3], ShortBytes::from_slice(&[1, 2, 3]));
            encode(value, &mut vec).unwrap();
            encode(value, &mut short).unwrap();
            assert_eq!((&vec[3..], &short[3..]), (&plain[..], &plain[..]));
        }
        for bits in 0..64 {
            let number = u64::MAX >> bits;
            check(&number);
            check(&(number, number as u8, -1i16, number, Some(number), number as u32));
        }
        for len in 0..40 {
            let text = "x".repeat(len);
            check(&text);
            check(&(true, &text, 300u16, &text, [7u8; 9]));
            check(&vec![300u32; len]);
        }
        check(&());
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

        // A byte vector before or behind other values is copied.
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
