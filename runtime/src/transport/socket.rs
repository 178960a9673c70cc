//! The transport over a stream socket, used if no memory can be shared. It would also work between machines.
//!
//! The rings use it, too, for the frames that go aside.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use super::{
    AGAIN_AFTER, Descriptors, Room,
    stream::{Read, Sink, Source, broken},
};
use crate::{
    segment::{self, MOST_FILES, Segment},
    sys::{
        fd,
        identified::Identified,
        pass::{MOST_AT_ONCE, read_some_with_fds, send_some_with_fds},
        poll::wait_writable,
    },
};

/// Frames up to this size are copied together before they are sent. One short copy costs less than passing a list of parts to the
/// kernel.
const SMALL_BYTES: usize = 16 << 10;

/// The number of segments that go with one write.
const MOST_SEGMENTS: usize = MOST_AT_ONCE / MOST_FILES;

/// Sends into a socket, which may be blocking or not. Nothing is sent if other code has closed it.
pub(super) struct SocketSink {
    socket: Arc<Identified>,
    scratch: Vec<u8>,
    /// What is handed over with the next bytes.
    segments: VecDeque<Arc<Segment>>,
    /// The system had no room for descriptors when they were last sent.
    is_short: bool,
}

impl SocketSink {
    pub(super) fn new(socket: Arc<Identified>) -> Self {
        Self { socket, scratch: Vec::new(), segments: VecDeque::new(), is_short: false }
    }

    /// Hands over a segment with the next bytes.
    pub(super) fn attach(&mut self, segment: Arc<Segment>) {
        self.segments.push_back(segment);
    }

    /// Returns whether there are segments that were not handed over.
    pub(super) fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Hands over segments with bytes that mean nothing, as far as there is room.
    pub(super) fn send_segments(&mut self) -> io::Result<()> {
        while self.has_segments() && self.write_with_segments(&[&[0]])? > 0 {}
        Ok(())
    }

    /// Sends bytes, and segments with the first of them.
    #[cold]
    fn write_with_segments(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let socket = self.socket.check()?;
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let n = self.segments.len().min(MOST_SEGMENTS);
        // What has lost its descriptor is missed by the worker, which says so.
        let fds: Vec<BorrowedFd<'_>> =
            self.segments.iter().take(n).flat_map(|segment| segment.files()).collect();
        let sent = send_some_with_fds(socket, &parts, &fds);
        self.is_short = sent.as_ref().is_err_and(|e| fd::is_full(e) && e.kind() != io::ErrorKind::WouldBlock);
        let sent = match sent {
            Err(error) if fd::is_full(&error) => 0,
            sent => sent?,
        };
        if sent > 0 {
            self.segments.drain(..n);
        }
        Ok(sent)
    }
}

impl Sink for SocketSink {
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        if self.has_segments() {
            return self.write_with_segments(parts);
        }
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

    fn wait(&mut self) -> io::Result<()> {
        if self.is_short {
            std::thread::sleep(AGAIN_AFTER);
            return Ok(());
        }
        // Longer waits are made of several, in case other code has taken the socket away.
        wait_writable(self.socket.check()?, Duration::from_secs(1)).map(drop)
    }

    fn await_room(&mut self) -> Room {
        if self.is_short { Room::Later } else { Room::Writable }
    }

    fn close(&mut self) {
        if let Ok(socket) = self.socket.check() {
            fd::shutdown_write(socket);
        }
    }

    fn attach(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        self.attach(segment);
        Ok(())
    }

    fn wants_frame(&self) -> bool {
        self.segments.len() >= MOST_SEGMENTS
    }
}

/// The number of messages with descriptors that are kept until the frame in them is read. Our workers send each with its frame.
const MOST_UNREAD: usize = 4;

/// Receives from a socket. Nothing is read if other code has closed it.
pub(super) struct SocketSource {
    socket: Arc<Identified>,
    /// The peer is the host, which hands over segments.
    is_worker: bool,
    /// The descriptors that a worker has sent, by message.
    arrived: VecDeque<Descriptors>,
}

impl SocketSource {
    pub(super) fn new(socket: Arc<Identified>) -> Self {
        Self { socket, is_worker: false, arrived: VecDeque::new() }
    }

    /// Receives from the host, which hands over segments.
    pub(super) fn of_worker(socket: Arc<Identified>) -> Self {
        Self { socket, is_worker: true, arrived: VecDeque::new() }
    }
}

/// Receives what the host has handed over beside rings, without waiting. Returns `false` at the end of the connection.
pub(crate) fn receive_segments(socket: &Identified) -> bool {
    let mut nothing = Vec::with_capacity(MOST_AT_ONCE);
    let received =
        socket.check().and_then(|socket| read_some_with_fds(socket, &mut nothing, MOST_AT_ONCE, false));
    match received {
        Ok(Some((n, fds, are_lost))) => {
            segment::receive(fds, are_lost);
            n > 0
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

impl Source for SocketSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        let socket = self.socket.check()?;
        let Some((n, fds, are_lost)) = read_some_with_fds(socket, target, most, true)? else {
            return Ok(Read::Nothing);
        };
        if self.is_worker {
            segment::receive(fds, are_lost);
        } else if are_lost || !fds.is_empty() {
            if self.arrived.len() == MOST_UNREAD {
                return Err(broken("descriptors that no message names"));
            }
            self.arrived.push_back(Descriptors { fds, are_lost });
        }
        Ok(if n == 0 { Read::Closed } else { Read::Bytes(n) })
    }

    fn has_descriptors(&self) -> bool {
        !self.arrived.is_empty()
    }

    fn take_descriptors(&mut self) -> Option<Descriptors> {
        self.arrived.pop_front()
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
