//! How a process becomes a worker: the hook before `main`, or the top of a `main` under `#[procession::main]`.
//!
//! In a process without the marker both look and return, and touch nothing else of std. A process with the marker becomes a worker
//! or ends with `START_FAILED`; it never goes on to the caller's `main`. `docs/before-main.md` tells what is different there.
#![expect(unsafe_code, reason = "a function pointer in .init_array; a copy of the host")]

use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{Arc, OnceLock},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::{resource::Resource, stat::Mode},
};

use super::{copy, output, serve, template};
use crate::{
    context,
    escape::Lines,
    marker::{DEPTH, HOST_GONE, MARKER_CSTR, Marker, Role, START_FAILED},
    panic::RemotePanic,
    protocol::{PREAMBLE_BYTES, Preamble, Refused, Sink, encode_reply},
    sys::{
        buffer_cache,
        env::{has_env, is_privileged, set_env, take_env},
        fd::{adopt_socket, close_all_but, close_inherited, out_of_the_way, say, shutdown_both},
        limits::{explained, is_shortage},
        pass::recv_with_fds,
        poll::{wait_for_end, wait_for_hangup, wait_readable},
        process::{end_group, end_now, hold_parent},
        signal::{ignore_pipe_and_terminal, reset_signals},
    },
    transport::{Board, Cause, Segment, shm::worker::send_alone},
};

/// Memory, and a pipe for each of two streams.
const MOST_FDS: usize = 3;
/// The host has sent the preamble before the process existed; only a stopped machine makes it wait.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A worker that was told to leave has so long for `atexit` functions and the like.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// What std gives its threads is too small for code that was written for a main thread.
const STACK_BYTES: usize = 8 << 20;
/// To wait takes next to nothing.
const WATCH_STACK_BYTES: usize = 64 << 10;

/// The modules in which a `main` carries `#[procession::main]`. (The linker gathers nothing without size.)
#[procession_macros::gathered]
pub static AT_MAIN: [&'static str];

/// Whether this executable's workers are dispatched at the top of its `main`.
///
/// A `main` that is not at the root of its crate is none: merged doc tests have such, each in a module of its own.
fn waits_for_main() -> bool {
    AT_MAIN.static_slice().iter().any(|module| !module.contains("::"))
}

#[used]
// The section holds pointers to functions, which the loader calls once before `main`; it passes arguments that a function without
// parameters ignores in the C calling convention.
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    if !is_marked() || waits_for_main() {
        return;
    }
    become_worker();
}

#[used]
// The C library calls these functions at the end of a process, when those of `atexit` have run.
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = serve::end_what_is_left;

/// The top of a `main` under `#[procession::main]`: in a worker it does not return.
pub fn dispatch_main() {
    if is_marked() {
        become_worker();
    }
}

/// This process was started to be a worker. A process with more rights than its user believes no environment.
fn is_marked() -> bool {
    has_env(MARKER_CSTR) && !is_privileged()
}

fn become_worker() -> ! {
    or_fail(|| {
        let (marker, socket) = connect()?;
        match marker.role {
            Role::Worker => {
                let connection = take_up(socket, Some(marker.token))?;
                close_inherited();
                serve_and_watch(connection)
            }
            Role::Template => {
                close_inherited();
                template::serve(socket, Some(marker.token))
            }
        }
    })
}

