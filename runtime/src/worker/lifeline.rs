//! Divides a worker into the thread that serves and the thread that watches, which ends the worker when its host ends.
//!
//! `entry` and `template` start every worker here. The watching thread runs no user code, so a busy worker ends with its host, too.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    time::Duration,
};

use nix::{
    sys::resource::Resource,
    unistd::{Pid, getppid},
};

use super::{
    connect::{HostConnection, or_fail, refused, take_up},
    copy, host_link, serve,
};
use crate::{
    context,
    marker::{DESCRIPTORS_CLOSED, HOST_GONE},
    protocol::Refused,
    sys::{
        exit::{end_group, end_now},
        fd::{close_inherited, out_of_the_way, shutdown_both},
        identified::Identified,
        poll::{EndOf, wait_for_end, wait_for_hangup},
        process::hold_host,
        thread,
    },
    transport::{Cause, receive_segments},
};

/// The time that a worker that was asked to exit may spend on exit handlers and similar code.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The stack of the serving thread. The default of std is too small for code that was written for a main thread.
const STACK_BYTES: usize = 8 << 20;

/// The stack of the watching thread, which only waits.
const WATCH_STACK_BYTES: usize = 64 << 10;

/// Turns a copy of a template into a worker. Never returns.
pub(super) fn become_forked_worker(socket: OwnedFd, host: Option<Identified>) -> ! {
    copy::begin();
    or_fail(|| {
        let connection = take_up(out_of_the_way(socket), None)?;
        let lifeline = Lifeline { host, ..Lifeline::new(&connection) };
        let _ = host_link::PREPARED.set(());
        watch_and_serve(connection, lifeline)
    })
}

/// The descriptors by which a worker notices that its host has ended.
struct Lifeline {
    socket: Arc<Identified>,
    /// The process of the host. A copy of the host, such as a daemon, may hold the other end of the connection.
    host: Option<Identified>,
    /// The parent, which is the host or ends with it.
    parent: Pid,
    is_shared: bool,
    has_rings: bool,
}

impl Lifeline {
    /// Made before user code runs, which may close descriptors.
    fn new(connection: &HostConnection) -> Self {
        Self {
            socket: connection.socket.clone(),
            host: None,
            parent: getppid(),
            is_shared: connection.is_shared,
            has_rings: connection.rings.is_some(),
        }
    }
}

/// Serves on a thread named `main` and watches the connection on this one, so that a busy worker ends with its host, too.
pub(super) fn serve_and_watch(socket: OwnedFd, token: u64) -> Result<std::convert::Infallible, Refused> {
    let stack = nix::sys::resource::getrlimit(Resource::RLIMIT_STACK)
        .ok()
        .and_then(|(soft, _)| usize::try_from(soft).ok())
        .map_or(STACK_BYTES, |soft| soft.clamp(STACK_BYTES / 4, STACK_BYTES * 8));
    let (to_thread, connection) = mpsc::channel();
    let serving = thread::named("main").stack_size(stack).spawn(move || connection.recv().map(serve::serve));
    // A thread takes a while to begin, so there is time for the rest. The host is told only by a connection why there is no thread.
    let connection = take_up(socket, Some(token))?;
    serving.map_err(|error| refused("no thread to serve on in a worker", error))?;
    let lifeline = Lifeline::new(&connection);
    let _ = to_thread.send(connection);
    close_inherited();
    let host = hold_host(lifeline.socket.as_fd()).unwrap_or_else(|_ended| {
        // A copy of the host may hold the other end of the connection.
        shutdown_both(lifeline.socket.as_fd());
        None
    });
    let host = host.map(out_of_the_way).map(Identified::new);
    let _ = host_link::PREPARED.set(());
    watch(&Lifeline { host, ..lifeline })
}

/// Like [`serve_and_watch`], with the threads exchanged: serves on this thread, which has the stack it needs and whose
/// thread-locals were filled by the preload.
fn watch_and_serve(
    connection: HostConnection,
    lifeline: Lifeline,
) -> Result<std::convert::Infallible, Refused> {
    thread::named("watch")
        .stack_size(WATCH_STACK_BYTES)
        .spawn(move || watch(&lifeline))
        .map_err(|error| refused("no thread to watch the connection in a worker", error))?;
    serve::serve(connection);
    Err("it serves no more".into())
}

/// Ends the process when the host has gone. If no memory is shared, the host closes its sending side to ask the running task to
/// end.
fn watch(lifeline: &Lifeline) -> ! {
    let Lifeline { socket, host, parent, is_shared, has_rings } = lifeline;
    // Otherwise the serving thread reads the socket.
    let on_input = has_rings.then_some(receive_segments as fn(&Identified) -> bool);
    let mut end = wait_for_hangup(socket, host.as_ref(), on_input);
    if end == EndOf::Connection && !is_shared && host_link::is_busy() {
        context::note_end_of_requests();
        end = wait_for_end(socket, host.as_ref());
    }
    match end {
        EndOf::Connection => {}
        EndOf::Process => shutdown_both(socket.as_fd()),
        // The end of the host would not be seen.
        EndOf::Descriptors => host_link::note_cause(Cause::DescriptorsClosed),
    }
    let was_ready = host_link::stop();
    if host_link::is_busy() {
        // The host may still be there. Then the task itself has ended the connection.
        host_link::note_cause(Cause::ConnectionEnded);
    } else if was_ready {
        // The serving thread sees the end of the connection, too, and leaves through `exit`. A worker that is still starting has
        // nothing to finish.
        std::thread::sleep(LEAVE_TIMEOUT);
    }
    if end == EndOf::Descriptors && getppid() == *parent {
        // The host is there, and ends what tasks have started.
        end_now(DESCRIPTORS_CLOSED);
    }
    end_group(HOST_GONE)
}
