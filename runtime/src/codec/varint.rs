//! Postcard's encoding of single numbers, one word at a time. Everything else is left to postcard. The bytes are the same.
//!
//! A task that takes and returns one number needs less time than postcard needs for its bytes one by one.

use postcard::{Error, de_flavors::Slice};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::{Appender, bytes::Buffer};

/// Smaller numbers need at most eight bytes.
const IN_A_WORD: u64 = 1 << 56;
/// How many elements of a sequence or a map may take no bytes, as in a `Vec<()>`. The limit applies to the length that the peer
/// claims.
pub(super) const MOST_UNBACKED: u64 = 1 << 20;
/// The error for more elements. Postcard has no such error and uses this one for nothing that we use.
pub(super) const TOO_MANY_UNBACKED: Error = Error::DeserializeBadEncoding;
/// The bit in each byte that says that more bytes follow.
const MORE: u64 = 0x8080_8080_8080_8080;

/// Appends `value` to `out`.
#[inline(always)]
pub(super) fn encode<T: Serialize + ?Sized, B: Buffer>(value: &T, out: &mut B) -> postcard::Result<()> {
    value.serialize(QuickSerializer(&mut postcard::Serializer { output: Appender(out) }))
}

/// Takes a value from the front of `rest`.
#[inline(always)]
pub(super) fn take<'de, T: Deserialize<'de>>(rest: &mut &'de [u8]) -> postcard::Result<T> {
    T::deserialize(QuickDeserializer(rest))
}

/// Returns the bytes of a number below [`IN_A_WORD`] in a word, and their number.
#[inline(always)]
fn spread(number: u64) -> (u64, usize) {
    let x = if number < 1 << 28 {
        // Most numbers are this small.
        let x = number as u32;
        u64::from((x & 0x7f) | (x << 1 & 0x7f00) | (x << 2 & 0x7f_0000) | (x << 3 & 0x7f00_0000))
    } else {
        let x = (number & 0x0fff_ffff) | (number & 0x00ff_ffff_f000_0000) << 4;
        let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
        (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1
    };
    // The last byte is the highest that is not zero, or the first.
    let highest = (x | 1).ilog2() / 8;
    let more = MORE & !(u64::MAX << (8 * highest));
    (x | more, highest as usize + 1)
}

/// Returns the number that these bytes encode, lowest first, and how many bytes it has. Returns `None` if the last byte is not
/// among them.
#[inline(always)]
fn gather(word: u64) -> Option<(u64, usize)> {
    let ends = !word & MORE;
    if ends == 0 {
        return None;
    }
    let ends_at = ends.trailing_zeros();
    // Removes what is behind the last byte.
    let x = word & (ends ^ (ends - 1));
    let number = if ends_at < 32 {
        let x = x as u32;
        u64::from((x & 0x7f) | (x >> 1 & 0x3f80) | (x >> 2 & 0x1f_c000) | (x >> 3 & 0x0fe0_0000))
    } else {
        let x = x & !MORE;
        let x = (x & 0x007f_007f_007f_007f) | (x & 0x7f00_7f00_7f00_7f00) >> 1;
        let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x3fff_0000_3fff_0000) >> 2;
        (x & 0x0fff_ffff) | (x & 0x0fff_ffff_0000_0000) >> 4
    };
    Some((number, ends_at as usize / 8 + 1))
}

/// Returns the first eight bytes as a word. Missing bytes say that more follow.
#[inline]
fn first_word(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk() {
        return u64::from_le_bytes(*eight);
    }
    let missing = u64::MAX << (8 * bytes.len());
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // The two overlap in the middle.
        let shift = 8 * (bytes.len() - 4);
        return missing
            | u64::from(u32::from_le_bytes(*first))
            | u64::from(u32::from_le_bytes(*last)) << shift;
    }
    match *bytes {
        [a, b, c] => missing | u64::from(u32::from_le_bytes([a, b, c, 0])),
        [a, b] => missing | u64::from(u16::from_le_bytes([a, b])),
        [a] => missing | u64::from(a),
        _ => missing,
    }
}

/// Takes a number of at most `most_bytes` bytes and at most `most`. Returns `None` if it is longer or invalid, which postcard
/// handles.
#[inline(always)]
fn take_number(rest: &mut &[u8], most_bytes: usize, most: u64) -> Option<u64> {
    let (number, len) = gather(first_word(rest))?;
    if len > most_bytes || number > most {
        return None;
    }
    *rest = rest.get(len..)?;
    Some(number)
}

struct QuickSerializer<'a, 'b, B: Buffer>(&'a mut postcard::Serializer<Appender<'b, B>>);

