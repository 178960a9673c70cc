//! Defines [`Input`], from which the expansion of `#[worker]` decodes arguments.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    Received,
    bytes::{LARGE_BYTES, Short, ShortBytes},
    decode, explain, guard,
};
use crate::{
    error::Fault,
    sample,
    segment::{Lent, LentMut, LentPart, LentSlice, LentStr, set_expecting},
    sys::memory::advise_huge,
};

/// The remaining encoded arguments of a task. Part of the expansion's interface.
#[derive(Debug)]
pub struct Input<'a> {
    pub(super) rest: &'a [u8],
    /// All of the arguments, until one is taken. If they consist of one byte vector, it can be taken as it is.
    pub(super) whole: Option<Whole<'a>>,
    /// A bit for each of the remaining arguments that the function borrows: whether it is a part of a segment.
    pub(super) lent: u32,
}

#[derive(Debug)]
pub(super) enum Whole<'a> {
    Plain(&'a mut Vec<u8>),
    /// A byte vector without its length.
    Bare(&'a mut Vec<u8>),
    /// The same, but it cannot be taken.
    Lent(&'a [u8]),
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, whole: None, lent: 0 }
    }

    /// Creates an input of arguments that are not needed afterwards. They are one byte vector without its length if they are bare.
    /// The caller drops what is left of them.
    pub(crate) fn of(bytes: &'a mut Vec<u8>, is_bare: bool) -> Self {
        let whole = if is_bare { Whole::Bare(bytes) } else { Whole::Plain(bytes) };
        Self { rest: &[], whole: Some(whole), lent: 0 }
    }

    /// Returns all of the arguments, which must not be bare.
    pub(crate) fn into_bytes(mut self) -> &'a [u8] {
        self.rest()
    }

    /// Notes which of the arguments that the function borrows are parts of segments.
    pub(crate) fn with_lent(self, lent: u32) -> Self {
        Self { lent, ..self }
    }

    /// Returns the next argument that the function borrows, if it is a part of a segment.
    #[inline]
    fn part(&mut self, name: &str) -> Result<Option<LentPart>, Fault> {
        let is_part = self.lent & 1 != 0;
        self.lent >>= 1;
        if is_part { self.take(name).map(Some) } else { Ok(None) }
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
        // Bare arguments can only be taken as bytes.
        if let Some(Whole::Plain(whole)) = self.whole.take() {
            self.rest = whole;
        }
    }

    /// Takes the next argument.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    #[inline]
    pub fn take<T: Received<'a>>(&mut self, name: &str) -> Result<T, Fault> {
        let mut rest = self.rest();
        let value = guard::take(&mut rest).map_err(|error| {
            Fault::codec(format!("argument `{name}`: {}", explain::<T>("decoded", error)))
        })?;
        self.rest = rest;
        Ok(value)
    }

    /// Takes the next argument, which the function borrows.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    #[inline]
    pub fn take_lent<T: Received<'a>>(&mut self, name: &str) -> Result<Lent<T>, Fault> {
        match self.part(name)? {
            None => self.take::<T>(name).map(Lent::from),
            Some(part) => part.value(decode).map_err(not_shared(name)),
        }
    }

    /// Takes the next argument, which is a slice.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    #[inline]
    pub fn take_slice<T: Received<'a>>(&mut self, name: &str) -> Result<LentSlice<Vec<T>, T>, Fault> {
        match self.part(name)? {
            None => self.take::<Vec<T>>(name).map(LentSlice::from),
            Some(part) => part.elements().map_err(not_shared(name)),
        }
    }

    /// Takes the next argument, a slice that the function writes for its caller.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    pub fn take_mut<T>(&mut self, name: &str) -> Result<LentMut<T>, Fault> {
        self.take::<LentPart>(name)?.elements_mut().map_err(not_shared(name))
    }

    /// Takes the next argument, which is text, without a copy.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    #[inline]
    pub fn take_str(&mut self, name: &str) -> Result<LentStr<'a>, Fault> {
        match self.part(name)? {
            None => self.take::<&'a str>(name).map(LentStr::from),
            Some(part) => LentStr::of(&part).map_err(not_shared(name)),
        }
    }

    /// Takes the next argument, which is a byte slice, without a copy.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    pub fn take_byte_slice(&mut self, name: &str) -> Result<LentSlice<&'a [u8], u8>, Fault> {
        match self.part(name)? {
            None => self.take_bytes(name).map(LentSlice::from),
            Some(part) => part.elements().map_err(not_shared(name)),
        }
    }

    /// Takes the next argument, which is a byte slice, without a copy.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    pub fn take_bytes(&mut self, name: &str) -> Result<&'a [u8], Fault> {
        match self.whole.take() {
            Some(Whole::Bare(bytes)) => return Ok(bytes),
            Some(Whole::Lent(bytes)) => return Ok(bytes),
            plain => self.whole = plain,
        }
        self.take(name)
    }

    /// Takes the next argument, which is a byte vector. Large bytes that are the only argument are not copied.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
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

    /// Takes the next argument, which is a path of any bytes, without a copy.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    pub fn take_path(&mut self, name: &str) -> Result<&'a Path, Fault> {
        self.take_bytes(name).map(|bytes| Path::new(OsStr::from_bytes(bytes)))
    }

    /// Does the same as [`take_path`](Self::take_path), with a copy.
    ///
    /// # Errors
    ///
    /// The argument cannot be decoded.
    pub fn take_path_buf(&mut self, name: &str) -> Result<PathBuf, Fault> {
        self.take_path(name).map(Path::to_path_buf)
    }

    /// Ends the decoding of a function's arguments.
    ///
    /// # Errors
    ///
    /// There are bytes left, because an argument's `Serialize` and `Deserialize` do not agree.
    #[inline]
    pub fn finish(mut self) -> Result<(), Fault> {
        sample::end();
        set_expecting(false);
        match self.rest().len() {
            0 => Ok(()),
            left => Err(Fault::codec(format!(
                "{left} bytes of the arguments were left unread: an argument's Serialize and Deserialize do not agree"
            ))),
        }
    }
}

fn not_shared(name: &str) -> impl FnOnce(String) -> Fault {
    move |words| Fault::codec(format!("argument `{name}`: {words}"))
}

impl ShortBytes {
    /// Returns the bytes for decoding.
    pub(crate) fn as_input(&self) -> Input<'_> {
        match &self.0 {
            Short::Bare(bytes) => Input { rest: &[], whole: Some(Whole::Lent(bytes)), lent: 0 },
            _ => Input::new(self),
        }
    }
}
