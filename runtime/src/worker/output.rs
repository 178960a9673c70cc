//! Redirects a worker's stdout and stderr, and writes the marks that separate the output of one task from that of the next.
//!
//! `connect` and `template` redirect the streams, and `serve` writes the marks. The marks go to pipes of our own, never to
//! descriptors 1 and 2, which a task may close or replace.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use super::host_link::note_cut;
use crate::{
    protocol::{StreamTarget, encode_boundary},
    sys::{
        exit::flush_stdout,
        fd::{open_null, out_of_the_way, redirect_stderr, redirect_stdout},
        identified::Identified,
        poll::write_waiting,
    },
};

/// The streams that the host reads.
static MARKED: OnceLock<Marked> = OnceLock::new();

struct Marked {
    token: u64,
    /// The worker's ends, separate from descriptors 1 and 2, which a task may close or replace.
    pipes: Vec<Identified>,
}

/// Redirects stdout and stderr as the host has requested. `pipes` are the worker's ends of the streams that the host reads, in
/// order.
///
/// # Errors
///
/// A pipe is missing, or a system call fails.
pub(super) fn redirect(targets: [StreamTarget; 2], token: u64, pipes: Vec<OwnedFd>) -> io::Result<()> {
    let mut given = pipes.into_iter();
    let mut kept = Vec::new();
    for (target, redirect) in targets.into_iter().zip([redirect_stdout, redirect_stderr]) {
        match target {
            StreamTarget::Inherit => {}
            StreamTarget::Null => redirect(open_null()?.as_fd())?,
            StreamTarget::Host => {
                let pipe = given.next().ok_or(io::ErrorKind::UnexpectedEof)?;
                redirect(pipe.as_fd())?;
                kept.push(Identified::new(out_of_the_way(pipe)));
            }
        }
    }
    if !kept.is_empty() {
        let _ = MARKED.set(Marked { token, pipes: kept });
    }
    Ok(())
}

/// Returns whether the host reads a stream of this process.
pub(super) fn is_marked() -> bool {
    MARKED.get().is_some()
}

/// Flushes the buffered output of task `seq`, which has ended, and writes its mark.
pub(super) fn end_task(seq: u32) {
    let Some(Marked { token, pipes }) = MARKED.get() else { return };
    flush_stdout();
    let mark = encode_boundary(*token, seq);
    for pipe in pipes {
        match pipe.check() {
            // An error means that the host has gone.
            Ok(pipe) => drop(write_waiting(pipe, &mark)),
            // The output of later tasks could not be told from the output of this one.
            Err(_) => note_cut(),
        }
    }
}
