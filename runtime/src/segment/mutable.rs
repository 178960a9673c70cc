//! Elements that one process at a time may write: who has which of them.
//!
//! Each range of elements has one owner, a [`Claim`]. A task that borrows a part of it has a loan, and so has a task that the owner was moved
//! to. Loans end when the task has its outcome, which is not before its process can write no more. The ledger of a segment has the claims
//! and the loans that this process knows, and refuses what would overlap.
#![expect(unsafe_code, reason = "slices of memory that other processes write at other times")]

use std::{
    fmt,
    fs::File,
    io,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut, Range},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    ptr::{self, NonNull},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Attachments, DATA_AT, Header, Kind, LentRange, Loan, Memory, NAME, Segment, SegmentId, attachments,
    digest,
    ledger::{Ledger, elements},
    loan::Owned,
    look_up,
};
use crate::sys::{
    generation::generation,
    identified::Identified,
    memory::{self, Mapping},
};

/// The size of a block, of which is noted whether it was mapped in advance.
const BLOCK_BYTES: usize = 256 << 10;

/// Elements that this process has mapped and may write where it has a claim.
pub(super) struct Mutable {
    mapping: ManuallyDrop<Mapping>,
    /// The generation of the process that has mapped them. In its copies the addresses belong to others.
    generation: u32,
    ledger: Ledger,
    /// The blocks whose pages were entered into the mapping in advance.
    populated: OnceLock<Box<[AtomicBool]>>,
}

impl Mutable {
    /// Maps this many bytes of data.
    ///
    /// # Errors
    ///
    /// It has another size, its size can be changed, or it cannot be mapped.
    pub(super) fn map(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Self> {
        let total = len_bytes.checked_add(DATA_AT).ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = Mapping::new(fd, total)?;
        // A copy of this process could otherwise write when it is known that this one has ended.
        mapping.keep_from_copies()?;
        let mapping = ManuallyDrop::new(mapping);
        let (ledger, populated) = Default::default();
        Ok(Self { mapping, generation: generation(), ledger, populated })
    }

    /// Enters a range into the mapping that a task is about to write, if all of the elements were written before. That takes a fraction of
    /// what the faults would take.
    fn populate<'a>(&self, file: impl FnOnce() -> Option<BorrowedFd<'a>>, range: &Range<usize>) {
        let blocks = range.start.div_ceil(BLOCK_BYTES)..range.end.div_ceil(BLOCK_BYTES);
        let is_done = self.populated.get().is_some_and(|populated| {
            populated[blocks.clone()].iter().all(|block| block.load(Ordering::Relaxed))
        });
        // What does not exist is not created, because the task may not need it.
        if !blocks.is_empty() && !is_done && file().is_some_and(memory::is_whole) {
            let count = (self.mapping.len_bytes() - DATA_AT).div_ceil(BLOCK_BYTES);
            let populated =
                self.populated.get_or_init(|| (0..count).map(|_| AtomicBool::new(false)).collect());
            populated[blocks].iter().for_each(|block| block.store(true, Ordering::Relaxed));
            self.mapping.populate(DATA_AT + range.start..DATA_AT + range.end);
        }
    }

    /// Returns whether this process has mapped it, and is not a copy of the one that has.
    fn is_own(&self) -> bool {
        self.generation == generation()
    }

    /// Returns where these bytes are.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent, or if this process is a copy of the one that has them.
    fn bytes(&self, range: &Range<usize>) -> *mut [u8] {
        assert!(
            self.is_own(),
            "a shared slice that can be changed is left to the process that this one is a copy of"
        );
        self.ledger.check(range);
        ptr::slice_from_raw_parts_mut(self.start(range), range.len())
    }

    /// Returns where a range begins.
    fn start(&self, range: &Range<usize>) -> *mut u8 {
        // SAFETY: `map` made the mapping long enough for the header page and the data, and ranges lie within the data.
        unsafe { self.mapping.base().as_ptr().add(DATA_AT + range.start) }
    }
}

