//! Where a worker's stdout and stderr go, and the marks that part what one task writes from what the next does.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use crate::{
    protocol::{Sink, encode_mark},
    sys::{
        fd::{open_null, out_of_the_way, redirect_stderr, redirect_stdout, write_waiting},
        process::flush_stdout,
    },
};

/// The streams that the host reads.
static MARKED: OnceLock<Marked> = OnceLock::new();

struct Marked {
    token: u64,
    /// The worker's ends, apart from descriptors 1 and 2, which a task may close or put something else in the place of.
    pipes: Vec<OwnedFd>,
}

/// Has stdout and stderr go where the host wants them. `pipes` are the worker's ends of those that the host reads, in that order.
///
/// # Errors
///
/// A pipe is missing, or the system refuses.
pub(super) fn redirect(sinks: [Sink; 2], token: u64, pipes: Vec<OwnedFd>) -> io::Result<()> {
    let mut given = pipes.into_iter();
    let mut kept = Vec::new();
    for (sink, redirect) in sinks.into_iter().zip([redirect_stdout, redirect_stderr]) {
        match sink {
            Sink::Inherit => {}
            Sink::Null => redirect(open_null()?.as_fd())?,
            Sink::Host => {
                let pipe = given.next().ok_or(io::ErrorKind::UnexpectedEof)?;
                redirect(pipe.as_fd())?;
                kept.push(out_of_the_way(pipe));
            }
        }
    }
    if !kept.is_empty() {
        let _ = MARKED.set(Marked { token, pipes: kept });
    }
    Ok(())
}

/// The host reads a stream of this process.
pub(super) fn is_marked() -> bool {
    MARKED.get().is_some()
}

/// Task `seq` has ended: what of its words is still in a buffer goes out, and behind it the mark.
pub(super) fn end_task(seq: u32) {
    let Some(Marked { token, pipes }) = MARKED.get() else { return };
    flush_stdout();
    let mark = encode_mark(*token, seq);
    for pipe in pipes {
        // An error means that the host has gone.
        let _ = write_waiting(pipe.as_fd(), &mark);
    }
}
