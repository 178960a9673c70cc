//! Shares large arguments that do not lie in shared memory.
//!
//! A large argument is copied once into a segment, from which all workers read it. A task that is given the same elements again is given
//! the same segment. `task` asks here for slices of numbers, and for text.
//!
//! To send bytes or text once takes less time than to share them, so they are shared when they are given again. Other numbers are
//! encoded one by one, which takes longer.
#![expect(unsafe_code, reason = "the bytes of numbers")]

use std::{
    hash::{DefaultHasher, Hasher as _},
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use super::{Attachments, Draft, Kind, Segment, To, attachments::is_heard, digest};
use crate::{
    setting::{LEAST_SHARED_BYTES, shared_bytes_by_env},
    sync::ignore_poison,
    sys::per_process::PerProcess,
};

/// How many of these segments a process makes. Each needs a descriptor, here and in workers.
const MOST_MADE: usize = 64;

/// How many arguments that were sent are remembered.
const MOST_SENT: usize = 8;

/// How many parts of an argument tell it from another one that was at the same address.
const SAMPLES: usize = 64;

/// How many of the segments are kept although no task has them any more, for the arguments of the next task.
const MOST_KEPT: usize = 4;

/// How large those are in all.
const MOST_KEPT_BYTES: usize = 64 << 20;

/// A copy of this process has none of those that it has inherited.
static MADE: PerProcess<Mutex<Made>> = PerProcess::new();

/// The segments that were made of arguments.
#[derive(Default)]
struct Made {
    /// With the addresses of the arguments, the last one last.
    all: Vec<(usize, Weak<Segment>)>,
    /// Those that tasks were given last, the last one last, with the addresses. There is one for each address.
    kept: Vec<(usize, Arc<Segment>)>,
    /// Arguments that were sent, the last one last.
    sent: Vec<Sample>,
}

/// What is remembered of an argument that was sent.
#[derive(PartialEq, Eq)]
struct Sample {
    start: usize,
    len_bytes: usize,
    /// The hash of some of the bytes.
    hash: u64,
}

impl Sample {
    fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        let parts = bytes.chunks(bytes.len().div_ceil(SAMPLES).max(1));
        parts.for_each(|part| hasher.write(&part[..part.len().min(16)]));
        Self { start: bytes.as_ptr().addr(), len_bytes: bytes.len(), hash: hasher.finish() }
    }
}

/// A segment with the elements of an argument.
pub(crate) struct Copied {
    pub(crate) segment: Arc<Segment>,
    /// The number of bytes that were copied. 0 if an earlier task was given the same.
    pub(crate) len_bytes: usize,
}

/// Returns a segment with these numbers if they are many and can be shared.
#[inline]
pub(crate) fn share<T>(elements: &[T]) -> Option<Copied> {
    if size_of_val(elements) < LEAST_SHARED_BYTES || !is_number::<T>() {
        return None;
    }
    // SAFETY: a number has no padding, so all of its bytes are initialised, and they are borrowed as long as the elements.
    let bytes = unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) };
    share_bytes(digest::<T>(), bytes, size_of::<T>() > 1)
}

/// Returns a segment with this text if it is long and can be shared.
#[inline]
pub(crate) fn share_text(text: &str) -> Option<Copied> {
    if text.len() < LEAST_SHARED_BYTES { None } else { share_bytes(digest::<str>(), text.as_bytes(), false) }
}

/// Returns a segment with these bytes, which is made `at_once` or when they are given again.
#[cold]
fn share_bytes(digest: u64, bytes: &[u8], at_once: bool) -> Option<Copied> {
    // A value that is not valid is refused where a pool is built.
    if bytes.len() < shared_bytes_by_env().unwrap_or(usize::MAX) {
        return None;
    }
    let start = bytes.as_ptr().addr();
    let before = made().find(start);
    let is_same = |segment: &Arc<Segment>| {
        segment.digest() == digest && segment.can_go(To::Task) && segment.data() == bytes
    };
    let copied = match before.filter(is_same) {
        Some(segment) => Copied { segment, len_bytes: 0 },
        None if made().may_make(at_once, bytes) => {
            let mut draft = Draft::in_file(Kind::Slice, digest, bytes.len()).ok()?;
            draft.write_all(bytes).ok()?;
            let segment = draft.finish(Attachments::default()).ok()?;
            Copied { segment, len_bytes: bytes.len() }
        }
        None => return None,
    };
    let dropped = made().note(start, &copied, is_heard());
    drop(dropped);
    Some(copied)
}

/// Drops what is kept for the next task, because a pool or a process ends.
pub(crate) fn keep_nothing() {
    if MADE.get().is_some() {
        let kept = std::mem::take(&mut made().kept);
        drop(kept);
    }
}

fn made() -> MutexGuard<'static, Made> {
    ignore_poison(MADE.get_or_init(Mutex::default).lock())
}

impl Made {
    /// Returns the segment that was made last of an argument at this address.
    fn find(&self, start: usize) -> Option<Arc<Segment>> {
        self.all.iter().rfind(|(at, _)| *at == start)?.1.upgrade()
    }

    /// Returns whether a segment is made of an argument. Otherwise it is sent.
    fn may_make(&mut self, at_once: bool, bytes: &[u8]) -> bool {
        self.all.retain(|(_, segment)| segment.strong_count() > 0);
        let sample = Sample::of(bytes);
        let was_sent = self.sent.iter().position(|sent| *sent == sample).map(|at| self.sent.remove(at));
        let makes = (at_once || was_sent.is_some()) && self.all.len() < MOST_MADE;
        if !makes {
            self.sent.push(sample);
            let surplus = self.sent.len().saturating_sub(MOST_SENT);
            self.sent.drain(..surplus);
        }
        makes
    }

    /// Notes what a task is given. Returns what is not kept any more, to be dropped without the lock.
    fn note(&mut self, start: usize, copied: &Copied, keeps: bool) -> Vec<(usize, Arc<Segment>)> {
        let Copied { segment, len_bytes } = copied;
        if *len_bytes > 0 {
            self.all.push((start, Arc::downgrade(segment)));
        }
        // What an earlier argument at this address had is not found any more.
        let mut dropped: Vec<_> = self.kept.extract_if(.., |(at, _)| *at == start).collect();
        if keeps {
            self.kept.push((start, segment.clone()));
        }
        let mut room = MOST_KEPT_BYTES;
        let is_kept = |(_, kept): &&(usize, Arc<Segment>)| {
            let has_room = kept.len_bytes() <= room;
            room = room.saturating_sub(kept.len_bytes());
            has_room
        };
        let count = self.kept.iter().rev().take(MOST_KEPT).take_while(is_kept).count();
        dropped.extend(self.kept.drain(..self.kept.len() - count));
        dropped
    }
}

/// Returns whether this is a type of numbers.
fn is_number<T>() -> bool {
    macro_rules! is_one_of {
        ($($number:ty)*) => { [$(typeid::of::<$number>()),*].contains(&typeid::of::<T>()) };
    }
    is_one_of!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64)
}
