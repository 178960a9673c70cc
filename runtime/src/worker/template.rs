//! A template: a process with one thread that loads what workers are to share, and then forks one whenever the host asks.
//!
//! It never has a second thread, for a copy of a process has only the thread that made it, and whatever another had locked stays
//! locked for ever. A worker is its copy, and goes on as any other worker does.
#![expect(unsafe_code, reason = "fork")]

use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

use super::{
    connect::recv_preamble,
    host_link::{watch_memory, watch_overflow},
    lifeline::become_forked_worker,
    output,
    preload::prepare,
};
use crate::{
    context::IS_TEMPLATE,
    marker::HOST_GONE,
    protocol::{FORK_REQUEST, Prepared, Refused, Report, Setup},
    sys::{
        fd::{errno_of, read_file, write_whole},
        pass::{recv_with_fds, send_with_fd},
        poll::wait_any,
        process::{Child, Ended, Fork, end_group, fork, hold_parent},
    },
};

/// A worker, and where its life is told of.
struct Forked {
    child: Child,
    status: OwnedFd,
}

/// Prepares what workers share, says so, and forks them until the host closes the connection.
pub(super) fn serve(control: OwnedFd, token: Option<u64>) -> Result<Infallible, Refused> {
    let (preamble, fds) = recv_preamble(control.as_fd(), token)?;
    let host = hold_parent();
    IS_TEMPLATE.store(true, Ordering::Relaxed);
    let _ = nix::sys::prctl::set_name(c"fork-template");
    // The preload's overflows are seen, and the workers' without the cost of finding out where the stack ends.
    watch_overflow();
    watch_memory();
    let prepared = output::redirect(preamble.sinks, preamble.token, Vec::new())
        .map_err(|error| format!("the template's output cannot be redirected: {error}"))
        .and_then(|()| {
            let mut fds = fds.map_err(|refused| format!("the template: {}", refused.reason))?;
            fds.pop().ok_or_else(|| "no setup came with the preamble".to_owned())
        })
        .and_then(|setup| {
            read_file(setup).map_err(|error| format!("the template's setup cannot be read: {error}"))
        })
        .and_then(|setup| prepare(Setup::from_bytes(&setup), &control));
    let prepared = match prepared {
        Ok(()) => Prepared::Ready,
        Err(words) => Prepared::Failed(words),
    };
    // A host that has gone is noticed by the end of the connection.
    let _ = write_whole(control.as_fd(), &prepared.to_bytes());
    let mut workers: Vec<Forked> = Vec::new();
    loop {
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(control.as_fd())
            .chain(workers.iter().map(|worker| worker.child.as_fd()))
            .chain(host.as_ref().map(AsFd::as_fd))
            .collect();
        let ready = wait_any(&fds).map_err(|error| format!("it cannot wait: {error}"))?;
        // A copy of the host may hold the other end of the connection.
        if ready.get(1 + workers.len()) == Some(&true) {
            end_group(HOST_GONE);
        }
        let mut at = 0;
        workers.retain_mut(|worker| {
            at += 1;
            !ready[at] || !tell_of_end(worker)
        });
        if !ready[0] {
            continue;
        }
        match recv_request(control.as_fd()) {
            Some([socket, status]) => {
                if let Some(socket) = fork_worker(socket, status, &mut workers) {
                    drop(control);
                    become_forked_worker(socket, host);
                }
            }
            None => end_group(HOST_GONE),
        }
    }
}

/// The connection and the status socket of the next worker; `None` if the host has gone, or talks nonsense.
fn recv_request(control: BorrowedFd<'_>) -> Option<[OwnedFd; 2]> {
    let mut byte = [0];
    let fds = recv_with_fds::<2>(control, &mut byte).ok()?;
    if byte == [FORK_REQUEST] { fds.try_into().ok() } else { None }
}

/// Forks a worker and tells of it. In the worker it returns its connection, and nothing else of the template's is open.
fn fork_worker(socket: OwnedFd, status: OwnedFd, workers: &mut Vec<Forked>) -> Option<OwnedFd> {
    // SAFETY: a template has one thread: it starts none, and `prepare` has seen to it that the preload has left none.
    match unsafe { fork() } {
        Ok(Fork::Child) => {
            // They are the template's children: not ours to kill, and not ours to hold open.
            workers.drain(..).for_each(|worker| worker.child.disown());
            return Some(socket);
        }
        Ok(Fork::Parent(child)) => {
            let report = Report::Forked(child.pid());
            // If the host does not listen it has no use for the worker, whose connection ends with it.
            let _ = send_with_fd(status.as_fd(), &report.to_bytes(), Some(child.as_fd()));
            workers.push(Forked { child, status });
        }
        Err(error) => {
            let report = Report::NotForked(errno_of(&error).unwrap_or_default());
            let _ = write_whole(status.as_fd(), &report.to_bytes());
        }
    }
    None
}

/// Collects a worker that has ended, with what it had started in its group, and tells of it. Returns whether it had ended.
fn tell_of_end(worker: &mut Forked) -> bool {
    let report = match worker.child.try_reap() {
        None => return false,
        Some(Ended::Code(code)) => Report::Exited(code),
        Some(Ended::Signal(signal)) => Report::Signaled(signal),
        Some(Ended::Unknown) => Report::Vanished,
        Some(Ended::Untold) => Report::Untold,
    };
    let _ = write_whole(worker.status.as_fd(), &report.to_bytes());
    true
}
