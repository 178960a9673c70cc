//! The runtime of `async` functions, in workers and, for pools without processes, in the calling process.
//!
//! The expansion of `#[worker]` calls it. Each thread that runs such functions has its own runtime, which is created with the first
//! one. In a worker that is one thread. If a runtime is already running on the thread and would be blocked by another one, the
//! function runs on a new thread.

use std::{cell::RefCell, future::Future, io, rc::Rc, thread};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    codec::{Input, Output},
    dispatch,
    error::Fault,
    sys::generation::generation,
};

/// One thread's runtime.
struct Own {
    /// Always there until the drop.
    runtime: Option<Runtime>,
    /// The generation of the process that created it. In a copy that was forked later, its poller is shared with the original.
    generation: u32,
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.generation == generation() {
            // Does not wait for threads that functions have left running in it.
            runtime.shutdown_background();
        } else {
            std::mem::forget(runtime);
        }
    }
}

thread_local! {
    static OWN: RefCell<Option<Rc<Own>>> = const { RefCell::new(None) };
}

/// Ends the runtime of this thread, which is about to end, if it has one.
pub(crate) fn leave() {
    OWN.take();
}

/// Runs a task of an `async` function on a thread that may block.
///
/// # Errors
///
/// Returns the errors of `run`, and an error if no thread could be started.
pub fn run_async(
    input: Input<'_>,
    output: Output<'_>,
    run: fn(Input<'_>, Output<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if Handle::try_current().is_err() {
        return run(input, output);
    }
    thread::scope(|scope| {
        let name = thread::current().name().unwrap_or("procession").to_owned();
        let contained = move || dispatch::contain(|| run(input, output));
        match thread::Builder::new().name(name).spawn_scoped(scope, contained) {
            Ok(thread) => thread.join().expect("what it runs is contained"),
            Err(error) => {
                Err(Fault::codec(format!("cannot start a thread for an `async` function: {error}")))
            }
        }
    })
}

/// Runs a future to completion on this thread's runtime.
///
/// # Panics
///
/// Panics if the system cannot provide a runtime, or if the future panics.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let own = OWN.with_borrow_mut(|own| match own {
        Some(own) if own.generation == generation() => Ok(own.clone()),
        _ => {
            let new = Rc::new(Own::new()?);
            *own = Some(new.clone());
            Ok::<_, io::Error>(new)
        }
    });
    match own.as_ref().map(|own| own.runtime.as_ref()) {
        Ok(Some(runtime)) => runtime.block_on(future),
        Ok(None) => unreachable!("a runtime is taken out as it is dropped"),
        Err(error) => panic!("cannot create a runtime for an `async` function: {error}"),
    }
}

impl Own {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Some(runtime), generation: generation() })
    }
}
