//! A stream of frames over any [`Sink`] and [`Source`] of bytes: a [`Prefix`], then the frame.
//!
//! A frame of any length is sent in pieces, as there is room. The receiver allocates memory as bytes arrive, and never because of a
//! length alone.

use std::{collections::VecDeque, error::Error, io, os::fd::BorrowedFd};

use super::{Body, FrameReceiver, FrameSender, Incoming, QueueingSender, Room, SharedBytes};
use crate::{
    frame::{Frames, MOST_HEAD_BYTES, PREFIX_BYTES, Prefix},
    sys::{buffer_cache, memory::advise_huge},
};

/// Larger frames are received into their own vector, which is passed on without a copy.
const LARGE_BYTES: usize = 80 << 10;
/// Frames up to this size are usually sent in one piece.
const SMALL_BYTES: usize = 64 << 10;
/// The number of bytes that one read asks for.
const READ_BYTES: usize = 64 << 10;
/// Memory for a large frame is reserved for as many more bytes as have arrived, or for this many.
const AHEAD_BYTES: usize = 4 << 20;
/// The number of bytes that an end that does not wait reads in one round, so that a peer that never pauses does not keep others waiting.
const ROUND_BYTES: usize = 1 << 20;

/// Accepts bytes.
///
/// The defaults are those of a socket, of which the kernel does the rest: it waits for room in `write`, and wakes the peer.
pub(super) trait Sink: Send {
    /// Accepts as many bytes of the parts as there is room for. Returns 0 if there is no room.
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize>;
    /// Accepts all of a few bytes. Returns `false` if it accepted none of them, or does not support this.
    #[inline]
    fn write_few(&mut self, _prefix: [u8; PREFIX_BYTES], _few: &[u8]) -> bool {
        false
    }
    /// Waits for room. Only on an end that waits.
    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn ring(&mut self) {}
    /// Only on an end that never waits, like what follows.
    fn has_room(&mut self) -> bool {
        false
    }
    fn await_room(&mut self) -> Room {
        Room::Writable
    }
    fn close(&mut self) {}
    fn is_peer_at_rest(&self) -> bool {
        false
    }
}

/// Provides bytes.
///
/// The defaults are those of a socket, of which the kernel does the rest: it waits in `read`, and reports what arrives.
pub(super) trait Source: Send {
    /// Appends at most `most` bytes.
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read>;
    /// Waits until there is something to read. It is `near` in the middle of a frame. Only on an end that waits.
    fn wait(&mut self, _near: bool) -> io::Result<()> {
        Ok(())
    }
    /// Only on an end that never waits, like what follows.
    fn has_arrivals(&self) -> bool {
        false
    }
    fn park(&mut self) -> bool {
        true
    }
    fn unpark(&mut self) {}
    fn poll_fd(&self) -> BorrowedFd<'_>;
}

/// The result of [`Source::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    Closed,
}

/// The sending half.
pub(super) struct FramedSender<S> {
    sink: S,
    waits: bool,
    queue: VecDeque<Piece>,
    /// The number of bytes of the first piece in the queue that were sent.
    gone: usize,
    queued: usize,
}

enum Piece {
    Own(Vec<u8>),
    Shared(SharedBytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => (**bytes).as_ref(),
        }
    }
}

impl<S: Sink> FramedSender<S> {
    pub(super) fn new(sink: S, waits: bool) -> Self {
        Self { sink, waits, queue: VecDeque::new(), gone: 0, queued: 0 }
    }

    /// Sends a prefix alone.
    pub(super) fn send_prefix(&mut self, prefix: Prefix) -> io::Result<()> {
        self.send_head(&[&prefix.to_bytes()])
    }

    /// Sends a frame that fits in one piece. If it does not fit, the rest goes the slow way.
    #[inline]
    fn send_head(&mut self, head: &[&[u8]]) -> io::Result<()> {
        let len = head.iter().map(|part| part.len()).sum::<usize>();
        let gone = if self.queue.is_empty() { self.sink.write(head)? } else { 0 };
        if gone == len { Ok(()) } else { self.send_rest(&head.concat(), Body::Borrowed(&[]), gone) }
    }

