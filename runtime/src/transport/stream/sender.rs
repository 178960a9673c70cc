//! The sending half of a stream. What there is no room for is queued, unless the end waits.

use std::{collections::VecDeque, io, sync::Arc};

use crate::{
    frame::{MOST_HEAD_BYTES, PREFIX_BYTES, Prefix},
    segment::Segment,
    transport::{Body, FrameSender, QueueingSender, Room, SharedBytes},
};

/// Frames up to this size are usually sent in one piece.
const SMALL_BYTES: usize = 64 << 10;

/// Accepts bytes.
///
/// The defaults are those of a socket, of which the kernel does the rest: it waits for room in `write`, and wakes the peer.
pub(crate) trait Sink: Send {
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
    /// Hands over a segment, at the latest with what is written next.
    fn attach(&mut self, _segment: Arc<Segment>) -> io::Result<()> {
        unreachable!("only the host hands over segments")
    }
    /// Returns whether as many segments wait as can go with one write, so that an empty frame is to be written for them.
    fn wants_frame(&self) -> bool {
        false
    }
    /// Hands over segments for which there was no room, if they do not go with what is written.
    fn flush_segments(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Returns whether there are segments that wait for room by themselves.
    fn has_segments(&self) -> bool {
        false
    }
    fn is_peer_at_rest(&self) -> bool {
        false
    }
}

/// The sending half.
pub(crate) struct FramedSender<S> {
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
    pub(crate) fn new(sink: S, waits: bool) -> Self {
        Self { sink, waits, queue: VecDeque::new(), gone: 0, queued: 0 }
    }

    /// Sends a prefix alone.
    pub(crate) fn send_prefix(&mut self, prefix: Prefix) -> io::Result<()> {
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
    fn attach(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        self.sink.attach(segment)?;
        if self.sink.wants_frame() {
            self.send_prefix(Prefix::Frame { head_len: 0, len: 0 })?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush_segments()?;
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
        // A segment goes with one byte.
        self.queued + usize::from(self.sink.has_segments())
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
pub(crate) fn skip<const N: usize>(mut parts: [&[u8]; N], mut n: usize) -> [&[u8]; N] {
    for part in &mut parts {
        let here = n.min(part.len());
        *part = &part[here..];
        n -= here;
    }
    parts
}
