//! Divides a worker into the thread that serves and the thread that watches, which ends the worker when its host ends.
//!
//! `entry` and `template` start every worker here. The watching thread runs no user code, so a busy worker ends with its host, too.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::sys::resource::Resource;

use super::{
    connect::{Connection, or_fail, refused, take_up},
    copy, host_link, serve,
};
use crate::{
    context,
    marker::HOST_GONE,
    protocol::Refused,
    sys::{
        exit::end_group,
        fd::{out_of_the_way, shutdown_both},
        poll::{wait_for_end, wait_for_hangup},
        process::hold_host,
    },
    transport::Cause,
};

/// How long a worker that was told to leave may spend on exit handlers and the like.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The stack of the serving thread. The default of std is too small for code that was written for a main thread.
const STACK_BYTES: usize = 8 << 20;

/// The stack of the watching thread, which only waits.
const WATCH_STACK_BYTES: usize = 64 << 10;

/// Turns a copy of a template into a worker. Never returns.
pub(super) fn become_forked_worker(socket: OwnedFd, host: Option<OwnedFd>) -> ! {
    copy::begin();
    or_fail(|| watch_and_serve(take_up(out_of_the_way(socket), None)?, host))
}

/// Serves on a thread named `main` and watches the connection on this one, so that a busy worker ends with its host, too.
pub(super) fn serve_and_watch(connection: Connection) -> Result<std::convert::Infallible, Refused> {
    let (socket, is_shared) = (connection.socket.clone(), connection.is_shared);
    let stack = nix::sys::resource::getrlimit(Resource::RLIMIT_STACK)
        .ok()
        .and_then(|(soft, _)| usize::try_from(soft).ok())
        .map_or(STACK_BYTES, |soft| soft.clamp(STACK_BYTES / 4, STACK_BYTES * 8));
    std::thread::Builder::new()
        .name("main".to_owned())
        .stack_size(stack)
        .spawn(move || serve::serve(connection))
        .map_err(|error| refused("no thread to serve on in a worker", error))?;
    // A copy of a host that has ended already may hold the other end of the connection.
    let host = hold_host(socket.as_fd()).unwrap_or_else(|_ended| {
        shutdown_both(socket.as_fd());
        None
    });
    watch(socket.as_fd(), is_shared, host)
}

/// Like [`serve_and_watch`], with the threads exchanged: serves on this thread, which has the stack it needs and whose
/// thread-locals were filled by the preload.
fn watch_and_serve(
    connection: Connection,
    host: Option<OwnedFd>,
) -> Result<std::convert::Infallible, Refused> {
    let (socket, is_shared) = (connection.socket.clone(), connection.is_shared);
    std::thread::Builder::new()
        .name("watch".to_owned())
        .stack_size(WATCH_STACK_BYTES)
        .spawn(move || watch(socket.as_fd(), is_shared, host))
        .map_err(|error| refused("no thread to watch the connection in a worker", error))?;
    serve::serve(connection);
    Err("it serves no more".into())
}

/// Ends the process when the host has gone. If no memory is shared, the host closes its sending side to ask the running task to
/// end.
fn watch(socket: BorrowedFd<'_>, is_shared: bool, host: Option<OwnedFd>) -> ! {
    let host = host.as_ref().map(AsFd::as_fd);
    let mut host_has_ended = wait_for_hangup(socket, host);
    if !host_has_ended && !is_shared && host_link::is_busy() {
        context::hear_the_last();
        host_has_ended = wait_for_end(socket, host);
    }
    if host_has_ended {
        // A copy of the host, such as a daemon, may hold the other end of the connection.
        shutdown_both(socket);
    }
    // Checked before `stop`: a worker that becomes ready only now may miss the stop.
    let was_ready = host_link::is_ready();
    host_link::stop();
    if host_link::is_busy() {
        // The host may still be there. Then the task itself has ended the connection.
        host_link::note_cause(Cause::ConnectionEnded);
    } else if was_ready {
        // The serving thread sees the end of the connection, too, and leaves through `exit`. A worker that is still starting has
        // nothing to finish.
        std::thread::sleep(LEAVE_TIMEOUT);
    }
    end_group(HOST_GONE)
}
