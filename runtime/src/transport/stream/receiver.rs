//! The receiving half of a stream. Whatever arrives is checked, and an error ends the stream.

use std::{io, os::fd::BorrowedFd};

use super::broken;
use crate::{
    frame::{Frames, PREFIX_BYTES, Prefix},
    sys::{buffer_cache, memory::advise_huge},
    transport::{Descriptors, FrameReceiver, Incoming},
};

/// Larger frames are received into their own vector, which is passed on without a copy.
const LARGE_BYTES: usize = 80 << 10;
/// The number of bytes that one read asks for.
const READ_BYTES: usize = 64 << 10;
/// Memory for a large frame is reserved for as many more bytes as have arrived, or for this many.
const AHEAD_BYTES: usize = 4 << 20;
/// The number of bytes that an end that does not wait reads in one round, so that a peer that never pauses does not keep others waiting.
const ROUND_BYTES: usize = 1 << 20;

/// Provides bytes.
///
/// The defaults are those of a socket, of which the kernel does the rest: it waits in `read`, and reports what arrives.
pub(crate) trait Source: Send {
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
    /// Returns whether descriptors have arrived and were not taken. A read ends after bytes with which some came.
    fn has_descriptors(&self) -> bool {
        false
    }
    fn take_descriptors(&mut self) -> Option<Descriptors> {
        None
    }
}

/// The result of [`Source::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(usize),
    Nothing,
    Closed,
}

/// The receiving half.
pub(crate) struct FramedReceiver<S> {
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
pub(crate) enum Found {
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
    pub(crate) fn new(source: S, waits: bool) -> Self {
        let (buffer, large) = (Vec::new(), None);
        Self { source, waits, buffer, start: 0, large, drained: false, round_bytes: 0, closed: false }
    }

    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(crate) fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Returns how much memory is reserved for arriving data, and how much of it may have been reserved because of a length.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(crate) fn reserved_bytes(&self) -> (usize, usize) {
        let large = self.large.as_ref().map_or(0, |large| large.head.capacity() + large.body.capacity());
        (self.buffer.capacity() + large, AHEAD_BYTES + 4 * LARGE_BYTES)
    }

    /// Notes that more has arrived since the last read.
    pub(crate) fn expect_more(&mut self) {
        self.drained = false;
    }

    /// Returns the frames that have arrived, after [`Found::Frames`]. The last of them may be incomplete.
    pub(crate) fn frames(&self) -> Frames<'_> {
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
    pub(crate) fn poll(&mut self) -> io::Result<Found> {
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
        self.drained = matches!(read, Read::Bytes(n) if n < wanted) && !self.source.has_descriptors();
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

    fn take_descriptors(&mut self) -> Option<Descriptors> {
        self.source.take_descriptors()
    }
}