    /// Sends the rest of a frame of which `gone` bytes were sent.
    #[inline(never)]
    fn send_rest(&mut self, head: &[u8], body: Body<'_>, mut gone: usize) -> io::Result<()> {
        let all = head.len() + body.bytes().len();
        while self.queue.is_empty() && gone < all {
            // One piece at a time, so that the peer can take one while the next is written.
            let [head, body] = skip([head, body.bytes()], gone);
            match self.sink.write(&[head, &body[..body.len().min(SMALL_BYTES)]])? {
                0 if self.waits => self.sink.wait()?,
                0 => break,
                n => {
                    gone += n;
                    if gone < all {
                        self.sink.ring();
                    }
                }
            }
        }
        if gone < head.len() {
            self.push(Piece::Own(head.to_vec()), gone);
        }
        let gone = gone.saturating_sub(head.len());
        match body {
            Body::Borrowed(bytes) => self.push(Piece::Own(bytes[gone..].to_vec()), 0),
            Body::Shared(bytes) => self.push(Piece::Shared(bytes.clone()), gone),
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece, gone: usize) {
        let left = piece.bytes().len() - gone;
        if left > 0 {
            debug_assert!(gone == 0 || self.queue.is_empty(), "only the first has begun to go");
            if self.queue.is_empty() {
                self.gone = gone;
            }
            self.queued += left;
            self.queue.push_back(piece);
        }
    }
}

impl<S: Sink> FrameSender for FramedSender<S> {
    #[inline]
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        debug_assert!(head.len() <= MOST_HEAD_BYTES, "heads are short");
        let prefix = Prefix::Frame { head_len: head.len(), len: head.len() + body.bytes().len() };
        let prefix = prefix.to_bytes();
        if body.bytes().len() <= SMALL_BYTES {
            self.send_head(&[&prefix, head, body.bytes()])
        } else {
            self.send_rest(&[&prefix, head].concat(), body, 0)
        }
    }

    #[inline]
    fn send_brief(&mut self, head: u64, body: &[u8]) -> io::Result<()> {
        let prefix = Prefix::Brief { head, len: body.len() }.to_bytes();
        if self.queue.is_empty() && self.sink.write_few(prefix, body) {
            return Ok(());
        }
        self.send_head(&[&prefix, body])
    }

    fn ring(&mut self) {
        self.sink.ring();
    }
}

impl<S: Sink> QueueingSender for FramedSender<S> {
    fn flush(&mut self) -> io::Result<()> {
        while let Some(front) = self.queue.front() {
            let rest = &front.bytes()[self.gone..];
            let n = self.sink.write(&[&rest[..rest.len().min(SMALL_BYTES)]])?;
            if n == 0 {
                break;
            }
            self.gone += n;
            self.queued -= n;
            self.sink.ring();
            if self.gone == front.bytes().len() {
                self.queue.pop_front();
                self.gone = 0;
            }
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.queued
    }

    fn has_room(&mut self) -> bool {
        self.queued > 0 && self.sink.has_room()
    }

    fn await_room(&mut self) -> Room {
        self.sink.await_room()
    }

    fn close(&mut self) {
        self.sink.close();
    }

    fn is_peer_at_rest(&self) -> bool {
        self.queue.is_empty() && self.sink.is_peer_at_rest()
    }
}

/// Returns the parts without their first `n` bytes.
pub(super) fn skip<const N: usize>(mut parts: [&[u8]; N], mut n: usize) -> [&[u8]; N] {
    for part in &mut parts {
        let here = n.min(part.len());
        *part = &part[here..];
        n -= here;
    }
    parts
}

/// The receiving half.
pub(super) struct FramedReceiver<S> {
    source: S,
    /// Whether this end waits for the peer.
    waits: bool,
    /// The bytes that have arrived. They were not consumed from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// A large frame that is arriving.
    large: Option<Large>,
    /// The last read of this round returned everything, so another read would find nothing.
    drained: bool,
    /// The number of bytes that were read in this round.
    round_bytes: usize,
    closed: bool,
}

struct Large {
    head: Vec<u8>,
    /// The length of the head.
    head_len: usize,
    /// The length of the rest.
    body_len: usize,
    body: Vec<u8>,
}

/// The result of [`FramedReceiver::poll`].
#[derive(Debug)]
pub(super) enum Found {
    /// At least one complete frame. See [`FramedReceiver::frames`].
    Frames,
    Large {
        head: Vec<u8>,
        body: Vec<u8>,
    },
    /// The number of frames that were sent aside before the next one here.
    Mark(u64),
    Nothing,
    /// There may be more, for another round.
    Paused,
    Closed,
}

/// The kind of the data at the start of the buffer.
enum DataKind {
    Whole,
    Mark(u64),
    Large { head_len: usize, len: usize },
    Part,
}

impl<S: Source> FramedReceiver<S> {
    pub(super) fn new(source: S, waits: bool) -> Self {
        let (buffer, large) = (Vec::new(), None);
        Self { source, waits, buffer, start: 0, large, drained: false, round_bytes: 0, closed: false }
    }

    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(super) fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Returns how much memory is reserved for arriving data, and how much of it may have been reserved because of a length.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(super) fn reserved_bytes(&self) -> (usize, usize) {
        let large = self.large.as_ref().map_or(0, |large| large.head.capacity() + large.body.capacity());
        (self.buffer.capacity() + large, AHEAD_BYTES + 4 * LARGE_BYTES)
    }

    /// Notes that more has arrived since the last read.
    pub(super) fn expect_more(&mut self) {
        self.drained = false;
    }

    /// Returns the frames that have arrived, after [`Found::Frames`]. The last of them may be incomplete.
    pub(super) fn frames(&self) -> Frames<'_> {
        Frames::new(&self.buffer[self.start..])
    }

