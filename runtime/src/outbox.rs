//! Replies that a worker has made and not sent yet, where the host finds them whatever becomes of the worker.
//!
//! A system call for each reply costs more than a short task. So the worker lays replies of a batch here, in memory that it shares
//! with the host, and sends many with one call. If it dies first, or is held up by a long task, the host takes them from here; what
//! it has already seen when they arrive by the connection, it passes over, for they are numbered.
//!
//! One word holds the number of times that the outbox was emptied and how many words it holds. The worker appends behind what is
//! there and only then counts it in; a reader that finds the same number of emptyings before and after it copied has copied what
//! was there.

use crate::sync::{AtomicU64, Ordering, fence};

/// How many words of eight bytes an outbox in use has.
pub(crate) const WORDS: usize = 2048;

/// The shared part. All zero is an empty one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Outbox<const N: usize> {
    /// High half: how often it was emptied. Low half: how many words it holds.
    state: AtomicU64,
    words: [AtomicU64; N],
}

fn split(state: u64) -> (u32, usize) {
    ((state >> 32) as u32, (state & 0xffff_ffff) as usize)
}

fn join(emptied: u32, len: usize) -> u64 {
    (u64::from(emptied) << 32) | len as u64
}

impl<const N: usize> Outbox<N> {
    /// An empty outbox in memory of this process.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { state: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// In the worker: appends bytes, padded with zeros to whole words. `false`: there is no room.
    ///
    /// Only the worker's serving thread calls it and [`clear`](Self::clear).
    pub(crate) fn append(&self, bytes: &[u8]) -> bool {
        let (emptied, len) = split(self.state.load(Ordering::Relaxed));
        let count = bytes.len().div_ceil(8);
        let Some(room) = self.words.get(len..).filter(|room| room.len() >= count) else { return false };
        for (word, chunk) in room.iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        // SYNC(outbox-filled): pairs with the Acquire load of `state` in `copy`.
        self.state.store(join(emptied, len + count), Ordering::Release);
        true
    }

    /// In the worker: all that it holds has been sent.
    pub(crate) fn clear(&self) {
        let (emptied, len) = split(self.state.load(Ordering::Relaxed));
        if len > 0 {
            self.state.store(join(emptied.wrapping_add(1), 0), Ordering::Relaxed);
            // SYNC(outbox-emptied): pairs with the Acquire fence in `copy`: whoever reads a word that is written from now on, sees
            // that the outbox was emptied.
            fence(Ordering::Release);
        }
    }

    /// In the host: what it holds, unless it was emptied meanwhile. The bytes are the worker's word, and not to be believed.
    pub(crate) fn copy(&self) -> Option<Vec<u8>> {
        let (emptied, len) = split(self.state.load(Ordering::Acquire));
        let words = self.words.get(..len)?;
        let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        fence(Ordering::Acquire);
        let (emptied_since, _) = split(self.state.load(Ordering::Relaxed));
        (emptied == emptied_since).then_some(bytes)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_found_until_it_is_cleared() {
        let outbox = Outbox::<4>::new();
        assert_eq!(outbox.copy(), Some(vec![]));
        assert!(outbox.append(b"abc") && outbox.append(b"0123456789"));
        assert_eq!(outbox.copy().as_deref(), Some(&b"abc\0\0\0\0\x000123456789\0\0\0\0\0\0"[..]));
        assert!(!outbox.append(b"0123456789"), "there is one word left");
        outbox.clear();
        assert_eq!(outbox.copy(), Some(vec![]));
        assert!(outbox.append(&[7; 32]));
    }

    #[test]
    fn a_count_that_is_too_large_is_not_believed() {
        let outbox = Outbox::<4>::new();
        outbox.state.store(5, Ordering::Relaxed);
        assert_eq!(outbox.copy(), None);
        assert!(!outbox.append(b"a"));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    /// Whatever the order of events, the reader sees nothing, or the first reply, or the second; never a mixture.
    #[test]
    fn a_copy_is_of_one_filling() {
        loom::model(|| {
            let outbox = loom::sync::Arc::new(Outbox::<2>::new());
            let worker = {
                let outbox = outbox.clone();
                loom::thread::spawn(move || {
                    assert!(outbox.append(&[1; 16]));
                    outbox.clear();
                    assert!(outbox.append(&[2; 16]));
                })
            };
            if let Some(bytes) = outbox.copy() {
                assert!(bytes.is_empty() || bytes == [1; 16] || bytes == [2; 16], "{bytes:?}");
            }
            worker.join().unwrap();
        });
    }
}
