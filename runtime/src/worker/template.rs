//! A template: a process with one thread that loads what workers share, and then forks a worker whenever the host asks.
//!
//! It must never have a second thread. A copy of a process has only the thread that forked it, and locks held by other threads
//! would stay locked forever. A worker is a copy of the template and continues in `lifeline` like any other worker.
//! `launch/README.md` describes the host's side.
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
    protocol::{FORK_REQUEST, Prepared, Refused, Setup, TemplateReport},
    sys::{
        child::{Child, Ended},
        exit::end_group,
        fd::{errno_of, out_of_the_way, read_file, write_whole},
        identified::Identified,
        pass::{recv_with_fds, send_with_fds},
        poll::wait_any,
        process::{Fork, fork, hold_host},
    },
};

/// A worker, and the socket on which its end is reported.
struct Forked {
    child: Child,
    status: Identified,
}

/// Runs the preload, reports that the template is ready, and forks workers until the host closes the connection.
pub(super) fn serve(control: OwnedFd, token: Option<u64>) -> Result<Infallible, Refused> {
    let (preamble, fds) = recv_preamble(control.as_fd(), token)?;
    let Ok(host) = hold_host(control.as_fd()) else { end_group(HOST_GONE) };
    let control = Identified::new(control);
    let host = host.map(out_of_the_way).map(Identified::new);
    IS_TEMPLATE.store(true, Ordering::Relaxed);
    let _ = nix::sys::prctl::set_name(c"fork-template");
    // Set up before forking, so that overflows of the preload are detected, and workers need not determine where the stack ends.
    watch_overflow();
    watch_memory();
    let prepared = output::redirect(preamble.targets, preamble.token, Vec::new())
        .map_err(|error| format!("the template's output cannot be redirected: {error}"))
        .and_then(|()| {
            let mut fds = fds.map_err(|refused| format!("the template: {}", refused.reason))?;
            fds.pop().ok_or_else(|| "no setup came with the preamble".to_owned())
        })
        .and_then(|setup| {
            read_file(setup).map_err(|error| format!("the template's setup cannot be read: {error}"))
        })
        .and_then(|setup| prepare(Setup::from_bytes(&setup), &control, host.as_ref()));
    let prepared = prepared.map_or_else(Prepared::Failed, |()| Prepared::Ready);
    // If the host has gone, the loop below sees the end of the connection.
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
            !ready[at] || !report_end(worker)
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

/// Receives the connection and the status socket of the next worker. Returns `None` if the host has gone or the request is invalid.
fn recv_request(control: BorrowedFd<'_>) -> Option<[OwnedFd; 2]> {
    let mut byte = [0];
    let fds = recv_with_fds::<2>(control, &mut byte).ok()?;
    if byte == [FORK_REQUEST] { fds.try_into().ok() } else { None }
}

/// Forks a worker and reports it. Returns the worker's connection in the worker, where nothing else of the template is open.
fn fork_worker(socket: OwnedFd, status: OwnedFd, workers: &mut Vec<Forked>) -> Option<OwnedFd> {
    // SAFETY: a template has one thread. It starts none, and `prepare` has checked that the preload has left none.
    match unsafe { fork() } {
        Ok(Fork::Child) => {
            // They are children of the template. This process must not kill them or keep their descriptors open.
            workers.drain(..).for_each(|worker| worker.child.disown());
            return Some(socket);
        }
        Ok(Fork::Parent(child)) => {
            let report = TemplateReport::Forked(child.pid());
            // If the host does not listen, it does not need the worker, which ends with its connection.
            let _ = send_with_fds(status.as_fd(), &report.to_bytes(), &[child.as_fd()]);
            workers.push(Forked { child, status: Identified::new(status) });
        }
        Err(error) => {
            let report = TemplateReport::NotForked(errno_of(&error).unwrap_or_default());
            let _ = write_whole(status.as_fd(), &report.to_bytes());
        }
    }
    None
}

/// Reaps a worker that has ended, kills its process group, and reports how it ended. Returns whether it had ended.
fn report_end(worker: &mut Forked) -> bool {
    let report = match worker.child.try_reap() {
        None => return false,
        Some(Ended::Code(code)) => TemplateReport::Exited(code),
        Some(Ended::Signal(signal)) => TemplateReport::Signaled(signal),
        Some(Ended::Unknown) => TemplateReport::Vanished,
        Some(Ended::Untold) => TemplateReport::Untold,
    };
    let _ = write_whole(worker.status.as_fd(), &report.to_bytes());
    true
}