impl Drop for Mutable {
    fn drop(&mut self) {
        if self.is_own() {
            // SAFETY: it is dropped here only, and not used after this.
            unsafe { ManuallyDrop::drop(&mut self.mapping) };
        }
    }
}

/// The owner of a range of elements, which may read and write them while they are not lent.
pub(crate) struct Claim(Arc<Owned>);

impl Segment {
    /// Makes zeroed memory for elements that one process at a time may write.
    fn new_mutable(digest: u64, len_bytes: usize) -> io::Result<Arc<Self>> {
        let header = Header { id: SegmentId::new(), kind: Kind::Mutable, digest, len_bytes, inner: 0 };
        let total = len_bytes.checked_add(DATA_AT).ok_or(io::ErrorKind::InvalidInput)?;
        let file = memory::create_file(NAME, total)?;
        file.write_all_at(&header.to_bytes(), 0)?;
        memory::fix_size(file.as_fd())?;
        Self::map_mutable(&header, file.into())
    }

    pub(super) fn map_mutable(header: &Header, fd: OwnedFd) -> io::Result<Arc<Self>> {
        let memory = Memory::Mutable(Mutable::map(fd.as_fd(), header.len_bytes)?);
        Ok(Self::new(header, memory, Some(Identified::new(fd)), Attachments::default()))
    }

    /// Writes the header again if a task has frozen the elements and failed then. The process that is handed them sees that it cannot write
    /// them, and does not wait for what has another identity.
    pub(super) fn restore_header(&self) {
        let Some(mutable) = self.mutable().filter(|mutable| mutable.is_own()) else { return };
        if self.file().is_some_and(|file| memory::is_read_only(file)) {
            let Self { id, kind, digest, len_bytes, .. } = *self;
            let header = Header { id, kind, digest, len_bytes, inner: 0 }.to_bytes();
            // SAFETY: the mapping begins with the page of the header, which is longer. No reference into that page exists anywhere.
            unsafe {
                mutable.mapping.base().copy_from_nonoverlapping(NonNull::from(&header).cast(), header.len())
            };
        }
    }

    /// Returns who has which elements, if they can be changed and this process is not a copy of the one that has mapped them.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        // A copy may have inherited its lock while it was held.
        self.mutable().filter(|mutable| mutable.is_own()).map(|mutable| &mutable.ledger)
    }

    fn bytes_at(&self, range: &Range<usize>) -> *mut [u8] {
        self.mutable().expect("only elements that can be changed have an owner").bytes(range)
    }
}

impl Claim {
    /// Makes zeroed memory for elements of this size and type.
    ///
    /// # Errors
    ///
    /// Memory cannot be shared here, or there is not enough.
    pub(crate) fn new(digest: u64, len_bytes: usize, size: usize) -> io::Result<Self> {
        let segment = Segment::new_mutable(digest, len_bytes)?;
        Self::of(segment, 0..len_bytes, size).map_err(io::Error::other)
    }

    /// Claims elements that another process has given to this one.
    ///
    /// # Errors
    ///
    /// They cannot be written, there are not as many, or they have an owner in this process.
    pub(crate) fn of(segment: Arc<Segment>, range: Range<usize>, size: usize) -> Result<Self, String> {
        let taken =
            || format!("{} of the shared slice have another owner in this process", elements(&range, size));
        let owned = Owned::new(segment, range.clone(), size).ok_or_else(taken)?;
        Ok(Self(Arc::new(owned)))
    }

    /// Returns the segment and the range.
    pub(crate) fn place(&self) -> (&Arc<Segment>, &Range<usize>) {
        (&self.0.segment, &self.0.range)
    }

    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    pub(crate) fn bytes(&self) -> &[u8] {
        let bytes = self.0.segment.bytes_at(&self.0.range);
        // SAFETY: the range lies in the mapping, which lives as long as `self`. Nothing writes meanwhile: this process does so by this
        // claim only, mutably borrowed, and a task only while the range is lent to it or the claim was moved to it. The first ends before
        // the check passes, and the second begins after the claim was dropped.
        unsafe { &*bytes }
    }

