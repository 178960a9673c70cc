//! Frames over a stream socket: eight bytes of length, little-endian, then the frame. Serves other machines as well.
//!
//! A frame of any length goes in pieces, as the socket takes them; the receiver makes room as bytes arrive, never on the word of
//! the length alone.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{FrameReceiver, FrameSender, Received, Transport};
use crate::sys::fd;

/// No frame is longer. A longer one is nonsense that somebody else wrote to the connection.
const MOST_FRAME_BYTES: u64 = 1 << 48;
/// The length before each frame.
const PREFIX_BYTES: usize = 8;
/// Frames beyond this are received into a vector of their own, which is handed on without a copy.
const LARGE_BYTES: usize = 64 << 10;
/// Frames up to this are gathered before they are sent.
const SMALL_BYTES: usize = 16 << 10;
/// One read asks for so much.
const READ_BYTES: usize = 64 << 10;
/// Room for a large frame grows by at most so much ahead of what has arrived.
const MOST_AHEAD_BYTES: usize = 4 << 20;

/// Both directions over one socket.
#[derive(Debug)]
pub(crate) struct SocketTransport {
    socket: Arc<OwnedFd>,
    waits: bool,
}

impl SocketTransport {
    /// For the end that never waits.
    pub(crate) fn nonblocking(socket: OwnedFd) -> io::Result<Self> {
        fd::set_nonblocking(socket.as_fd())?;
        Ok(Self { socket: Arc::new(socket), waits: false })
    }

    /// For the end that waits.
    pub(crate) fn blocking(socket: Arc<OwnedFd>) -> Self {
        Self { socket, waits: true }
    }
}

impl Transport for SocketTransport {
    fn split(self: Box<Self>) -> (Box<dyn FrameSender>, Box<dyn FrameReceiver>) {
        let sender = SocketSender {
            socket: self.socket.clone(),
            scratch: Vec::new(),
            queue: VecDeque::new(),
            sent: 0,
            queued: 0,
        };
        let receiver = SocketReceiver {
            socket: self.socket,
            waits: self.waits,
            buffer: Vec::new(),
            start: 0,
            large: None,
            drained: false,
            closed: false,
        };
        (Box::new(sender), Box::new(receiver))
    }
}

struct SocketSender {
    socket: Arc<OwnedFd>,
    scratch: Vec<u8>,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first in the queue that have gone.
    sent: usize,
    queued: usize,
}