impl<B: Buffer> QuickSerializer<'_, '_, B> {
    #[cold]
    fn long(self, number: u64) -> postcard::Result<()> {
        self.0.serialize_u64(number)
    }

    #[inline(always)]
    fn number(self, number: u64) -> postcard::Result<()> {
        if number >= IN_A_WORD {
            return self.long(number);
        }
        let (word, len) = spread(number);
        self.0.output.0.push_word(word, len);
        Ok(())
    }
}

macro_rules! to_postcard {
    ($($method:ident($($arg:ident: $ty:ty),*) -> $ok:ty;)*) => { $(
        #[inline]
        fn $method(self, $($arg: $ty),*) -> postcard::Result<$ok> {
            self.0.$method($($arg),*)
        }
    )* };
}

impl<'a, 'b, B: Buffer> Serializer for QuickSerializer<'a, 'b, B> {
    type Ok = ();
    type Error = postcard::Error;
    type SerializeSeq = &'a mut postcard::Serializer<Appender<'b, B>>;
    type SerializeTuple = Self::SerializeSeq;
    type SerializeTupleStruct = Self::SerializeSeq;
    type SerializeTupleVariant = Self::SerializeSeq;
    type SerializeMap = Self::SerializeSeq;
    type SerializeStruct = Self::SerializeSeq;
    type SerializeStructVariant = Self::SerializeSeq;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_u16(self, v: u16) -> postcard::Result<()> {
        self.number(v.into())
    }

    #[inline(always)]
    fn serialize_u32(self, v: u32) -> postcard::Result<()> {
        self.number(v.into())
    }

    #[inline(always)]
    fn serialize_u64(self, v: u64) -> postcard::Result<()> {
        self.number(v)
    }

    #[inline]
    fn serialize_i16(self, v: i16) -> postcard::Result<()> {
        self.number(u16::from_ne_bytes(((v << 1) ^ (v >> 15)).to_ne_bytes()).into())
    }

    #[inline(always)]
    fn serialize_i32(self, v: i32) -> postcard::Result<()> {
        self.number(((v << 1) ^ (v >> 31)).cast_unsigned().into())
    }

    #[inline(always)]
    fn serialize_i64(self, v: i64) -> postcard::Result<()> {
        self.number(((v << 1) ^ (v >> 63)).cast_unsigned())
    }

