//! Uses `#[procession::main]`. Workers start at the top of `main`, in a process whose constructors have all run, and never run its body.
//!
//! Without the attribute a worker starts before `main`, when constructors of other crates may not have run.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use procession::{parallel, worker};

/// Whether the body of `main` has started in this process.
static BODY_HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// Returns the pid of the process and whether it has run the body of `main`.
#[worker]
fn has_begun() -> (u32, bool) {
    (process::id(), BODY_HAS_BEGUN.load(Relaxed))
}

#[procession::main]
fn main() -> procession::Result<()> {
    BODY_HAS_BEGUN.store(true, Relaxed);
    println!("main's body runs in process {}", process::id());

    let answers = parallel!(has_begun() for _ in 0..4)?;
    for (pid, begun) in answers {
        assert!(pid != process::id() && !begun);
        println!("process {pid} ran a task, and never main's body");
    }
    assert_eq!(has_begun(), (process::id(), true));
    Ok(())
}
