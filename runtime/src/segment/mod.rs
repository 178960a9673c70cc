//! Segments: shared memory without a name. Nobody can change it any more, or it has elements that one process at a time may write,
//! or it is *state*, which several processes change.
//!
//! `shared` makes them for the values that users share, and `codec` finds in them what a task was lent. A segment begins with a page
//! that says what it is, and is handed to other processes as a descriptor. Its identity is valid in every process, in contrast to
//! descriptors and addresses.
#![expect(unsafe_code, reason = "values that were decoded from a segment and live as long as it")]

mod address;
mod attachments;
mod automatic;
mod dead;
mod draft;
mod given;
mod header;
mod known;
mod ledger;
mod lent;
mod loan;
mod map;
mod mutable;
mod state;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    any::{Any, type_name},
    ffi::CStr,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::fd::BorrowedFd,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::sys::{identified::Identified, memory::View};

pub(crate) use address::{Found, find};
pub(crate) use attachments::{
    Attachments, Hold, Listen, Mode, To, adopt_all, attach, attached_by, dropped, hold, inlined, listen,
    look_up, mode, moved_by, outlives, outliving, read_by, set_why, take_why, with_available,
};
pub(crate) use automatic::{Copied, keep_nothing, share, share_text};
pub(crate) use dead::{Bury, bury};
pub(crate) use draft::Draft;
pub(crate) use given::{expect, forget, receive, set_expecting};
use header::Header;
pub(crate) use header::SegmentId;
pub(crate) use lent::LentPart;
pub use lent::{Lent, LentSlice, LentStr};
pub use loan::LentRange;
pub(crate) use loan::{Loan, Loans};
pub use mutable::LentMut;
use mutable::Mutable;
pub(crate) use mutable::{Claim, PartMut};
#[cfg(feature = "futures")]
pub(crate) use state::LOOK_EVERY;
pub(crate) use state::{Repair, State, StateHandle};
pub(crate) use table::{ENTRIES, Entry};

/// What the memory is called in `/proc/<pid>/maps`.
const NAME: &CStr = c"procession-shared";

/// The data begins at the second page, so that elements of any type are aligned.
const DATA_AT: usize = 4096;

/// The number of descriptors with which a segment is handed over, at most.
pub(crate) const MOST_FILES: usize = 2;

/// Returns a number that identifies a type and its layout, in all processes of this build.
pub(crate) fn digest<T: ?Sized>() -> u64 {
    // Unlike the hasher of a map it has no random keys.
    let mut hasher = DefaultHasher::new();
    typeid::of::<T>().hash(&mut hasher);
    hasher.finish()
}

/// What a segment contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One encoded value.
    Value,
    /// Elements, one after the other.
    Slice,
    /// Words that several processes change.
    State,
    /// Nothing. A descriptor of another file travels with it.
    Descriptor,
    /// Elements that one process at a time may write.
    Mutable,
    /// Nothing. The elements are in a file whose descriptor travels with it. A process that has mapped them has a `Slice`.
    File,
}

/// The memory of a segment.
enum Memory {
    /// Nobody can change it.
    Sealed(Arc<View>),
    State(State),
    /// There is none, but a descriptor.
    Descriptor(Identified),
    Mutable(Mutable),
    /// The elements of a file that does not change, as the caller of `map_file` has promised.
    File(View, Identified),
}

/// A segment that this process has mapped.
pub(crate) struct Segment {
    id: SegmentId,
    kind: Kind,
    /// The [`digest`] of the value's type or of the elements' type.
    digest: u64,
    len_bytes: usize,
    memory: Memory,
    /// To hand the segment on. `None` if memory cannot be shared here.
    file: Option<Identified>,
    /// The value, if it was decoded.
    value: OnceLock<Result<Value, String>>,
    /// Whether the data are text, if that is known. A process that has made a segment may lie.
    is_text: OnceLock<bool>,
    /// The segments that the value contains handles of.
    inner: Attachments,
    /// Whether another process was given the segment, and is to forget it.
    is_given: AtomicBool,
    /// What this process has made of the descriptor that travels with the segment.
    user: OnceLock<Box<dyn User>>,
}

/// What a process makes of a descriptor that travels with a segment.
pub(crate) trait User: Any + Send + Sync + UnwindSafe + RefUnwindSafe {}