/// What a host that forks itself has the copy do: it becomes a template, and never returns to what its host was at.
///
/// `env` is the environment that it is to have; `depth` is its own.
///
/// # Safety
///
/// This process is such a copy: no other thread exists, and no object that owns a descriptor is used again, but `socket`.
pub(crate) unsafe fn become_template(
    socket: OwnedFd,
    depth: u32,
    env: &[(std::ffi::OsString, Option<std::ffi::OsString>)],
) -> ! {
    or_fail(|| {
        copy::begin();
        buffer_cache::forget_keepers();
        let socket = out_of_the_way(socket);
        // SAFETY: no object that owns another is used again (the caller's promise).
        unsafe { close_all_but(&[socket.as_fd()]) };
        let is_gone = |name: &OsStr| !env.iter().any(|(other, _)| other == name);
        let gone: Vec<_> = std::env::vars_os().map(|(name, _)| name).filter(|name| is_gone(name)).collect();
        let env = env.iter().map(|(name, value)| (name, value.as_deref()));
        for (name, value) in gone.iter().map(|name| (name, None)).chain(env) {
            // SAFETY: no other thread exists (the caller's promise).
            unsafe { set_env(name, value) };
        }
        // SAFETY: as above.
        unsafe { set_env(DEPTH.as_ref(), Some(depth.to_string().as_ref())) };
        reset_signals();
        // Descriptor 0 is the first to be free.
        let _ = nix::unistd::close(0);
        open_standard_streams();
        ignore_pipe_and_terminal();
        template::serve(socket, None)
    })
}

fn or_fail(run: impl FnOnce() -> Result<std::convert::Infallible, Refused>) -> ! {
    // A panic must not unwind out of the hook, or into what a copy of the host had been at: it would be an abort without our exit
    // code, or worse.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(refused)) => fail(&refused),
        Err(panic) => fail(&format!("it panicked: {}", RemotePanic::from_payload(&*panic)).into()),
    }
}

/// The connection of a worker that has not shaken hands, by which the host can be told why it will not.
static TOLD: OnceLock<Arc<OwnedFd>> = OnceLock::new();

/// Ends this process, which cannot be a worker, and says why: to the host, or, where that cannot be told, on stderr.
pub(super) fn fail(refused: &Refused) -> ! {
    let message = encode_reply(refused);
    let is_told = TOLD.get().is_some_and(|socket| send_alone(socket.clone(), &message).is_ok());
    if !is_told {
        say(&format!(
            "procession: this process was started as a worker and cannot be one: {}\n",
            Lines(&refused.reason)
        ));
    }
    end_now(START_FAILED)
}

/// What this process cannot do, and why. It names the limit behind it if the system is short of something.
pub(super) fn refused(what: impl std::fmt::Display, error: std::io::Error) -> Refused {
    Refused { is_short: is_shortage(&error), reason: format!("{what}: {}", explained(error)) }
}

/// What a worker has before it shakes hands.
pub(super) struct Connection {
    pub(super) socket: Arc<OwnedFd>,
    /// Shared with the host, or, where no memory can be shared, this process's own.
    pub(super) board: Board,
    is_shared: bool,
    /// The memory that holds the rings, if there are any.
    pub(super) rings: Option<Segment>,
}

/// Reads the marker, takes up what the host has left for this process, and makes the process what std's start would have made it.
fn connect() -> Result<(Marker, OwnedFd), Refused> {
    // SAFETY: before main, or at the top of it, this is the process's only thread; constructors of other crates that start threads
    // which change the environment would be at fault in any program.
    let value = unsafe { take_env(MARKER_CSTR) }.ok_or("its marker is gone")?;
    let marker = value.to_str().ok().and_then(Marker::parse).ok_or("its marker is damaged")?;
    let depth = marker.depth.to_string();
    // SAFETY: as for `take_env`.
    unsafe { set_env(DEPTH.as_ref(), Some(depth.as_ref())) };
    name_as_program();
    open_standard_streams();
    ignore_pipe_and_terminal();
    copy::begin();
    let socket = adopt_socket(marker.fd).ok_or("it inherited no connection")?;
    Ok((marker, socket))
}

/// Executed by way of /proc/self/exe, the process would be called `exe`.
pub(super) fn name_as_program() {
    if let Some(name) = std::env::args_os().next() {
        let name = std::path::Path::new(&name).file_name().unwrap_or_default().as_bytes();
        let _ = CString::new(name).map(|name| nix::sys::prctl::set_name(&name));
    }
}