    /// Borrows all of the elements.
    pub(crate) fn part(&mut self) -> PartMut<'_> {
        let Owned { segment, range, size, .. } = &*self.0;
        PartMut { segment, range: range.clone(), size: *size, bytes: PhantomData }
    }

    /// Makes two claims of this one, the second from this byte on.
    ///
    /// # Panics
    ///
    /// Panics if it has fewer bytes, if some of them are lent, or if it is to be moved to a task.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        let Owned { segment, range, size, .. } = &*self.0;
        let (segment, range, size) = (segment.clone(), range.clone(), *size);
        assert!(
            at <= range.len(),
            "a shared slice of {} elements cannot be split at {}",
            range.len() / size,
            at / size
        );
        self.give_up();
        let middle = range.start + at;
        let claim = |range| Self::of(segment.clone(), range, size).expect("it was given up");
        (claim(range.start..middle), claim(middle..range.end))
    }

    /// Makes one claim of two if the second follows the first.
    ///
    /// # Errors
    ///
    /// Returns the two if it does not.
    ///
    /// # Panics
    ///
    /// Panics as [`split`](Self::split) does.
    pub(crate) fn join(self, next: Self) -> Result<Self, (Self, Self)> {
        let Owned { segment, range, size, .. } = &*self.0;
        if segment.id != next.0.segment.id || range.end != next.0.range.start {
            return Err((self, next));
        }
        let (segment, range, size) = (segment.clone(), range.start..next.0.range.end, *size);
        self.give_up();
        next.give_up();
        Ok(Self::of(segment, range, size).expect("both were given up"))
    }

    /// Drops the claim, after which nothing of this process uses the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent, or if it is to be moved to a task.
    fn give_up(self) {
        self.0.segment.bytes_at(&self.0.range);
        assert!(Arc::strong_count(&self.0) == 1, "a shared slice was given to a task, which still has it");
    }

    /// Makes a segment of the elements that nobody can change, without a copy.
    ///
    /// # Errors
    ///
    /// Returns the claim if it is not of all elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent, or if it is to be moved to a task.
    pub(crate) fn freeze(self) -> Result<io::Result<Arc<Segment>>, Self> {
        let (segment, range) = (self.0.segment.clone(), self.0.range.clone());
        if range.len() != segment.len_bytes || range.is_empty() {
            return Err(self);
        }
        self.give_up();
        Ok(segment.freeze())
    }

    /// Moves the claim, once it is dropped, to the task whose arguments are being encoded, or to the caller of the task whose result is.
    ///
    /// # Errors
    ///
    /// Something else is being encoded, or the segment cannot be handed to another process.
    ///
    /// # Panics
    ///
    /// Panics if some of the elements are lent.
    pub(crate) fn attach(&self) -> Result<(), String> {
        self.0.segment.bytes_at(&self.0.range);
        if self.0.segment.file().is_none() {
            return Err("the descriptor of its memory was closed by other code in this process".to_owned());
        }
        attachments::attach_moved(&self.0.segment, Loan::Moved(self.0.clone()))
    }
}

impl Segment {
    /// Makes another segment of the memory, which nobody can change and which has another identity, so that other processes forget this one and
    /// its writable mapping.
    fn freeze(self: Arc<Self>) -> io::Result<Arc<Self>> {
        let fd = self.file.as_ref().ok_or(io::ErrorKind::Unsupported)?.check()?.try_clone_to_owned()?;
        let file = File::from(fd);
        let Self { digest, len_bytes, .. } = *self;
        let header = Header { id: SegmentId::new(), kind: Kind::Slice, digest, len_bytes, inner: 0 };
        // Nothing refers to the page of the header in a mapping.
        file.write_all_at(&header.to_bytes(), 0)?;
        // This is the last mapping, if no other process has one.
        drop(self);
        if memory::seal(file.as_fd()).is_err() {
            // Those who have one are lent nothing of it, and forget it.
            memory::seal_but_for_mappings(file.as_fd())?;
        }
        Self::map(file.into(), Attachments::default())
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("range", &self.0.range).finish_non_exhaustive()
    }
}

