//! The owners of arguments that a function borrows: they were sent by value, or lie in a segment.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Found, LentMut, LentRange, Segment, SegmentId, look_up};

/// A part of a segment, as it is encoded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LentPart {
    id: SegmentId,
    offset_bytes: usize,
    len_bytes: usize,
}

impl LentPart {
    pub(crate) fn new(found: &Found, len_bytes: usize) -> Self {
        Self { id: found.segment.id(), offset_bytes: found.offset_bytes, len_bytes }
    }

    /// Returns what stands for a range that is lent to the task.
    pub(crate) fn of(range: &LentRange) -> Self {
        let LentRange { segment, range, .. } = range;
        Self { id: segment.id(), offset_bytes: range.start, len_bytes: range.len() }
    }

    /// Returns the elements, which must be of this type, and were lent to the task.
    pub(crate) fn elements_mut<T>(&self) -> Result<LentMut<T>, String> {
        LentMut::new(self.id, self.offset_bytes, self.len_bytes)
    }

    /// Returns the segment's value, which is decoded if it was not yet.
    pub(crate) fn value<'a, T>(
        &self,
        decode: impl FnOnce(&'a [u8]) -> Result<T, String>,
    ) -> Result<Lent<T>, String> {
        let segment = look_up(self.id)?;
        segment.value_or_decode(decode)?;
        Ok(Lent(Owner::Segment(segment)))
    }

    /// Returns the elements, which must be of this type.
    pub(crate) fn elements<O, T>(&self) -> Result<LentSlice<O, T>, String> {
        let &Self { id, offset_bytes, len_bytes } = self;
        let segment = look_up(id)?;
        let part = Part { segment, offset_bytes, len_bytes, of: PhantomData };
        part.segment.elements::<T>(offset_bytes, len_bytes).ok_or("the shared elements have another type")?;
        Ok(LentSlice(SliceOwner::Part(part)))
    }
}

/// The owner of a value that a function borrows. Part of the expansion's interface.
pub struct Lent<T>(Owner<T>);

enum Owner<T> {
    Value(T),
    /// Its value was decoded.
    Segment(Arc<Segment>),
}

impl<T> From<T> for Lent<T> {
    #[inline]
    fn from(value: T) -> Self {
        Self(Owner::Value(value))
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Owner::Value(value) => value,
            Owner::Segment(segment) => segment.decoded().expect("it was decoded"),
        }
    }
}

impl<T> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

/// The owner of elements that a function borrows. Part of the expansion's interface.
pub struct LentSlice<O, T>(SliceOwner<O, T>);

enum SliceOwner<O, T> {
    /// A vector, or a slice of the message.
    Value(O),
    Part(Part<T>),
}

struct Part<T> {
    segment: Arc<Segment>,
    offset_bytes: usize,
    len_bytes: usize,
    of: PhantomData<fn() -> T>,
}

impl<O, T> From<O> for LentSlice<O, T> {
    #[inline]
    fn from(elements: O) -> Self {
        Self(SliceOwner::Value(elements))
    }
}

impl<O: Deref<Target = [T]>, T> Deref for LentSlice<O, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            SliceOwner::Value(elements) => elements,
            SliceOwner::Part(part) => {
                part.segment.elements(part.offset_bytes, part.len_bytes).expect("it was checked")
            }
        }
    }
}

impl<O, T> fmt::Debug for LentSlice<O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentSlice").finish_non_exhaustive()
    }
}

/// The owner of text that a function borrows. Part of the expansion's interface.
pub struct LentStr<'a>(StrOwner<'a>);

enum StrOwner<'a> {
    Value(&'a str),
    Part(Arc<Segment>, std::ops::Range<usize>),
}

impl<'a> From<&'a str> for LentStr<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self(StrOwner::Value(text))
    }
}

impl LentStr<'_> {
    /// Returns a part of a segment's text.
    pub(crate) fn of(part: &LentPart) -> Result<Self, String> {
        let segment = look_up(part.id)?;
        let range = part.offset_bytes..part.offset_bytes.saturating_add(part.len_bytes);
        segment
            .text()
            .and_then(|text| text.get(range.clone()))
            .ok_or("the shared memory is not this text")?;
        Ok(Self(StrOwner::Part(segment, range)))
    }
}

impl Deref for LentStr<'_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match &self.0 {
            StrOwner::Value(text) => text,
            StrOwner::Part(segment, range) => &segment.text().expect("it was checked")[range.clone()],
        }
    }
}

impl fmt::Debug for LentStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentStr").finish_non_exhaustive()
    }
}
