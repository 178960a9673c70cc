//! Access to the memory of a ring. This is the only file that touches it.
//!
//! Every access is checked against the size of the memory, so that an invalid cursor cannot lead outside of it.
#![expect(unsafe_code, reason = "copies to and from memory that another process writes")]

use std::ptr::NonNull;

use super::{Broken, HEADER_BYTES, header::Header};

/// Memory lent to a ring.
///
/// # Safety
///
/// For as long as the value lives, wherever it is moved:
///
/// - [`base`](Self::base) and [`len_bytes`](Self::len_bytes) always return the same values;
/// - `base` is aligned to 64 and valid for reads and writes of `len_bytes`, and any bytes there are valid;
/// - other processes may write the memory at any time; in this one, nothing but one [`Producer`](super::Producer) and one
///   [`Consumer`](super::Consumer) accesses it.
pub(crate) unsafe trait Memory: Send {
    /// Returns the start of the memory.
    fn base(&self) -> NonNull<u8>;

    /// Returns the length of the header and the data.
    fn len_bytes(&self) -> usize;
}

/// A header and data: lent memory, or that of a model.
pub(crate) trait RingMemory {
    /// Returns the size of the data, which is a power of two.
    fn capacity(&self) -> Result<usize, Broken>;

    /// Returns the shared words. Only for a place that has a capacity.
    fn header(&self) -> &Header;

    /// Copies parts into the data, one after the other. Only for a place that has a capacity.
    ///
    /// # Panics
    ///
    /// Panics if the parts do not fit between `at` and the end of the data.
    fn put(&self, at: usize, parts: &[&[u8]]);

    /// Appends a copy of `len` bytes of the data. Only for a place that has a capacity.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer than `len` bytes between `at` and the end of the data.
    fn append(&self, at: usize, len: usize, out: &mut Vec<u8>);
}

impl<M: Memory> RingMemory for M {
    fn capacity(&self) -> Result<usize, Broken> {
        let capacity =
            self.len_bytes().checked_sub(HEADER_BYTES).filter(|capacity| capacity.is_power_of_two());
        capacity.filter(|_| self.base().addr().get().is_multiple_of(64)).ok_or(Broken::Unfit)
    }

    #[inline]
    fn header(&self) -> &Header {
        assert!(self.len_bytes() >= HEADER_BYTES, "only memory with a capacity is asked");
        // SAFETY: the memory is as large as a header, as was just checked, and aligned and valid for as long as `self`, as `Memory`
        // promises; any bytes are a valid `Header`, for it is made of atomics, and through them alone is it accessed.
        unsafe { self.base().cast::<Header>().as_ref() }
    }

    #[inline]
    fn put(&self, at: usize, parts: &[&[u8]]) {
        let mut to = data(self, at, sum(parts));
        for part in parts {
            // SAFETY: `data` checked that the target and what follows it for the sum of the parts, of which this is the next, lies in
            // memory that is valid for writes; the source is memory of our own, and so does not overlap it. Not raced: an honest
            // consumer reads nothing at or past `tail` before ring-published; a process that breaks that rule changes which
            // bytes are there, and no decision here depends on them.
            unsafe { copy(part.as_ptr(), to.as_ptr(), part.len()) };
            // SAFETY: the end of this part is at most the end of all of them, within the same memory.
            to = unsafe { to.add(part.len()) };
        }
    }

    #[inline]
    fn append(&self, at: usize, len: usize, out: &mut Vec<u8>) {
        let from = data(self, at, len);
        out.reserve(len);
        let to = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: `data` checked that the source lies in memory that is valid for reads; `reserve` saw to it that the target is as
        // long, it is memory of our own, and so does not overlap it. Not raced: an honest producer writes nothing before `head` +
        // capacity until ring-freed; what another process does against that rule changes which bytes the copy has.
        unsafe { copy(from.as_ptr(), to, len) };
        let filled = out.len() + len;
        // SAFETY: the length is within the capacity, by `reserve`, and the copy has initialized the bytes up to it.
        unsafe { out.set_len(filled) };
    }
}

/// Returns the length of all parts together.
#[inline]
pub(super) fn sum(parts: &[&[u8]]) -> usize {
    // The same part may occur many times.
    parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()))
}

/// Returns the address of `len` bytes in the data.
#[inline]
fn data(memory: &impl Memory, at: usize, len: usize) -> NonNull<u8> {
    let most = memory.len_bytes().checked_sub(HEADER_BYTES).and_then(|data| data.checked_sub(at));
    assert!(most.is_some_and(|most| len <= most), "an end stays within its ring");
    // SAFETY: header, `at` and `len` bytes end within the memory, as was just checked, and so does this.
    unsafe { memory.base().add(HEADER_BYTES + at) }
}

/// Copies bytes, a few of them without a call.
///
/// # Safety
///
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// Copies between `N` and `2 * N` bytes, as two pieces of `N` bytes that may overlap.
    #[inline(always)]
    unsafe fn two<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: `N` is at most `len`, for which the caller promises all that is asked.
        unsafe { from.copy_to_nonoverlapping(to, N) };
        let rest = len - N;
        // SAFETY: `rest` is less than `len`.
        let from = unsafe { from.add(rest) };
        // SAFETY: as above.
        let to = unsafe { to.add(rest) };
        // SAFETY: `rest` and `N` make `len`, for which the caller promises all that is asked.
        unsafe { from.copy_to_nonoverlapping(to, N) };
    }
    // The common cases come first.
    match len {
        // SAFETY: from 16 to 32, and the caller's promises.
        17..=32 => unsafe { two::<16>(from, to, len) },
        // SAFETY: from 8 to 16, and the caller's promises.
        9..=16 => unsafe { two::<8>(from, to, len) },
        // SAFETY: the caller's promises, for a length that the compiler knows.
        8 => unsafe { from.copy_to_nonoverlapping(to, 8) },
        // SAFETY: from 4 to 8, and the caller's promises.
        4..=7 => unsafe { two::<4>(from, to, len) },
        // SAFETY: from 2 to 4, and the caller's promises.
        2..=3 => unsafe { two::<2>(from, to, len) },
        // SAFETY: one byte, and the caller's promises.
        1 => unsafe { from.copy_to_nonoverlapping(to, 1) },
        0 => {}
        // SAFETY: from 32 to 64, and the caller's promises.
        33..=64 => unsafe { two::<32>(from, to, len) },
        // SAFETY: the caller's promises.
        _ => unsafe { from.copy_to_nonoverlapping(to, len) },
    }
}
