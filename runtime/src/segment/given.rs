//! The segments that the host of this process has given to it.
//!
//! The worker's thread that receives them puts them here, and the thread that decodes waits for one that is on its way.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use super::{Segment, SegmentId, bury};
use crate::{sync::ignore_poison, sys::per_process::PerProcess};

/// How long a segment may be on its way. It is sent before the task that needs it, and the host does not wait to send it.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

thread_local! {
    /// The arguments of a task are being decoded, and their segments may be on their way.
    static EXPECTS: Cell<bool> = const { Cell::new(false) };
}

/// Notes whether the arguments of a task with handles are being decoded on this thread.
pub(crate) fn set_expecting(expects: bool) {
    EXPECTS.set(expects);
}

static GIVEN: PerProcess<Given> = PerProcess::new();

#[derive(Debug, Default)]
struct Given {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The segments, each of which was mapped or could not be.
    segments: BTreeMap<SegmentId, Result<Arc<Segment>, String>>,
    /// Segments that were forgotten before they arrived. They come by another way than the request to forget them.
    forgotten: BTreeSet<SegmentId>,
    /// Some have not arrived and will not, because this process may not open more descriptors.
    are_lost: bool,
}

impl Given {
    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }
}

/// Notes that this process has a host that gives it segments.
pub(crate) fn expect() {
    GIVEN.get_or_init(Given::default);
}

/// Keeps the segments that came with a message from the host, until they are forgotten. Some may have been lost, because this process
/// may not open as many descriptors.
pub(crate) fn receive(fds: Vec<OwnedFd>, are_lost: bool) {
    if are_lost {
        GIVEN.get_or_init(Given::default).lock().are_lost = true;
    }
    let mut fds = fds.into_iter();
    while let Some(fd) = fds.next() {
        let given = GIVEN.get_or_init(Given::default);
        // What a value contains handles of arrives before it.
        let find = |id| given.lock().segments.get(&id)?.as_ref().ok().cloned();
        let Some((id, segment)) = Segment::adopt(fd, &mut fds, find) else { continue };
        let mut state = given.lock();
        let replaced = if state.forgotten.remove(&id) {
            Some(segment.map_err(|error| error.to_string()))
        } else {
            // The code that decodes its handle reports what has failed.
            state.segments.insert(id, segment.map_err(|error| error.to_string()))
        };
        drop(state);
        drop(replaced);
        given.arrived.notify_all();
    }
}

/// Forgets a segment. What the code of users still has stays.
pub(crate) fn forget(id: SegmentId) {
    if let Some(given) = GIVEN.get() {
        let mut state = given.lock();
        let segment = state.segments.remove(&id);
        if segment.is_none() {
            state.forgotten.insert(id);
        }
        drop(state);
        drop(segment);
        bury();
    }
}

/// Waits for a segment.
pub(super) fn wait_for(id: SegmentId) -> Result<Arc<Segment>, String> {
    let unknown = || format!("shared memory {id} did not come with the value that names it");
    let given = GIVEN.get().ok_or_else(unknown)?;
    let timeout = if EXPECTS.get() { ON_ITS_WAY } else { Duration::ZERO };
    let is_missing = |state: &mut State| !state.segments.contains_key(&id) && !state.are_lost;
    let (state, _) = ignore_poison(given.arrived.wait_timeout_while(given.lock(), timeout, is_missing));
    match state.segments.get(&id) {
        Some(Ok(segment)) => Ok(segment.clone()),
        Some(Err(why)) => Err(format!("shared memory cannot be mapped: {why}")),
        None if state.are_lost => {
            Err("shared memory did not arrive: this process may not open more descriptors (`ulimit -n`)"
                .to_owned())
        }
        None => Err(unknown()),
    }
}
