//! The transport over a stream socket, used if no memory can be shared. It would also work between machines.
//!
//! The rings use it, too, for the frames that go aside.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use super::stream::{Read, Sink, Source};
use crate::sys::{fd, identified::Identified};

/// Frames up to this size are copied together before they are sent. One short copy costs less than passing a list of parts to the
/// kernel.
const SMALL_BYTES: usize = 16 << 10;

/// Sends into a socket, which may be blocking or not. Nothing is sent if other code has closed it.
pub(super) struct SocketSink {
    socket: Arc<Identified>,
    scratch: Vec<u8>,
}

impl SocketSink {
    pub(super) fn new(socket: Arc<Identified>) -> Self {
        Self { socket, scratch: Vec::new() }
    }
}

impl Sink for SocketSink {
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let socket = self.socket.check()?;
        let sent = if parts.iter().map(|part| part.len()).sum::<usize>() <= SMALL_BYTES {
            self.scratch.clear();
            parts.iter().for_each(|part| self.scratch.extend_from_slice(part));
            fd::write_one(socket, &self.scratch)
        } else {
            let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            fd::write_some(socket, &parts)
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    fn close(&mut self) {
        if let Ok(socket) = self.socket.check() {
            fd::shutdown_write(socket);
        }
    }
}

/// Receives from a socket. Nothing is read if other code has closed it.
pub(super) struct SocketSource {
    socket: Arc<Identified>,
}

impl SocketSource {
    pub(super) fn new(socket: Arc<Identified>) -> Self {
        Self { socket }
    }
}

impl Source for SocketSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        Ok(match fd::read_some(self.socket.check()?, target, most)? {
            Some(0) => Read::Closed,
            Some(n) => Read::Bytes(n),
            None => Read::Nothing,
        })
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        frame::Prefix,
        sys::fd::{set_nonblocking, stream_pair},
        transport::{FrameReceiver as _, Incoming, stream::FramedReceiver},
    };

    #[test]
    fn a_large_frame_may_arrive_in_any_pieces() {
        let (ours, theirs) = stream_pair().unwrap();
        set_nonblocking(ours.as_fd()).unwrap();
        let mut receiver = FramedReceiver::new(SocketSource::new(Arc::new(Identified::new(ours))), false);
        let (head, body) = ([1; 13], vec![2; 100 << 10]);
        let prefix = Prefix::Frame { head_len: head.len(), len: head.len() + body.len() };
        for piece in [&prefix.to_bytes()[..], &head[..5], &head[5..], &body[..9], &body[9..]] {
            receiver.begin(true);
            assert!(matches!(receiver.recv().unwrap(), Incoming::Nothing));
            assert_eq!(fd::write_some(theirs.as_fd(), &[IoSlice::new(piece)]).unwrap(), piece.len());
        }
        receiver.begin(true);
        let Incoming::Large { head: arrived, body: rest } = receiver.recv().unwrap() else {
            panic!("the frame is complete")
        };
        assert!(arrived == head && rest == body);
    }
}
