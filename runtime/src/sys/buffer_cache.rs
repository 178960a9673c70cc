//! One large buffer that was used and is not needed any more, kept for the next large value: memory that was touched takes bytes
//! several times as fast as fresh memory does.
//!
//! Kept only while a [`Keeper`] lives, who promises to call [`expire`] after a rest; one a process, of a bounded size. Whoever asks while
//! another thread is at it does without, so that nothing here is waited for, in a copy of this process neither.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A buffer that nobody has asked for so long is given back.
pub(crate) const REST: Duration = Duration::from_secs(1);
/// The allocator keeps smaller ones by itself.
const LEAST_BYTES: usize = 1 << 20;
/// Larger ones are not kept.
const MOST_BYTES: usize = 256 << 20;

static SPARE: Mutex<Option<Spare>> = Mutex::new(None);
/// There may be one. Looked at without the lock, and so a hint.
static HELD: AtomicBool = AtomicBool::new(false);
static KEEPERS: AtomicUsize = AtomicUsize::new(0);

struct Spare {
    bytes: Vec<u8>,
    /// When it was put here.
    since: Instant,
}

/// Somebody who gives back what is kept, after a rest.
#[derive(Debug)]
pub(crate) struct Keeper(());

impl Keeper {
    pub(crate) fn new() -> Self {
        KEEPERS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if KEEPERS.fetch_sub(1, Ordering::Relaxed) == 1 {
            replace(|_| true, None);
        }
    }
}

/// An empty buffer, with room for so many bytes and for few more, if there was one that fits.
pub(crate) fn take(len_bytes: usize) -> Vec<u8> {
    // One that is much too large would be a lot of memory for that value; one that is too small is moved, not copied, as it grows.
    let fits = |spare: &Spare| spare.bytes.capacity() / 2 <= len_bytes;
    let mut bytes = match len_bytes {
        LEAST_BYTES.. => replace(fits, None).map(|spare| spare.bytes).unwrap_or_default(),
        _ => Vec::new(),
    };
    if bytes.capacity() > len_bytes {
        bytes.shrink_to(len_bytes);
    }
    bytes
}

/// Keeps the buffer, or drops it.
pub(crate) fn put(mut bytes: Vec<u8>) {
    if (LEAST_BYTES..=MOST_BYTES).contains(&bytes.capacity()) && KEEPERS.load(Ordering::Relaxed) > 0 {
        bytes.clear();
        drop(replace(|_| true, Some(Spare { bytes, since: Instant::now() })));
    }
}

/// A buffer may be kept: one look.
#[inline]
pub(crate) fn is_held() -> bool {
    HELD.load(Ordering::Relaxed)
}

/// Drops the buffer if nobody has asked for it for [`REST`]. Returns how long it is until that is so.
pub(crate) fn expire() -> Option<Duration> {
    if !is_held() {
        return None;
    }
    let mut left = None;
    let expired = replace(
        |spare| {
            left = REST.checked_sub(spare.since.elapsed()).filter(|left| !left.is_zero());
            left.is_none()
        },
        None,
    );
    drop(expired);
    left
}

/// This process is a copy: who would have given back what was kept is another's.
pub(crate) fn forget_keepers() {
    KEEPERS.store(0, Ordering::Relaxed);
    drop(replace(|_| true, None));
}

/// Takes what is kept, if it is as `which` says, and keeps something else. The caller drops it, with nothing locked.
fn replace(which: impl FnOnce(&Spare) -> bool, new: Option<Spare>) -> Option<Spare> {
    let Ok(mut spare) = SPARE.try_lock() else { return new };
    let old = if spare.as_ref().is_some_and(which) { spare.take() } else { None };
    if new.is_some() {
        *spare = new;
    }
    HELD.store(spare.is_some(), Ordering::Relaxed);
    old
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_given_back_with_its_keeper() {
        // Others use the one that this process has: what is not there any more was of use to them.
        let keeper = Keeper::new();
        let mut bytes = Vec::with_capacity(8 << 20);
        bytes.push(1);
        put(bytes);
        assert_eq!(take(10).capacity(), 0, "small values have memory enough");
        assert!(take(2 << 20).capacity() <= 4 << 20, "it is much too large for that");
        let taken = take(7 << 20);
        assert!(taken.is_empty() && taken.capacity() <= 8 << 20);
        put(vec![0; MOST_BYTES + 1]);
        assert!(take(MOST_BYTES + 1).capacity() <= MOST_BYTES, "larger ones are not kept");
        drop(keeper);
    }
}
