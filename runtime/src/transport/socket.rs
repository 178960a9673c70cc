//! The transport over a stream socket, used if no memory can be shared. It would also work between machines.
//!
//! The rings use it, too, for the frames that go aside.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{
    Room,
    stream::{Read, Sink, Source},
};
use crate::sys::{fd, poll};

/// Frames up to this size are copied together before they are sent. One short copy costs less than passing a list of parts to the
/// kernel.
const SMALL_BYTES: usize = 16 << 10;

/// Sends into a socket, which may be blocking or not.
pub(super) struct SocketSink {
    socket: Arc<OwnedFd>,
    /// The identity of the socket's file, for processes in which other code may close it and reuse its number.
    identity: Option<(u64, u64)>,
    scratch: Vec<u8>,
}

impl SocketSink {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, identity: None, scratch: Vec::new() }
    }

    /// Creates a sink for a host, where other code may close the socket. Nothing is sent in that case.
    pub(super) fn of_host(socket: Arc<OwnedFd>) -> Self {
        Self { identity: fd::identity(socket.as_fd()), ..Self::new(socket) }
    }
}

impl Sink for SocketSink {
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        check(self.socket.as_fd(), self.identity)?;
        loop {
            let sent = if parts.iter().map(|part| part.len()).sum::<usize>() <= SMALL_BYTES {
                self.scratch.clear();
                parts.iter().for_each(|part| self.scratch.extend_from_slice(part));
                fd::write_one(self.socket.as_fd(), &self.scratch)
            } else {
                let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
                fd::write_some(self.socket.as_fd(), &parts)
            };
            match sent {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        // A blocking socket waits when it is written to.
        Ok(())
    }

    fn ring(&mut self) {}

    fn has_room(&mut self) -> bool {
        false
    }

    fn await_room(&mut self) -> Room {
        Room::Writable
    }

    fn close(&mut self) {
        if check(self.socket.as_fd(), self.identity).is_ok() {
            fd::shutdown_write(self.socket.as_fd());
        }
    }

    fn is_peer_at_rest(&self) -> bool {
        false
    }
}

/// Returns an error if the number no longer means the same file, as far as that is known.
fn check(socket: BorrowedFd<'_>, identity: Option<(u64, u64)>) -> io::Result<()> {
    if identity.is_none() || fd::identity(socket) == identity { Ok(()) } else { Err(poll::closed()) }
}

/// Receives from a socket.
pub(super) struct SocketSource {
    socket: Arc<OwnedFd>,
    /// As for [`SocketSink`].
    identity: Option<(u64, u64)>,
}

impl SocketSource {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, identity: None }
    }

    /// As for [`SocketSink::of_host`].
    pub(super) fn of_host(socket: Arc<OwnedFd>) -> Self {
        Self { identity: fd::identity(socket.as_fd()), ..Self::new(socket) }
    }
}

impl Source for SocketSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        check(self.socket.as_fd(), self.identity)?;
        loop {
            match fd::read_append(self.socket.as_fd(), target, most) {
                Ok(0) => return Ok(Read::Closed),
                Ok(n) => return Ok(Read::Bytes(n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
                // The peer ended before it had read everything that was sent to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Read::Closed),
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self, _near: bool) -> io::Result<()> {
        Ok(())
    }

    fn has_arrivals(&self) -> bool {
        false
    }

    fn park(&mut self) -> bool {
        true
    }

    fn unpark(&mut self) {}

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