    #[inline]
    fn serialize_f64(self, v: f64) -> postcard::Result<()> {
        self.0.output.0.push_word(v.to_bits(), 8);
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> postcard::Result<()> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> postcard::Result<()> {
        self.0.serialize_some(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> postcard::Result<()> {
        self.0.serialize_newtype_variant(name, index, variant, value)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> postcard::Result<()> {
        self.0.collect_str(value)
    }

    to_postcard! {
        serialize_bool(v: bool) -> ();
        serialize_i8(v: i8) -> ();
        serialize_i128(v: i128) -> ();
        serialize_u8(v: u8) -> ();
        serialize_u128(v: u128) -> ();
        serialize_f32(v: f32) -> ();
        serialize_char(v: char) -> ();
        serialize_str(v: &str) -> ();
        serialize_bytes(v: &[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(name: &'static str) -> ();
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> ();
        serialize_seq(len: Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(len: usize) -> Self::SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> Self::SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> Self::SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> Self::SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> Self::SerializeStructVariant;
    }
}

struct QuickDeserializer<'a, 'de>(&'a mut &'de [u8]);

/// Decodes with postcard.
#[inline]
fn by_postcard<'de, T>(
    rest: &mut &'de [u8],
    take: impl FnOnce(&mut postcard::Deserializer<'de, Slice<'de>>) -> postcard::Result<T>,
) -> postcard::Result<T> {
    let mut postcard = postcard::Deserializer::from_bytes(rest);
    let value = take(&mut postcard)?;
    *rest = postcard.finalize()?;
    Ok(value)
}

/// Like [`by_postcard`], for rare cases.
#[cold]
fn long<'de, T>(
    rest: &mut &'de [u8],
    take: impl FnOnce(&mut postcard::Deserializer<'de, Slice<'de>>) -> postcard::Result<T>,
) -> postcard::Result<T> {
    by_postcard(rest, take)
}

/// Refuses a length that cannot be true. Decoding that many elements would take time even if they have no bytes.
#[inline]
fn check_len(bytes: &[u8]) -> postcard::Result<()> {
    match postcard::take_from_bytes::<u64>(bytes) {
        Ok((len, rest)) if len > MOST_UNBACKED + rest.len() as u64 => Err(TOO_MANY_UNBACKED),
        _ => Ok(()),
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty, $most_bytes:literal, $number:ident => $value:expr;)*) => { $(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> postcard::Result<V::Value> {
            match take_number(self.0, $most_bytes, <$ty>::MAX.into()) {
                Some(number) => {
                    let $number = number as $ty;
                    visitor.$visit($value)
                }
                None => long(self.0, |postcard| postcard.$method(visitor)),
            }
        }
    )* };
}

macro_rules! from_postcard {
    ($($method:ident($($arg:ident: $ty:ty),*);)*) => { $(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> postcard::Result<V::Value> {
            by_postcard(self.0, |postcard| postcard.$method($($arg,)* visitor))
        }
    )* };
}

impl<'de> Deserializer<'de> for QuickDeserializer<'_, 'de> {
    type Error = postcard::Error;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_u16 visit_u16 u16, 3, n => n;
        deserialize_u32 visit_u32 u32, 5, n => n;
        deserialize_u64 visit_u64 u64, 10, n => n;
        deserialize_i16 visit_i16 u16, 3, n => (n >> 1).cast_signed() ^ -(n & 1).cast_signed();
        deserialize_i32 visit_i32 u32, 5, n => (n >> 1).cast_signed() ^ -(n & 1).cast_signed();
        deserialize_i64 visit_i64 u64, 10, n => (n >> 1).cast_signed() ^ -(n & 1).cast_signed();
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> postcard::Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> postcard::Result<V::Value> {
        check_len(self.0)?;
        by_postcard(self.0, |postcard| postcard.deserialize_seq(visitor))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> postcard::Result<V::Value> {
        check_len(self.0)?;
        by_postcard(self.0, |postcard| postcard.deserialize_map(visitor))
    }

    from_postcard! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i128();
        deserialize_u8();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::codec::bytes::ShortBytes;

    fn check<T: Serialize + for<'de> Deserialize<'de> + PartialEq + Debug>(value: &T) {
        let postcard = postcard::to_allocvec(value).unwrap();
        for before in [&[][..], &[9; 25]] {
            let (mut long, mut short) = (before.to_vec(), ShortBytes::from_slice(before));
            encode(value, &mut long).unwrap();
            encode(value, &mut short).unwrap();
            assert_eq!((&long[before.len()..], &short[..]), (&postcard[..], &long[..]), "{value:?}");
        }
        for after in 0..12 {
            let bytes = [&postcard[..], &vec![0x81; after]].concat();
            let mut rest = &bytes[..];
            assert_eq!(&take::<T>(&mut rest).unwrap(), value);
            assert_eq!(rest.len(), after, "{value:?}");
        }
    }

    /// Bytes that are not a number, or are encoded differently than postcard does, decode as postcard decodes them.
    fn check_bytes<T: for<'de> Deserialize<'de> + PartialEq + Debug>(bytes: &[u8]) {
        let mut rest = bytes;
        let ours = take::<T>(&mut rest).ok().map(|value| (value, rest));
        assert_eq!(ours, postcard::take_from_bytes(bytes).ok(), "{bytes:?}");
    }

    #[test]
    fn numbers_are_encoded_as_postcard_does() {
        #[derive(Serialize, serde::Deserialize, PartialEq, Debug)]
        struct Wrapped(u64);
        let around = (0..64).flat_map(|bit| [-1i64, 0, 1].map(|by| (1u64 << bit).wrapping_add_signed(by)));
        for n in around.chain([0, u64::MAX, 0x0123_4567_89ab_cdef]) {
            check(&n);
            check(&n.cast_signed());
            check(&n.cast_signed().wrapping_neg());
            check(&(n as u32));
            check(&(n as u32).cast_signed());
            check(&(n as u16));
            check(&(n as u16).cast_signed());
            check(&f64::from_bits(n & (u64::MAX >> 2)));
            check(&Wrapped(n));
            check(&Some(n));
            check(&(n, n as u8, n > 7));
            check(&n.to_string());
        }
    }

    #[test]
    fn bytes_that_are_no_number_are_refused_as_postcard_does() {
        for len in 0..12 {
            for last in [0u8, 1, 3, 4, 0x0f, 0x10, 0x7f, 0x80, 0xff] {
                for first in [0x80u8, 0xff, 0x81] {
                    let mut bytes = vec![first; len];
                    bytes.push(last);
                    check_bytes::<u64>(&bytes);
                    check_bytes::<i64>(&bytes);
                    check_bytes::<u32>(&bytes);
                    check_bytes::<i16>(&bytes);
                    check_bytes::<u16>(&bytes);
                }
            }
        }
    }
}