    fn next(&self) -> io::Result<DataKind> {
        let rest = &self.buffer[self.start..];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(DataKind::Part);
        };
        match Prefix::from_bytes(*prefix) {
            Err(_) => Err(broken("the connection carried an invalid frame")),
            Ok(Prefix::Mark(count)) => Ok(DataKind::Mark(count)),
            Ok(Prefix::Frame { len, .. } | Prefix::Brief { len, .. }) if rest.len() >= len => {
                Ok(DataKind::Whole)
            }
            Ok(Prefix::Frame { head_len, len }) if len > LARGE_BYTES => Ok(DataKind::Large { head_len, len }),
            Ok(Prefix::Frame { .. } | Prefix::Brief { .. }) => Ok(DataKind::Part),
        }
    }

    /// Looks for the next frame, or waits for it.
    pub(super) fn poll(&mut self) -> io::Result<Found> {
        loop {
            if let Some(large) = &self.large {
                if large.head.len() == large.head_len && large.body.len() == large.body_len {
                    let Large { head, body, .. } = self.large.take().expect("looked at just now");
                    return Ok(Found::Large { head, body });
                }
            } else {
                match self.next()? {
                    DataKind::Whole => return Ok(Found::Frames),
                    DataKind::Mark(count) => {
                        self.start += PREFIX_BYTES;
                        return Ok(Found::Mark(count));
                    }
                    DataKind::Large { head_len, len } => {
                        // Everything in the buffer belongs to this frame.
                        let arrived = &self.buffer[self.start + PREFIX_BYTES..];
                        let (head, body) = arrived.split_at(head_len.min(arrived.len()));
                        let body_len = len - head_len;
                        let mut large = Large { head: head.to_vec(), head_len, body_len, body: Vec::new() };
                        // A buffer that was used before has at most the size that is needed.
                        large.body = buffer_cache::take(body_len);
                        large.body.extend_from_slice(body);
                        self.large = Some(large);
                        self.buffer.clear();
                        self.start = 0;
                        continue;
                    }
                    DataKind::Part => {}
                }
            }
            if self.closed {
                return if self.large.is_none() && self.start == self.buffer.len() {
                    Ok(Found::Closed)
                } else {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a frame"))
                };
            }
            if self.drained && !self.waits {
                self.drained = false;
                return Ok(Found::Nothing);
            }
            if self.round_bytes >= ROUND_BYTES && !self.waits {
                return Ok(Found::Paused);
            }
            match self.read()? {
                Read::Bytes(n) => self.round_bytes = self.round_bytes.saturating_add(n),
                Read::Closed => self.closed = true,
                Read::Nothing if self.waits => self.source.wait(self.large.is_some())?,
                Read::Nothing => return Ok(Found::Nothing),
            }
        }
    }

    fn read(&mut self) -> io::Result<Read> {
        let (target, wanted) = match &mut self.large {
            Some(Large { head, head_len, .. }) if head.len() < *head_len => {
                let missing = *head_len - head.len();
                (head, missing)
            }
            Some(Large { body, body_len, .. }) => {
                let missing = *body_len - body.len();
                if body.capacity() - body.len() < missing.min(READ_BYTES) {
                    // The length is the peer's claim. The amount that has arrived decides how much memory is reserved.
                    body.try_reserve_exact(missing.min(body.len().max(AHEAD_BYTES))).map_err(|_| {
                        io::Error::new(io::ErrorKind::OutOfMemory, "a frame that does not fit into memory")
                    })?;
                    advise_huge(body.as_ptr(), body.capacity());
                }
                let room = body.capacity() - body.len();
                (body, missing.min(room).min(READ_BYTES))
            }
            None => {
                if self.start > 0 {
                    self.buffer.drain(..self.start);
                    self.start = 0;
                }
                self.buffer.reserve(READ_BYTES);
                (&mut self.buffer, READ_BYTES)
            }
        };
        let read = self.source.read(target, wanted)?;
        self.drained = matches!(read, Read::Bytes(n) if n < wanted);
        Ok(read)
    }
}

impl<S: Source> FrameReceiver for FramedReceiver<S> {
    fn begin(&mut self, _readable: bool) {
        (self.drained, self.round_bytes) = (false, 0);
    }

    fn recv(&mut self) -> io::Result<Incoming<'_>> {
        match self.poll()? {
            Found::Frames => Ok(Incoming::Frames(self.frames())),
            Found::Large { head, body } => Ok(Incoming::Large { head, body }),
            Found::Nothing => Ok(Incoming::Nothing),
            Found::Paused => Ok(Incoming::Paused),
            Found::Closed => Ok(Incoming::Closed),
            Found::Mark(_) => Err(broken("a mark on a connection that has no other")),
        }
    }

    fn consume(&mut self, len_bytes: usize) {
        self.start += len_bytes;
    }

    fn has_arrivals(&self) -> bool {
        // Part of a frame does not count yet.
        matches!(self.next(), Ok(DataKind::Whole | DataKind::Mark(_))) || self.source.has_arrivals()
    }

    fn is_midway(&self) -> bool {
        self.large.is_some()
    }

    fn park(&mut self) -> bool {
        self.source.park()
    }

    fn unpark(&mut self) {
        self.source.unpark();
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.source.poll_fd())
    }
}

/// Returns the error of a peer that does not keep to the protocol.
pub(super) fn broken(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
