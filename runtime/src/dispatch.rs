//! Runs one encoded task in this process: decodes the arguments, calls the function, catches its panic, and encodes the result.
//!
//! The worker, `Task::call` and pools without processes use it. It is the only place that calls a user's function.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::{
    codec::{Input, Output},
    error::Fault,
    panic::{RemotePanic, Style},
    registry::Entry,
    segment::{Attachments, To},
    sys::{fault::AllocationWatch, generation::generation, memory::Reprieve},
};

/// A function that is called with panics.
type Witness = fn(&RemotePanic);

thread_local! {
    /// The number of tasks that are running on this thread. A task may call another one in its own process.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// `SEEN` has entries.
    static HAS_SEEN: Cell<bool> = const { Cell::new(false) };
    /// The panics that the hook has seen on this thread while a task ran, oldest first. A task may catch one and continue.
    static SEEN: RefCell<Vec<RemotePanic>> = const { RefCell::new(Vec::new()) };
    /// Told about a panic of a task on this thread that ends the process, before it ends. The number is the generation of that
    /// process.
    static WITNESS: Cell<Option<(u32, Witness)>> = const { Cell::new(None) };
}

/// The number of panics that are kept for a task that catches them. The latest are kept.
const MOST_SEEN: usize = 16;

/// The messages of std when a panic reaches a function that must not unwind, and the process aborts. The panic itself was reported
/// before.
const CANNOT_UNWIND: [&str; 2] =
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// Runs a task and appends its result to `result`, and a large part of it to `large`. After a fault, both are as they were. Returns the
/// segments that the result names. `to` gets it.
#[inline]
pub(crate) fn run<'a>(
    entry: &Entry,
    args: impl FnOnce() -> Input<'a>,
    to: To,
    result: &mut Vec<u8>,
    large: &mut Vec<u8>,
) -> Result<Attachments, Fault> {
    let start = result.len();
    let mut attachments = Attachments::default();
    let outcome = contain(|| (entry.run)(args(), Output::new(to, result, large, &mut attachments)));
    if outcome.is_err() {
        result.truncate(start);
        *large = Vec::new();
    }
    outcome.map(|()| attachments)
}

/// Runs part of a task on this thread. A panic becomes a fault, and its message is captured instead of printed.
#[inline]
pub(crate) fn contain(run: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    install_hook();
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(DEPTH.get() - 1);
    let outcome = outcome.unwrap_or_else(|payload| Err(fault_of(payload)));
    if HAS_SEEN.get() && DEPTH.get() == 0 {
        forget_seen();
    }
    outcome
}

/// Converts the payload of a panic to a fault.
#[cold]
fn fault_of(payload: Box<dyn Any + Send>) -> Fault {
    // The panic that left the function is not always the last one that was seen. A later one may have been caught on the way.
    let panic = RemotePanic::from_payload(&*payload);
    let seen = SEEN.try_with(|seen| std::mem::take(&mut *seen.borrow_mut())).unwrap_or_default();
    let seen = seen.into_iter().rfind(|seen| seen.message() == panic.message());
    let panic = seen.unwrap_or(panic);
    // A payload may panic when it is dropped. If it does, the second payload is leaked.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    Fault::panic(panic)
}

#[cold]
fn forget_seen() {
    HAS_SEEN.set(false);
    let _ = SEEN.try_with(|seen| seen.borrow_mut().clear());
}

/// Sets the function that is told about each panic of a task on this thread that ends the process: all of them under `panic =
/// "abort"`, and otherwise those that must not unwind.
pub(crate) fn set_witness(witness: Witness) {
    WITNESS.set(Some((generation(), witness)));
}

/// Installs a panic hook before the present one. It captures the panics of tasks, which are returned to the caller and not printed,
/// and leaves all others to the present hook.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Under our own memory limit there may be no room for a backtrace, made here or by the next hook.
            let _reprieve = Reprieve::new();
            let in_task = DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false);
            let witness = WITNESS.try_with(Cell::get).ok().flatten();
            // The task has forked and this is a copy, whose end is not reported to the original's caller.
            let is_copy = witness.is_some_and(|(of, _)| of != generation());
            // std holds a lock while it prints and captures, and would wait for itself if it ran out of memory meanwhile.
            let is_locking = !in_task || is_copy || Style::asked() != Style::Off;
            let _watch = is_locking.then(AllocationWatch::new);
            if !in_task || is_copy {
                return next(info);
            }
            let panic = RemotePanic::from_hook(info);
            // If it is borrowed, this is a panic during the capture of another one. The first one is reported.
            let _ = SEEN.try_with(|seen| {
                let Ok(mut seen) = seen.try_borrow_mut() else { return };
                let stuck = CANNOT_UNWIND.contains(&panic.message());
                if !stuck || seen.is_empty() {
                    let _ = HAS_SEEN.try_with(|has_seen| has_seen.set(true));
                    if seen.len() == MOST_SEEN {
                        seen.remove(0);
                    }
                    seen.push(panic);
                }
                if (stuck || cfg!(panic = "abort"))
                    && let (Some(panic), Some((_, witness))) = (seen.last(), witness)
                {
                    witness(panic);
                }
            });
        }));
    });
}
