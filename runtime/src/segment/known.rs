//! The segments that this process has, by identity, so that one that comes back is not mapped again.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock, Weak},
};

use super::{Segment, SegmentId};
use crate::{sync::ignore_poison, sys::per_process::PerProcess};

/// A copy of this process finds none of those that it has inherited.
static KNOWN: PerProcess<RwLock<BTreeMap<SegmentId, Weak<Segment>>>> = PerProcess::new();

/// Adds a segment.
pub(super) fn add(segment: &Arc<Segment>) {
    ignore_poison(KNOWN.get_or_init(RwLock::default).write()).insert(segment.id, Arc::downgrade(segment));
}

/// Removes a segment that is being dropped, unless another one has its identity by now.
pub(super) fn remove(id: SegmentId) {
    if let Some(known) = KNOWN.get() {
        let mut known = ignore_poison(known.write());
        if known.get(&id).is_some_and(|segment| segment.strong_count() == 0) {
            known.remove(&id);
        }
    }
}

/// Returns the segment with this identity.
pub(super) fn get(id: SegmentId) -> Option<Arc<Segment>> {
    ignore_poison(KNOWN.get()?.read()).get(&id)?.upgrade()
}