/// Elements that are borrowed from a [`Claim`], which can be lent to a task.
pub(crate) struct PartMut<'a> {
    segment: &'a Arc<Segment>,
    range: Range<usize>,
    size: usize,
    bytes: PhantomData<&'a mut [u8]>,
}

impl PartMut<'_> {
    pub(crate) fn len_bytes(&self) -> usize {
        self.range.len()
    }

    fn as_bytes(&self) -> *mut [u8] {
        self.segment.bytes_at(&self.range)
    }

    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `Claim::bytes`. Parts of a claim that exist at the same time do not overlap.
        unsafe { &*self.as_bytes() }
    }

    /// Returns the elements.
    ///
    /// # Panics
    ///
    /// Panics if some of them are lent.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the part is mutably borrowed.
        unsafe { &mut *self.as_bytes() }
    }

    /// Makes two parts of this one, the second from this byte on, which must lie in the part.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        debug_assert!(at <= self.range.len(), "the caller has checked it");
        let middle = self.range.start + at.min(self.range.len());
        let Self { segment, range, size, .. } = self;
        let part = |range| Self { segment, range, size, bytes: PhantomData };
        (part(range.start..middle), part(middle..range.end))
    }

    /// Lends the part to a task of this function.
    ///
    /// # Panics
    ///
    /// Panics if some of the elements are lent.
    pub(crate) fn lend(self, function: &'static str) -> LentRange {
        LentRange::new(self.segment.clone(), self.range, self.size, function)
    }
}

impl<'a> PartMut<'a> {
    /// Does the same as [`bytes_mut`](Self::bytes_mut), for as long as the claim is borrowed.
    pub(crate) fn into_bytes(self) -> &'a mut [u8] {
        // SAFETY: as in `bytes_mut`. The segment lives as long as the claim, which is mutably borrowed.
        unsafe { &mut *self.as_bytes() }
    }
}

/// Elements that a function writes for the process that has lent them. Part of the expansion's interface.
pub struct LentMut<T> {
    segment: Arc<Segment>,
    range: Range<usize>,
    of: PhantomData<T>,
}

impl<T> LentMut<T> {
    /// Returns these elements of a segment. The arguments of a task say that they are lent to it.
    ///
    /// # Errors
    ///
    /// There is no such segment, or the elements are not of this type.
    pub(super) fn new(id: SegmentId, offset_bytes: usize, len_bytes: usize) -> Result<Self, String> {
        let (segment, size) = (look_up(id)?, size_of::<T>());
        let end = offset_bytes.checked_add(len_bytes).filter(|end| *end <= segment.len_bytes);
        let is_of = segment.kind == Kind::Mutable && segment.digest == digest::<T>() && size > 0;
        match end {
            // The data begins at a page, so what is a multiple of the size is aligned.
            Some(end) if is_of && offset_bytes.is_multiple_of(size) && len_bytes.is_multiple_of(size) => {
                let range = offset_bytes..end;
                if let Some(mutable) = segment.mutable() {
                    mutable.populate(|| segment.file(), &range);
                }
                Ok(Self { segment, range, of: PhantomData })
            }
            _ => Err("the elements that were lent have another type".to_owned()),
        }
    }

    fn start(&self) -> *mut T {
        self.segment.mutable().expect("it was checked").start(&self.range).cast()
    }

    fn len(&self) -> usize {
        self.range.len() / size_of::<T>()
    }
}

impl<T> Deref for LentMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the digest says that the segment was made for elements of this type, by this program: it is `Pod`, and any bytes are
        // valid. They are aligned and lie within the data, as was checked. While the task runs they are lent to it alone.
        unsafe { std::slice::from_raw_parts(self.start(), self.len()) }
    }
}

impl<T> DerefMut for LentMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is the only owner in this task.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len()) }
    }
}

impl<T> fmt::Debug for LentMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentMut").finish_non_exhaustive()
    }
}