/// A value that was decoded from a segment.
struct Value {
    at: NonNull<u8>,
    /// Drops the value.
    drop: unsafe fn(NonNull<u8>),
}

// SAFETY: `Segment::value` gives out references only as the type that `digest` stands for, and the makers of segments of values require
// that type to be `Send` and `Sync`.
unsafe impl Send for Value {}
// SAFETY: as above.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: `at` and `drop` were made together from a box, and no reference to the value outlives this.
        unsafe { (self.drop)(self.at) };
    }
}

impl Segment {
    fn new(header: &Header, memory: Memory, file: Option<Identified>, inner: Attachments) -> Arc<Self> {
        let Header { id, kind, digest, len_bytes, .. } = *header;
        let segment = Arc::new(Self {
            id,
            kind,
            digest,
            len_bytes,
            memory,
            file,
            value: OnceLock::new(),
            is_text: OnceLock::new(),
            inner,
            is_given: false.into(),
            user: OnceLock::new(),
        });
        known::add(&segment);
        if kind == Kind::Slice && len_bytes > 0 {
            address::add(&segment, Kind::Slice, segment.data().as_ptr().addr(), len_bytes);
        }
        segment
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the data. Only values and slices that cannot be changed have some that can be borrowed.
    pub(crate) fn data(&self) -> &[u8] {
        match &self.memory {
            Memory::Sealed(view) => &view.bytes()[DATA_AT..][..self.len_bytes],
            Memory::File(view, _) => view.bytes(),
            _ => &[],
        }
    }

    /// Returns the words that several processes change, if it has them.
    pub(crate) fn state(&self) -> Option<&State> {
        match &self.memory {
            Memory::State(state) => Some(state),
            _ => None,
        }
    }

    /// Returns the elements that one process at a time may write, if it has such elements.
    fn mutable(&self) -> Option<&Mutable> {
        match &self.memory {
            Memory::Mutable(mutable) => Some(mutable),
            _ => None,
        }
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Returns the data if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        let is_text = || std::str::from_utf8(self.data()).is_ok();
        if self.digest == digest::<str>() && *self.is_text.get_or_init(is_text) {
            // SAFETY: it was checked, or made from a `str` by this process, and it cannot be changed.
            Some(unsafe { std::str::from_utf8_unchecked(self.data()) })
        } else {
            None
        }
    }

    /// Repairs what a process that was reaped has left, if this is state.
    pub(crate) fn recover(&self, pid: u32) {
        if let Memory::State(state) = &self.memory {
            state.recover(pid);
        }
    }

    /// Returns the segments that the value contains handles of.
    pub(crate) fn inner(&self) -> &Attachments {
        &self.inner
    }

    /// Returns the descriptor by which other processes get the segment. Returns `None` if memory cannot be shared here, or if other code
    /// has closed the descriptor.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref()?.check().ok()
    }

