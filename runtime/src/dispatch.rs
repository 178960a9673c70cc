//! Runs one encoded task in this process: decode, call, catch, encode.
//!
//! Serves the worker, `Task::call` and the in-process pool. It is the only place that calls a user's function.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::{
    codec::{Input, Output},
    error::Fault,
    panic::RemotePanic,
    registry::Entry,
};

thread_local! {
    /// How many tasks deep this thread is: a task may call another in its own process.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The panic that the hook saw last on this thread while a task ran.
    static SEEN: RefCell<Option<RemotePanic>> = const { RefCell::new(None) };
    /// Is told of each panic of a task on this thread as it begins, for the process may not live to tell of it later.
    static WITNESS: Cell<Option<fn(&RemotePanic)>> = const { Cell::new(None) };
}

/// Runs a task and appends its result to `result`; after a fault `result` is as it was.
pub(crate) fn run(entry: &Entry, args: &[u8], result: &mut Vec<u8>) -> Result<(), Fault> {
    install_hook();
    let start = result.len();
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(|| (entry.run)(Input::new(args), Output::new(result))));
    DEPTH.set(DEPTH.get() - 1);
    let outcome = outcome.unwrap_or_else(|payload| {
        let seen = SEEN.try_with(|seen| seen.borrow_mut().take()).ok().flatten();
        let panic = seen.unwrap_or_else(|| RemotePanic::from_payload(&*payload));
        // A payload may panic when it is dropped; such a one is left alone.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        Err(Fault::Panic(panic))
    });
    if outcome.is_err() {
        result.truncate(start);
    }
    outcome
}

/// From now on `witness` is told of each panic of a task on this thread.
pub(crate) fn set_witness(witness: fn(&RemotePanic)) {
    WITNESS.set(Some(witness));
}

/// Puts a hook before the one that is there: it takes down the panics of tasks, which go to the caller and are not printed, and
/// leaves all others to the next.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let in_task = DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false);
            if !in_task {
                return next(info);
            }
            let panic = RemotePanic::from_hook(info);
            if let Ok(Some(witness)) = WITNESS.try_with(Cell::get) {
                witness(&panic);
            }
            // Borrowed already: this is a panic within the taking down of another. The first is the one to tell.
            let _ = SEEN.try_with(|seen| seen.try_borrow_mut().map(|mut seen| *seen = Some(panic)));
        }));
    });
}
