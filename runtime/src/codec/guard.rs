//! Decodes with postcard, and refuses a sequence or map with more elements than could have been sent.
//!
//! Elements that have no bytes, as in a `Vec<()>`, cost nothing to send, so a few bytes could claim any number of them.

use postcard::{Deserializer as Postcard, Error, de_flavors::Slice};
use serde::{Deserialize, Deserializer, de::Visitor};

/// The number of elements of a sequence or a map that may take no bytes. The limit applies to the length that the peer claims.
pub(super) const MOST_UNBACKED: u64 = 1 << 20;
/// The error for more elements. Postcard has no such error and uses this one for nothing that we use.
pub(super) const TOO_MANY_UNBACKED: Error = Error::DeserializeBadEncoding;

/// Takes a value from the front of `rest`.
#[inline(always)]
pub(super) fn take<'de, T: Deserialize<'de>>(rest: &mut &'de [u8]) -> postcard::Result<T> {
    let mut postcard = Postcard::from_bytes(rest);
    let value = T::deserialize(Guarded { postcard: &mut postcard, bytes: rest })?;
    *rest = postcard.finalize()?;
    Ok(value)
}

struct Guarded<'a, 'de> {
    postcard: &'a mut Postcard<'de, Slice<'de>>,
    /// Everything that is left to decode.
    bytes: &'de [u8],
}

impl Guarded<'_, '_> {
    /// Refuses a length that cannot be true. Decoding that many elements would take time even if they have no bytes.
    fn check_len(&self) -> postcard::Result<()> {
        match postcard::take_from_bytes::<u64>(self.bytes) {
            Ok((len, rest)) if len > MOST_UNBACKED + rest.len() as u64 => Err(TOO_MANY_UNBACKED),
            _ => Ok(()),
        }
    }
}

macro_rules! to_postcard {
    ($($method:ident($($arg:ident: $ty:ty),*);)*) => { $(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> postcard::Result<V::Value> {
            self.postcard.$method($($arg,)* visitor)
        }
    )* };
}

impl<'de> Deserializer<'de> for Guarded<'_, 'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> postcard::Result<V::Value> {
        self.check_len()?;
        self.postcard.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> postcard::Result<V::Value> {
        self.check_len()?;
        self.postcard.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> postcard::Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    to_postcard! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
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
    use std::collections::BTreeMap;

    use super::*;

    fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> postcard::Result<(T, usize)> {
        let mut rest = bytes;
        take(&mut rest).map(|value| (value, rest.len()))
    }

    #[test]
    fn a_length_that_cannot_be_true_is_refused() {
        let claims = |len: u64| postcard::to_allocvec(&len).unwrap();
        let most = usize::try_from(MOST_UNBACKED).unwrap();
        assert_eq!(decode::<Vec<()>>(&claims(MOST_UNBACKED)), Ok((vec![(); most], 0)));
        assert_eq!(decode::<Vec<()>>(&claims(MOST_UNBACKED + 1)), Err(TOO_MANY_UNBACKED));
        assert_eq!(decode::<BTreeMap<(), ()>>(&claims(u64::MAX)), Err(TOO_MANY_UNBACKED));
        assert_eq!(decode::<Vec<u8>>(&[2, 7, 8, 9]), Ok((vec![7, 8], 1)));
    }

    #[test]
    fn values_are_taken_from_the_front() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Wrapped(Vec<(u64, Option<i32>)>);
        assert_eq!(decode::<Wrapped>(&[1, 0x80, 1, 1, 3, 9]), Ok((Wrapped(vec![(128, Some(-2))]), 1)));
        assert_eq!(decode::<u64>(&[0x80]), Err(Error::DeserializeUnexpectedEnd));
    }
}