/// Receives what the host sends before anything else: the preamble and the descriptors that come with it. Who sent a preamble of ours can
/// be told if these could not be taken.
pub(super) fn recv_preamble(
    socket: BorrowedFd<'_>,
    token: Option<u64>,
) -> Result<(Preamble, Result<Vec<OwnedFd>, Refused>), Refused> {
    let mut bytes = [0; PREAMBLE_BYTES];
    let arrived = wait_readable(socket, PREAMBLE_TIMEOUT)
        .map_err(|error| refused("its connection cannot be waited for", error))?;
    if !arrived {
        return Err("its connection is silent".into());
    }
    let fds = recv_with_fds::<MOST_FDS>(socket, &mut bytes)
        .map_err(|error| refused("its connection failed", error));
    let Some(preamble) = Preamble::from_bytes(bytes) else {
        fds?;
        return Err("the other end speaks another protocol: is it another build?".into());
    };
    if token.is_some_and(|token| token != preamble.token) {
        return Err("the other end does not know its token".into());
    }
    Ok((preamble, fds))
}

/// Takes up a worker's connection. One that was passed on by a template needs no token.
fn take_up(socket: OwnedFd, token: Option<u64>) -> Result<Connection, Refused> {
    let (preamble, fds) = recv_preamble(socket.as_fd(), token)?;
    let socket = Arc::new(socket);
    let _ = TOLD.set(socket.clone());
    let mut fds = fds?;
    let pipes = preamble.sinks.iter().filter(|sink| **sink == Sink::Host).count();
    let pipes = fds.split_off(fds.len().saturating_sub(pipes));
    output::redirect(preamble.sinks, preamble.token, pipes)
        .map_err(|error| refused("its output cannot be redirected", error))?;
    let segment = fds.pop();
    let is_shared = segment.is_some();
    let memory = match segment {
        Some(segment) => Segment::attach(segment.as_fd(), preamble.rings),
        None if !preamble.rings => Segment::unshared(),
        None => return Err("no memory came with the preamble".into()),
    };
    let memory = memory.map_err(|error| refused("the memory that it shares cannot be mapped", error))?;
    let board = memory.board();
    Ok(Connection { socket, board, is_shared, rings: preamble.rings.then_some(memory) })
}

/// What a template has its copy do.
pub(super) fn become_forked_worker(socket: OwnedFd, host: Option<OwnedFd>) -> ! {
    copy::begin();
    or_fail(|| watch_and_serve(take_up(out_of_the_way(socket), None)?, host))
}

/// Descriptors 0 to 2 may be closed in the parent; then the next to be opened would be taken for a standard stream.
fn open_standard_streams() {
    while let Ok(fd) = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            break;
        }
        // It is a standard stream now, and stays.
        std::mem::forget(fd);
    }
}

/// Serves on a thread named `main` and watches the connection on this one: a busy worker, too, ends when its host has gone.
fn serve_and_watch(connection: Connection) -> Result<std::convert::Infallible, Refused> {
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
    watch(socket.as_fd(), is_shared, hold_parent())
}

/// As [`serve_and_watch`], the other way round: serves on this thread, which has the memory and the stack that it needs, and whose
/// thread-locals the preload has filled.
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

/// Ends the process when the host has gone. Without memory that is shared, the host tells by closing its side that the running task is
/// to end.
fn watch(socket: BorrowedFd<'_>, is_shared: bool, host: Option<OwnedFd>) -> ! {
    let host = host.as_ref().map(AsFd::as_fd);
    let mut host_has_ended = wait_for_hangup(socket, host);
    if !host_has_ended && !is_shared && serve::is_busy() {
        context::hear_the_last();
        host_has_ended = wait_for_end(socket, host);
    }
    if host_has_ended {
        // A copy of the host, as a daemon is, may hold the other end of the connection.
        shutdown_both(socket);
    }
    // Asked before: a worker that becomes ready only now may not hear that it is to stop.
    let was_ready = serve::is_ready();
    serve::stop();
    if serve::is_busy() {
        // The host may be there: then the task itself has ended the connection.
        serve::note_cause(Cause::ConnectionEnded);
    } else if was_ready {
        // A worker that still starts has nothing to put in order.
        // The serving thread sees the end of the connection, too, and leaves through `exit`.
        std::thread::sleep(LEAVE_TIMEOUT);
    }
    end_group(HOST_GONE)
}
