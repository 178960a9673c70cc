//! Connects a new process to the host that started it: reads the marker, the preamble and the descriptors that come with it.
//!
//! `entry`, `template` and `lifeline` use it, and end the process with [`fail`] if something is wrong. It does not shake hands.
#![expect(unsafe_code, reason = "the environment, before other threads exist")]

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::Duration,
};

use nix::{fcntl::OFlag, sys::stat::Mode};

use super::{copy, output};
use crate::{
    escape::Lines,
    marker::{DEPTH, MARKER_CSTR, Marker, START_FAILED},
    panic::RemotePanic,
    protocol::{Notice, PREAMBLE_BYTES, Preamble, Refused, StreamTarget},
    sys::{
        cpu::name_as_program,
        env::{set_env, take_env},
        exit::{end_now, write_stderr},
        fd::adopt_socket,
        identified::Identified,
        limits::{explained, is_shortage},
        pass::recv_with_fds,
        poll::wait_readable,
        signal::ignore_pipe_and_terminal,
    },
    transport::{Board, Segment, shm::worker::send_alone},
};

/// The shared memory, and a pipe for each of two streams.
const MOST_FDS: usize = 3;

/// The time to wait for the preamble. The host sends it as soon as this process exists, so only a stopped machine makes it wait.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn or_fail(run: impl FnOnce() -> Result<std::convert::Infallible, Refused>) -> ! {
    // A panic must not unwind out of the hook, or into the code in which the host was copied. It would abort without our exit code,
    // or worse.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(refused)) => fail(&refused),
        Err(panic) => fail(&format!("it panicked: {}", RemotePanic::from_payload(&*panic)).into()),
    }
}

/// The connection before the handshake, on which the host can be told why this process cannot be a worker.
static TOLD: OnceLock<Arc<Identified>> = OnceLock::new();

/// Ends this process, which cannot be a worker. Tells the reason to the host, or writes it to stderr if that is not possible.
pub(super) fn fail(refused: &Refused) -> ! {
    let message = Notice::Refused(refused.clone()).encode();
    let is_told = TOLD.get().is_some_and(|socket| send_alone(socket.clone(), &message).is_ok());
    if !is_told {
        write_stderr(&format!(
            "procession: this process was started as a worker but cannot become one: {}\n",
            Lines(&refused.reason)
        ));
    }
    end_now(START_FAILED)
}

/// Describes what this process cannot do, and why. Names the limit behind the error if the system is short of something.
pub(super) fn refused(what: impl std::fmt::Display, error: std::io::Error) -> Refused {
    Refused { is_short: is_shortage(&error), reason: format!("{what}: {}", explained(error)) }
}

/// The connection of a worker before the handshake.
pub(super) struct HostConnection {
    pub(super) socket: Arc<Identified>,
    /// Shared with the host, or private to this process if no memory can be shared.
    pub(super) board: Board,
    pub(super) is_shared: bool,
    /// The memory that holds the rings, if there are any.
    pub(super) rings: Option<Segment>,
}

/// Reads the marker, takes ownership of the inherited socket, and prepares the process as the start of std would have done.
pub(super) fn connect() -> Result<(Marker, OwnedFd), Refused> {
    // SAFETY: before main, or at the top of it, this is the process's only thread; constructors of other crates that start threads
    // which change the environment would be at fault in any program.
    let value = unsafe { take_env(MARKER_CSTR) }.ok_or("its marker is missing")?;
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

/// Receives the preamble, which the host sends first, and the descriptors that come with it. If the preamble is valid but the
/// descriptors could not be received, the host can be told so.
pub(super) fn recv_preamble(
    socket: BorrowedFd<'_>,
    token: Option<u64>,
) -> Result<(Preamble, Result<Vec<OwnedFd>, Refused>), Refused> {
    let mut bytes = [0; PREAMBLE_BYTES];
    let arrived = wait_readable(socket, PREAMBLE_TIMEOUT)
        .map_err(|error| refused("its connection cannot be waited for", error))?;
    if !arrived {
        return Err("nothing arrived on its connection in time".into());
    }
    let fds = recv_with_fds::<MOST_FDS>(socket, &mut bytes)
        .map_err(|error| refused("its connection failed", error));
    let Some(preamble) = Preamble::from_bytes(bytes) else {
        fds?;
        return Err("the other end speaks another protocol: is it another build?".into());
    };
    if token.is_some_and(|token| token != preamble.token) {
        return Err("the other end sent the wrong token".into());
    }
    Ok((preamble, fds))
}

/// Receives the rest of a worker's connection. A connection that was passed on by a template needs no token.
pub(super) fn take_up(socket: OwnedFd, token: Option<u64>) -> Result<HostConnection, Refused> {
    let (preamble, fds) = recv_preamble(socket.as_fd(), token)?;
    let socket = Arc::new(Identified::new(socket));
    let _ = TOLD.set(socket.clone());
    let mut fds = fds?;
    let pipes = preamble.targets.iter().filter(|target| **target == StreamTarget::Host).count();
    let pipes = fds.split_off(fds.len().saturating_sub(pipes));
    output::redirect(preamble.targets, preamble.token, pipes)
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
    Ok(HostConnection { socket, board, is_shared, rings: preamble.rings.then_some(memory) })
}

/// Opens descriptors 0 to 2 if they were closed in the parent. Otherwise the next file that is opened would be used as a standard
/// stream.
pub(super) fn open_standard_streams() {
    while let Ok(fd) = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            break;
        }
        // It is a standard stream now and stays open.
        std::mem::forget(fd);
    }
}