impl FrameSender for SocketSender {
    fn send(&mut self, head: &[u8], body: Cow<'_, [u8]>) -> io::Result<()> {
        let prefix = ((head.len() + body.len()) as u64).to_le_bytes();
        let mut gone = 0;
        let all = PREFIX_BYTES + head.len() + body.len();
        if self.queue.is_empty() && all <= SMALL_BYTES {
            // One short copy costs less than the kernel's reading of a list of parts.
            self.scratch.clear();
            self.scratch.extend_from_slice(&prefix);
            self.scratch.extend_from_slice(head);
            self.scratch.extend_from_slice(&body);
            match fd::write_one(self.socket.as_fd(), &self.scratch) {
                Ok(n) if n == all => return Ok(()),
                Ok(n) => gone = n,
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.queue.is_empty() {
            while gone < all {
                let parts = skip([&prefix[..], head, &body], gone);
                match fd::write_some(self.socket.as_fd(), &parts.map(IoSlice::new)) {
                    Ok(n) => gone += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if gone == all {
                return Ok(());
            }
        }
        let head_part = PREFIX_BYTES + head.len();
        if gone < head_part {
            let mut first = Vec::with_capacity(head_part);
            first.extend_from_slice(&prefix);
            first.extend_from_slice(head);
            first.drain(..gone);
            self.push(first);
            self.push(body.into_owned());
        } else {
            let mut body = body.into_owned();
            // Keep a large body where it is and remember how much of it has gone.
            if self.queue.is_empty() {
                self.sent = gone - head_part;
                self.queued += body.len() - self.sent;
                self.queue.push_back(body);
            } else {
                body.drain(..gone - head_part);
                self.push(body);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(front) = self.queue.front() {
            match fd::write_some(self.socket.as_fd(), &[IoSlice::new(&front[self.sent..])]) {
                Ok(n) => {
                    self.sent += n;
                    self.queued -= n;
                    if self.sent == front.len() {
                        self.queue.pop_front();
                        self.sent = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.queued
    }

    fn close(&mut self) {
        fd::shutdown_write(self.socket.as_fd());
    }
}

impl SocketSender {
    fn push(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }
}

/// The call may be made again, now or when there is room.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// The parts without their first `n` bytes.
fn skip<const N: usize>(mut parts: [&[u8]; N], mut n: usize) -> [&[u8]; N] {
    for part in &mut parts {
        let here = n.min(part.len());
        *part = &part[here..];
        n -= here;
    }
    parts
}

struct SocketReceiver {
    socket: Arc<OwnedFd>,
    /// Whether this end waits for the peer.
    waits: bool,
    /// What has arrived; from `start` on it has not been handed out.
    buffer: Vec<u8>,
    start: usize,
    /// A large frame on its way: its length and what has come of it.
    large: Option<(usize, Vec<u8>)>,
    /// The last read of this round took all that there was: asking again would find nothing.
    drained: bool,
    closed: bool,
}

impl FrameReceiver for SocketReceiver {
    fn begin(&mut self) {
        self.drained = false;
    }

    fn recv(&mut self) -> io::Result<Received<'_>> {
        loop {
            if let Some((len, bytes)) = &mut self.large {
                if bytes.len() == *len {
                    let frame = std::mem::take(bytes);
                    self.large = None;
                    return Ok(Received::Frame(Cow::Owned(frame)));
                }
            } else if let Some(prefix) = self.buffer[self.start..].first_chunk::<PREFIX_BYTES>() {
                let len = u64::from_le_bytes(*prefix);
                if len > MOST_FRAME_BYTES {
                    return Err(broken("the connection carries what is no frame"));
                }
                let len = usize::try_from(len).map_err(|_| broken("a frame longer than memory"))?;
                let arrived = self.buffer.len() - self.start - PREFIX_BYTES;
                if arrived >= len {
                    let from = self.start + PREFIX_BYTES;
                    self.start = from + len;
                    return Ok(Received::Frame(Cow::Borrowed(&self.buffer[from..from + len])));
                }
                if len > LARGE_BYTES {
                    // All that is in the buffer belongs to this frame.
                    let bytes = self.buffer[self.start + PREFIX_BYTES..].to_vec();
                    self.buffer.clear();
                    self.start = 0;
                    self.large = Some((len, bytes));
                    continue;
                }
            }
            if self.closed {
                return if self.large.is_none() && self.start == self.buffer.len() {
                    Ok(Received::Closed)
                } else {
                    Err(broken("the connection ended within a frame"))
                };
            }
            if self.drained && !self.waits {
                self.drained = false;
                return Ok(Received::Nothing);
            }
            match self.read() {
                Ok(0) => self.closed = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
                // The peer ended before it had read all that was sent to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.closed = true,
                Err(error) => return Err(error),
            }
        }
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl SocketReceiver {
    fn read(&mut self) -> io::Result<usize> {
        let (target, wanted) = match &mut self.large {
            Some((len, bytes)) => {
                let missing = *len - bytes.len();
                (bytes, missing.min(MOST_AHEAD_BYTES))
            }
            None => {
                if self.start > 0 {
                    self.buffer.drain(..self.start);
                    self.start = 0;
                }
                (&mut self.buffer, READ_BYTES)
            }
        };
        target.reserve(wanted);
        let n = fd::read_append(self.socket.as_fd(), target, wanted)?;
        self.drained = 0 < n && n < wanted;
        Ok(n)
    }
}

fn broken(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}
