//! Keeps one large buffer that is no longer used, for the next large value. Filling memory that was touched before is several times
//! as fast as filling fresh memory.
//!
//! The codec and the transport take buffers, and messages return them when they are dropped. A buffer is kept only while a
//! [`Keeper`] exists, whose owner calls [`expire`] at times. There is at most one buffer per process, and its size is limited. This
//! module never waits for a lock, so a copy of this process cannot block here. A thread that finds the lock taken does without the
//! cache.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The time for which an unused buffer is kept.
pub(crate) const REST: Duration = Duration::from_secs(1);
/// Smaller buffers are left to the allocator.
const LEAST_BYTES: usize = 1 << 20;
/// Larger buffers are not kept.
const MOST_BYTES: usize = 256 << 20;

static SPARE: Mutex<Option<Spare>> = Mutex::new(None);
/// There may be a buffer. Read without the lock, and therefore a hint.
static HELD: AtomicBool = AtomicBool::new(false);
static KEEPERS: AtomicUsize = AtomicUsize::new(0);

struct Spare {
    bytes: Vec<u8>,
    /// The time at which the buffer was put here.
    since: Instant,
}

/// Keeps the cache in use. The owner must call [`expire`] at times.
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

/// Returns an empty buffer. If one of a suitable size was kept, it already has room for up to `len_bytes` bytes.
pub(crate) fn take(len_bytes: usize) -> Vec<u8> {
    // A buffer that is much too large would waste memory on this value. One that is too small is moved, not copied, as it grows.
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

/// Returns whether a buffer may be kept. Costs one load.
#[inline]
pub(crate) fn is_held() -> bool {
    HELD.load(Ordering::Relaxed)
}

/// Drops the buffer if it was not used for [`REST`]. Otherwise returns how long it will still be kept.
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

/// Forgets the keepers in a copy of this process. They belong to the original process.
pub(crate) fn forget_keepers() {
    KEEPERS.store(0, Ordering::Relaxed);
    drop(replace(|_| true, None));
}

/// Takes the buffer that is kept, if `which` accepts it, and keeps `new` instead. The caller drops the result after the lock was
/// released.
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
        // Other tests of this process use the buffer, too, so it may be missing.
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
