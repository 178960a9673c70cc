//! A manager within this process, and the call of an update.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    time::Instant,
};

use super::{
    objects::{Objects, Ticket},
    request::{Call, Reply, Request, Value},
};
use crate::{
    codec::Input,
    dispatch,
    error::{Error, Fault, Result},
    id::FunctionId,
    registry,
    segment::{Attachments, SegmentId, To, bury, with_available},
    sync::ignore_poison,
    sys::{generation::generation, per_process::PerProcess},
};

/// What operations of a manager return that has ended.
const ENDED: &str = "the manager has ended";

/// The managers within this process.
static MANAGERS: PerProcess<Mutex<BTreeMap<SegmentId, Weak<InProcess>>>> = PerProcess::new();

thread_local! {
    /// An update runs on this thread.
    static UPDATES: Cell<bool> = const { Cell::new(false) };
}

/// A manager within this process.
pub(super) struct InProcess {
    id: SegmentId,
    /// The generation of the process.
    generation: u32,
    state: Mutex<State>,
    replied: Condvar,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Replies that their requests have not taken yet.
    replies: HashMap<Ticket, Reply>,
    requests: u64,
    has_ended: bool,
}

impl InProcess {
    pub(super) fn new() -> Arc<Self> {
        let (state, replied) = Default::default();
        let manager = Arc::new(Self { id: SegmentId::new(), generation: generation(), state, replied });
        let mut managers = ignore_poison(MANAGERS.get_or_init(Mutex::default).lock());
        managers.retain(|_, manager| manager.strong_count() > 0);
        managers.insert(manager.id, Arc::downgrade(&manager));
        drop(managers);
        manager
    }

    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }

    /// Handles a request, and waits for its reply.
    pub(super) fn call(&self, request: &Request<'_>, with: &Attachments) -> Result<Reply> {
        if self.generation != generation() {
            // The lock may never be released here.
            return Err(Error::config(
                "the manager is within the process that this one was forked from: `Manager::start` makes one for \
                 several processes",
            ));
        }
        let mut state = self.lock();
        if state.has_ended {
            return Err(Error::config(ENDED));
        }
        state.requests += 1;
        let ticket = Ticket { client: 0, connection: state.requests };
        state.objects.handle(ticket, request, with, Instant::now(), &run);
        loop {
            let now = Instant::now();
            state.objects.expire(now);
            let replies = state.objects.take_replies();
            if replies.iter().any(|(to, _)| *to != ticket) {
                self.replied.notify_all();
            }
            state.replies.extend(replies);
            if let Some(reply) = state.replies.remove(&ticket) {
                return Ok(reply);
            }
            if state.has_ended {
                return Err(Error::config(ENDED));
            }
            state = match state.objects.next_deadline() {
                Some(deadline) => {
                    let timeout = deadline.saturating_duration_since(now);
                    ignore_poison(self.replied.wait_timeout(state, timeout)).0
                }
                None => ignore_poison(self.replied.wait(state)),
            };
        }
    }

    /// Ends the manager. Requests that wait return an error.
    pub(super) fn end(&self) {
        if self.generation == generation() {
            let mut state = self.lock();
            state.has_ended = true;
            let objects = std::mem::take(&mut state.objects);
            drop(state);
            drop(objects);
            bury();
            self.replied.notify_all();
        }
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns the manager of this process that has this identity.
pub(super) fn find(id: SegmentId) -> Option<Arc<InProcess>> {
    ignore_poison(MANAGERS.get()?.lock()).get(&id)?.upgrade()
}

/// Returns whether an update runs on this thread.
pub(super) fn is_updating() -> bool {
    UPDATES.get()
}

/// Runs an update in this process.
pub(super) fn run(call: &Call<'_>, with: &Attachments, value: &Value) -> Result<Value, Fault> {
    let unknown = || Fault::codec(format!("there is no function {} in the manager", call.function));
    let entry = registry::find(FunctionId(call.function)).ok_or_else(unknown)?;
    let args = [&*value.bytes, call.args.0].concat();
    let mut available = value.with.clone();
    available.merge(with);
    let (mut result, mut large) = (Vec::new(), Vec::new());
    UPDATES.set(true);
    let outcome = with_available(&available, || {
        dispatch::run(entry, || Input::new(&args).with_lent(call.lent), To::Reader, &mut result, &mut large)
    });
    UPDATES.set(false);
    let with = outcome?;
    result.append(&mut large);
    Ok(Value::new(&result, &with))
}
