//! Detects that this process is a forked copy, by a page that the kernel wipes on fork.
#![expect(unsafe_code, reason = "a page that the kernel wipes in forked copies")]

use std::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

use nix::libc;

use super::memory::wiped_by_fork;

/// The generation of this process, and in a copy, until somebody asks, that of the process that it was copied from.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The same in a word that is zero in a copy, until somebody asks.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// The word where the kernel wipes nothing. Copies that are made by `fork` are told apart, those by a bare system call are not.
static UNWIPED: AtomicU32 = AtomicU32::new(0);

/// In a copy, before anything else of ours.
extern "C" fn wipe() {
    UNWIPED.store(0, Ordering::Relaxed);
}

/// Which process this is, of those between the program's start and it, each a copy of the one before, whoever made it: what an object
/// remembers to know whether it is a copy that belongs to another process.
#[inline]
pub(crate) fn generation() -> u32 {
    let mark = mark();
    match mark.load(Ordering::Relaxed) {
        0 => begin_generation(mark),
        this => this,
    }
}

/// No lock: what another thread had locked when the process was copied stays locked in the copy.
#[inline]
pub(super) fn mark() -> &'static AtomicU32 {
    // SYNC(fork-mark): pairs with the exchange in `make_mark`.
    let mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        return make_mark();
    }
    // SAFETY: what is not null there has come from a reference that is good for ever.
    unsafe { &*mark }
}

#[cold]
fn make_mark() -> &'static AtomicU32 {
    let made = wiped_by_fork().unwrap_or_else(|_| {
        // SAFETY: `wipe` takes nothing, does not unwind, and only stores to an atomic. Two threads that come here at once have it called
        // twice, which is the same.
        unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
        &UNWIPED
    });
    made.store(GENERATION.load(Ordering::Relaxed), Ordering::Relaxed);
    let made_at = ptr::from_ref(made).cast_mut();
    // SYNC(fork-mark): pairs with the Acquire load in `mark`, and with itself where two threads come at once.
    match MARK.compare_exchange(ptr::null_mut(), made_at, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        // SAFETY: as in `mark`.
        Err(first) => unsafe { &*first },
    }
}

/// This process is a copy that has only just begun.
#[cold]
fn begin_generation(mark: &AtomicU32) -> u32 {
    let next = GENERATION.load(Ordering::Relaxed) + 1;
    // Of several threads one is the first.
    match mark.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            GENERATION.store(next, Ordering::Relaxed);
            next
        }
        Err(this) => this,
    }
}
