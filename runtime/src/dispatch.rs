//! Runs one encoded task in this process: decode, call, catch, encode.
//!
//! Serves the worker, `Task::call` and the in-process pool. It is the only place that calls a user's function.

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
    sys::{generation::generation, memory::Reprieve, signal::AllocationWatch},
};

/// What is told of panics.
type Witness = fn(&RemotePanic);

thread_local! {
    /// How many tasks deep this thread is: a task may call another in its own process.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// There are some of those:
    static HAS_SEEN: Cell<bool> = const { Cell::new(false) };
    /// The panics that the hook has seen on this thread while a task ran, the oldest first: a task may catch one and go on.
    static SEEN: RefCell<Vec<RemotePanic>> = const { RefCell::new(Vec::new()) };
    /// Is told of a panic of a task on this thread that ends the process, before it does; and the generation of that process.
    static WITNESS: Cell<Option<(u32, Witness)>> = const { Cell::new(None) };
}

/// A task that catches panics all its life is remembered by the last so many.
const MOST_SEEN: usize = 16;

/// What std says when a panic has come to where it cannot unwind, and aborts. The panic itself was told before.
const CANNOT_UNWIND: [&str; 2] =
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

/// Runs a task and appends its result to `result`, and what of it is large to `large`; after a fault both are as they were.
#[inline]
pub(crate) fn run<'a>(
    entry: &Entry,
    args: impl FnOnce() -> Input<'a>,
    result: &mut Vec<u8>,
    large: &mut Vec<u8>,
) -> Result<(), Fault> {
    let start = result.len();
    let outcome = contain(|| (entry.run)(args(), Output::new(result, large)));
    if outcome.is_err() {
        result.truncate(start);
        *large = Vec::new();
    }
    outcome
}

/// Runs part of a task on this thread; a panic is a fault, and its words are taken down, not printed.
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

/// What a task comes to that has panicked with this.
#[cold]
fn fault_of(payload: Box<dyn Any + Send>) -> Fault {
    // The panic that came out is not always the last: one that was caught on the way may have come later.
    let panic = RemotePanic::from_payload(&*payload);
    let seen = SEEN.try_with(|seen| std::mem::take(&mut *seen.borrow_mut())).unwrap_or_default();
    let seen = seen.into_iter().rfind(|seen| seen.message() == panic.message());
    let panic = seen.unwrap_or(panic);
    // A payload may panic when it is dropped; such a one is left alone.
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

/// From now on `witness` is told of each panic of a task on this thread that ends the process: all of them under
/// `panic = "abort"`, else those that cannot unwind.
pub(crate) fn set_witness(witness: Witness) {
    WITNESS.set(Some((generation(), witness)));
}

/// Puts a hook before the one that is there: it takes down the panics of tasks, which go to the caller and are not printed, and
/// leaves all others to the next.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Under a limit of our own there may be no room for a backtrace, be it ours or the next's.
            let _reprieve = Reprieve::new();
            let in_task = DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false);
            let witness = WITNESS.try_with(Cell::get).ok().flatten();
            // The task has forked, and this is a copy, whose end the original's caller does not hear of.
            let is_copy = witness.is_some_and(|(of, _)| of != generation());
            // std locks what it prints and captures, and would wait for itself if it ran out of memory meanwhile.
            let is_locking = !in_task || is_copy || Style::asked() != Style::Off;
            let _watch = is_locking.then(AllocationWatch::new);
            if !in_task || is_copy {
                return next(info);
            }
            let panic = RemotePanic::from_hook(info);
            // Borrowed already: this is a panic within the taking down of another. The first is the one to tell.
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
