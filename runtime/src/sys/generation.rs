//! Detects that this process is a forked copy, with a page that the kernel wipes on fork.
//!
//! Every value that belongs to one process remembers its [`generation`] and compares it before use. Nothing here may take a lock,
//! because a lock that another thread held during the fork stays locked in the copy.
#![expect(unsafe_code, reason = "a page that the kernel wipes in forked copies")]

use std::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

use nix::libc;

use super::memory::wiped_by_fork;

/// The generation of this process. In a copy that has not asked yet, the generation of the original.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The same number in a word that is zero in a copy that has not asked yet.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// The word that is used if the kernel cannot wipe a page. It detects copies made by `fork`, but not those made by a bare system
/// call.
static UNWIPED: AtomicU32 = AtomicU32::new(0);

/// Runs in a copy before any other code of ours.
extern "C" fn wipe() {
    UNWIPED.store(0, Ordering::Relaxed);
}

/// Returns the generation of this process: its position among the processes that were copied from one another since the program's
/// start, by any code. An object stores it to detect that it is a copy in another process.
#[inline]
pub(crate) fn generation() -> u32 {
    let mark = mark();
    match mark.load(Ordering::Relaxed) {
        0 => begin_generation(mark),
        this => this,
    }
}

/// Takes no lock, because a lock that another thread held while the process was copied stays locked in the copy.
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

/// Starts a new generation in a copy that asks for the first time.
#[cold]
fn begin_generation(mark: &AtomicU32) -> u32 {
    let next = GENERATION.load(Ordering::Relaxed) + 1;
    // If several threads get here, one of them is first.
    match mark.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            GENERATION.store(next, Ordering::Relaxed);
            next
        }
        Err(this) => this,
    }
}
