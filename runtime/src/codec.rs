//! Values to bytes and back, in postcard's encoding.
//!
//! Called by the expansion of `#[worker]` for arguments and results, by the protocol for its messages, and by handles to decode
//! results. Every error is a sentence that names the value's type; none leaves a partial value behind.
//!
//! A byte vector and a sequence of bytes have the same encoding, so either side may take the short way by itself.

use std::{any::Any, any::type_name, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Fault;

/// Appends `value` to `out`; on an error `out` is as it was.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    postcard::serialize_with_flavor(value, Appender(out)).map_err(|error| {
        out.truncate(start);
        explain::<T>("encoded", error)
    })
}

/// Appends a result: like [`encode`], and a byte vector in one copy.
pub(crate) fn encode_result<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Vec<u8>>() {
        encode_bytes(bytes, out);
        return Ok(());
    }
    encode(value, out)
}

/// Decodes a whole result: like [`decode`], and a byte vector in one copy.
pub(crate) fn decode_result<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
    let mut slot: Option<T> = None;
    if let Some(vec) = (&mut slot as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>() {
        *vec = Some(decode::<&[u8]>(bytes)?.to_vec());
    }
    match slot {
        Some(value) => Ok(value),
        None => decode(bytes),
    }
}

/// Decodes one value that fills `bytes` to the last.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!(
            "`{}` left {} of {} bytes unread when it was decoded: its Serialize and Deserialize do not agree",
            type_name::<T>(),
            rest.len(),
            bytes.len()
        )),
        Err(error) => Err(explain::<T>("decoded", error)),
    }
}

/// What is left of a task's encoded arguments. Part of the expansion's interface.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next argument.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    pub fn take<T: Deserialize<'a>>(&mut self, name: &str) -> Result<T, Fault> {
        let (value, rest) = postcard::take_from_bytes(self.rest).map_err(|error| {
            Fault::Codec(format!("argument `{name}`: {}", explain::<T>("decoded", error)))
        })?;
        self.rest = rest;
        Ok(value)
    }

    /// Takes the next argument, bytes, without a copy.
    ///
    /// # Errors
    ///
    /// The argument does not decode.
    pub fn take_bytes(&mut self, name: &str) -> Result<&'a [u8], Fault> {
        self.take(name)
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
    pub fn finish(self) -> Result<(), Fault> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Fault::Codec(format!(
                "{left} bytes of the arguments were left unread: an argument's Serialize and Deserialize do not agree"
            ))),
        }
    }
}

/// Where a function's result goes. Part of the expansion's interface.
#[derive(Debug)]
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Puts the result.
    ///
    /// # Errors
    ///
    /// It does not encode.
    pub fn put<T: Serialize + 'static>(&mut self, value: &T) -> Result<(), Fault> {
        encode_result(value, self.bytes).map_err(|words| Fault::Codec(format!("the result: {words}")))
    }
}

/// Appends bytes as postcard does: their number, then themselves.
pub(crate) fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let mut len = bytes.len();
    out.reserve(len + MOST_VARINT_BYTES);
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

/// A 64-bit number, seven bits a byte.
const MOST_VARINT_BYTES: usize = 10;

/// Lets postcard append to a vector that it does not own.
struct Appender<'a>(&'a mut Vec<u8>);

impl Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Says what postcard's error means for a person who never heard of postcard.
fn explain<T: ?Sized>(done: &str, error: postcard::Error) -> String {
    use postcard::Error as E;
    let why = match error {
        E::WontImplement => {
            "it asks the encoding to describe itself (serde's `flatten`, untagged enums, `serde_json::Value`), \
             which a compact encoding does not do; pass a plain struct, or the value as a string"
        }
        E::SerializeSeqLengthUnknown => "a sequence in it does not know its length; collect it into a Vec",
        E::DeserializeUnexpectedEnd => "the bytes end too soon",
        E::SerdeSerCustom | E::SerdeDeCustom => "its own Serialize or Deserialize refused",
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
            let (mut short, mut long) = (Vec::new(), Vec::new());
            encode_result(&bytes, &mut short).unwrap();
            encode(&bytes, &mut long).unwrap();
            assert_eq!(short, long);
            assert_eq!(decode_result::<Vec<u8>>(&short).unwrap(), bytes);
            assert_eq!(decode::<Vec<u8>>(&short).unwrap(), bytes);
        }
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