    /// Returns the descriptors by which other processes get the segment, at most [`MOST_FILES`]. There are none if other code has closed
    /// one of them.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let descriptor = match &self.memory {
            Memory::Descriptor(descriptor) | Memory::File(_, descriptor) => descriptor.check().map(Some),
            _ => Ok(None),
        };
        let file = self.file().filter(|_| descriptor.is_ok());
        file.into_iter().chain(descriptor.ok().flatten())
    }

    /// Returns whether the segment can be handed over, with what its value contains. A reader does not get what a process may still change,
    /// and only workers get mapped files.
    pub(crate) fn can_go(&self, to: To) -> bool {
        let may_go = |segment: &Self| match (to, &segment.memory) {
            (To::Task | To::Several, _) => true,
            (To::Caller, memory) => !matches!(memory, Memory::File(..)),
            (To::Reader, _) => segment.is_fixed(),
        };
        may_go(self) && self.inner.iter().all(|inner| may_go(inner)) && self.files().next().is_some()
    }

    /// Returns whether no process can change the data, unless it is state.
    fn is_fixed(&self) -> bool {
        match &self.memory {
            Memory::Sealed(view) => view.is_sealed(),
            Memory::State(_) | Memory::Descriptor(_) => true,
            Memory::Mutable(_) | Memory::File(..) => false,
        }
    }

    /// Returns the descriptor that travels with the segment.
    ///
    /// # Errors
    ///
    /// There is none, or other code has closed it.
    pub(crate) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.memory {
            Memory::Descriptor(descriptor) => descriptor.check(),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Returns what this process has made of the descriptor that travels with the segment. It lives as long as the segment, under any of
    /// whose locks it may be dropped. Returns `None` if it is of another type.
    pub(crate) fn user<T: User>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        let user: &dyn Any = &**self.user.get_or_init(|| Box::new(make()));
        user.downcast_ref()
    }

    /// Notes that another process is given the segment.
    pub(crate) fn set_given(&self) {
        self.is_given.store(true, Ordering::Relaxed);
        self.restore_header();
    }

    /// Returns the value, which is decoded once in each process, by the first that asks.
    ///
    /// # Errors
    ///
    /// The segment has a value of another type, or the value cannot be decoded.
    pub(crate) fn value<T: 'static>(
        self: &Arc<Self>,
        decode: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<&T, String> {
        self.value_or_decode(decode)
    }

    /// Returns the value if it was decoded and is a `T`.
    fn decoded<T>(&self) -> Option<&T> {
        let value = self.value.get()?.as_ref().ok()?;
        if self.kind != Kind::Value || self.digest != digest::<T>() {
            return None;
        }
        // SAFETY: the value is a `T`, apart from lifetimes: its type has the digest of the segment, and so has `T`. It lives as long as the
        // segment and is never changed.
        Some(unsafe { value.at.cast::<T>().as_ref() })
    }

    /// Like [`value`](Self::value), for types that borrow from the segment, which must not be used after it is dropped.
    fn value_or_decode<'a, T>(
        self: &Arc<Self>,
        decode: impl FnOnce(&'a [u8]) -> Result<T, String>,
    ) -> Result<&T, String> {
        if self.kind != Kind::Value || self.digest != digest::<T>() {
            return Err(format!("the shared value is not a `{}`", type_name::<T>()));
        }
        let value = self.value.get_or_init(|| {
            let data: *const [u8] = self.data();
            // SAFETY: the data lives as long as the segment, longer than the value. Who gets a value that borrows it keeps the segment:
            // `Lent` gives it out for as long as itself lives.
            let data = unsafe { &*data };
            let value = Box::new(with_available(&self.inner, || decode(data))?);
            let at = NonNull::from(Box::leak(value));
            if size_of::<T>() > 0 {
                address::add(self, Kind::Value, at.addr().get(), size_of::<T>());
            }
            Ok(Value { at: at.cast(), drop: drop_as::<T> })
        });
        value.as_ref().map_err(Clone::clone)?;
        self.decoded().ok_or_else(|| "the shared value has another type".to_owned())
    }

    /// Returns some of the elements, if they are of this type.
    fn elements<T>(&self, offset_bytes: usize, len_bytes: usize) -> Option<&[T]> {
        let size = size_of::<T>();
        let is_of = self.kind == Kind::Slice && self.digest == digest::<T>() && size > 0;
        let bytes = self.data().get(offset_bytes..offset_bytes.checked_add(len_bytes)?)?;
        let is_whole = is_of && offset_bytes.is_multiple_of(size) && len_bytes.is_multiple_of(size);
        let start = bytes.as_ptr().cast::<T>();
        if !is_whole || !start.is_aligned() {
            return None;
        }
        // SAFETY: the digest says that the segment was made from elements of this type, by this program: it is `Pod`, and any bytes are valid.
        // They are aligned, as was checked, lie within the data, and are never changed.
        Some(unsafe { std::slice::from_raw_parts(start, len_bytes / size) })
    }
}

/// Drops a value in a box.
///
/// # Safety
///
/// It must come from a box of a `T`, and is not used any more.
unsafe fn drop_as<T>(at: NonNull<u8>) {
    // SAFETY: by this function's conditions.
    drop(unsafe { Box::from_raw(at.cast::<T>().as_ptr()) });
}

impl Drop for Segment {
    fn drop(&mut self) {
        known::remove(self.id);
        if self.kind == Kind::Slice && self.len_bytes > 0 {
            address::remove(Kind::Slice, self.data().as_ptr().addr());
        }
        if let Some(Ok(value)) = self.value.take()
            && let Memory::Sealed(view) = &self.memory
        {
            address::remove(Kind::Value, value.at.addr().get());
            dead::bury_later(value, view.clone());
        }
        if *self.is_given.get_mut() {
            attachments::note_dropped();
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("id", &self.id)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}
