//! Finds the segment that a reference points into.
//!
//! A task's argument that lies in shared memory is sent as a handle. `task` asks here for every argument that a function borrows, so
//! two comparisons must be enough for nearly all that are not shared.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Kind, Segment, digest};
use crate::{sync::ignore_poison, sys::per_process::PerProcess};

/// The elements of segments, which lie in mappings.
static ELEMENTS: Index = Index::new();
/// The values of segments, which lie on the heap.
static VALUES: Index = Index::new();

/// The ranges that belong to segments of this process.
struct Index {
    /// By their first address. A copy of this process finds none of those it has inherited.
    ranges: PerProcess<RwLock<BTreeMap<usize, Range>>>,
    /// No range begins before this address.
    lowest: AtomicUsize,
    /// No range ends after this address.
    highest: AtomicUsize,
}

struct Range {
    end: usize,
    segment: Weak<Segment>,
}

/// A part of a segment's elements, or its value.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) segment: Arc<Segment>,
    /// Where the part begins in the segment's data. 0 for a value.
    pub(crate) offset_bytes: usize,
}

impl Index {
    const fn new() -> Self {
        Self { ranges: PerProcess::new(), lowest: AtomicUsize::new(usize::MAX), highest: AtomicUsize::new(0) }
    }

    fn of(kind: Kind) -> &'static Self {
        match kind {
            Kind::Value => &VALUES,
            // Of the others nothing is found: elements that may change while they are encoded are sent by value.
            Kind::Slice | Kind::State | Kind::Descriptor | Kind::Mutable | Kind::File => &ELEMENTS,
        }
    }

    #[inline(always)]
    fn may_have(&self, start: usize) -> bool {
        // Whoever has a reference into a segment has seen its range being added.
        start >= self.lowest.load(Ordering::Relaxed) && start < self.highest.load(Ordering::Relaxed)
    }
}

/// Notes that these bytes belong to a segment.
pub(super) fn add(segment: &Arc<Segment>, kind: Kind, start: usize, len_bytes: usize) {
    let (index, end) = (Index::of(kind), start + len_bytes);
    index.lowest.fetch_min(start, Ordering::Relaxed);
    index.highest.fetch_max(end, Ordering::Relaxed);
    let range = Range { end, segment: Arc::downgrade(segment) };
    ignore_poison(index.ranges.get_or_init(RwLock::default).write()).insert(start, range);
}

/// Removes the range that begins at this address.
pub(super) fn remove(kind: Kind, start: usize) {
    // A copy of this process has none of those that it has inherited.
    if let Some(ranges) = Index::of(kind).ranges.get() {
        ignore_poison(ranges.write()).remove(&start);
    }
}

/// Returns where in a segment of this kind a value lies, or elements of type `T`.
#[inline(always)]
pub(crate) fn find<T: ?Sized>(kind: Kind, start: usize, len_bytes: usize) -> Option<Found> {
    let index = Index::of(kind);
    if index.may_have(start) && len_bytes > 0 {
        find_slowly(index, kind, digest::<T>(), start, len_bytes)
    } else {
        None
    }
}

#[cold]
fn find_slowly(index: &Index, kind: Kind, digest: u64, start: usize, len_bytes: usize) -> Option<Found> {
    let ranges = ignore_poison(index.ranges.get()?.read());
    let (&first, range) = ranges.range(..=start).next_back()?;
    let segment = (start < range.end).then(|| range.segment.upgrade())??;
    // The value may be the first field of another one that is shared.
    let is_inside = start + len_bytes <= range.end && (kind == Kind::Slice || start == first);
    drop(ranges);
    let is_same = segment.kind() == kind && segment.digest() == digest;
    (is_same && is_inside).then_some(Found { offset_bytes: start - first, segment })
}
