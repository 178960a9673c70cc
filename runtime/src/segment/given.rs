//! The segments that the host of this process has given to it.
//!
//! The worker's thread that receives them puts them here, and the thread that decodes waits for one that is on its way.

use std::{
    cell::Cell,
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use super::{Segment, SegmentId, bury, known};
use crate::{sync::ignore_poison, sys::per_process::PerProcess};

/// How long a segment may be on its way. It is sent before the task that needs it, and the host does not wait to send it.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

thread_local! {
    /// The arguments of a task are being decoded, and their segments may be on their way.
    static EXPECTS: Cell<bool> = const { Cell::new(false) };
}

/// Notes whether the arguments of a task with handles are being decoded on this thread.
#[inline]
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
    segments: BTreeMap<SegmentId, Arrival>,
    /// Some have not arrived and will not, because this process may not open more descriptors.
    are_lost: bool,
}

/// A segment that has arrived, or that was forgotten before it arrived.
#[derive(Debug, Default)]
struct Arrival {
    /// How often it has arrived, less how often it was forgotten. The two come by different ways, and a segment that was forgotten may be
    /// given again.
    arrivals: i64,
    /// It was mapped, or could not be.
    segment: Option<Result<Arc<Segment>, String>>,
}

impl State {
    /// Counts an arrival or a request to forget. Returns what is to be dropped without the lock.
    fn count(
        &mut self,
        id: SegmentId,
        arrivals: i64,
        segment: Option<Result<Arc<Segment>, String>>,
    ) -> impl Sized + use<> {
        let entry = self.segments.entry(id).or_default();
        entry.arrivals += arrivals;
        let replaced = if segment.is_some() { std::mem::replace(&mut entry.segment, segment) } else { None };
        let dropped = if entry.arrivals == 0 { self.segments.remove(&id) } else { None };
        (replaced, dropped)
    }

    fn get(&self, id: SegmentId) -> Option<&Result<Arc<Segment>, String>> {
        self.segments.get(&id)?.segment.as_ref()
    }
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
        let Some((id, segment)) = Segment::adopt(fd, &mut fds, true, known::get) else { continue };
        // The code that decodes its handle reports what has failed.
        let segment = segment.map_err(|error| error.to_string());
        let mut state = given.lock();
        let dropped = state.count(id, 1, Some(segment));
        drop(state);
        drop(dropped);
        given.arrived.notify_all();
    }
}

/// Forgets a segment. What the code of users still has stays.
pub(crate) fn forget(id: SegmentId) {
    if let Some(given) = GIVEN.get() {
        let mut state = given.lock();
        let dropped = state.count(id, -1, None);
        drop(state);
        drop(dropped);
        bury();
    }
}

/// Waits for a segment.
pub(super) fn wait_for(id: SegmentId) -> Result<Arc<Segment>, String> {
    let unknown = || format!("shared memory {id} did not come with the value that names it");
    let given = GIVEN.get().ok_or_else(unknown)?;
    let timeout = if EXPECTS.get() { ON_ITS_WAY } else { Duration::ZERO };
    let is_missing = |state: &mut State| state.get(id).is_none() && !state.are_lost;
    let (state, _) = ignore_poison(given.arrived.wait_timeout_while(given.lock(), timeout, is_missing));
    match state.get(id) {
        Some(Ok(segment)) => Ok(segment.clone()),
        Some(Err(why)) => Err(format!("shared memory cannot be mapped: {why}")),
        None if state.are_lost => {
            Err("shared memory did not arrive: this process may not open more descriptors (`ulimit -n`)"
                .to_owned())
        }
        None => Err(unknown()),
    }
}
