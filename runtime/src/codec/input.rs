//! What arguments are decoded from.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use super::{Received, bytes::LARGE_BYTES, explain, varint};
use crate::{error::Fault, sample, sys::memory::advise_huge};

/// What is left of a task's encoded arguments. Part of the expansion's interface.
#[derive(Debug)]
pub struct Input<'a> {
    pub(super) rest: &'a [u8],
    /// All of them, as long as none was taken: if a byte vector is all that they are, it is taken as it is.
    pub(super) whole: Option<Whole<'a>>,
}

#[derive(Debug)]
pub(super) enum Whole<'a> {
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
