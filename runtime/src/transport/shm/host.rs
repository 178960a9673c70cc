//! The host's end of a connection with rings: sends frames through the worker's ring, and receives them from the other ring and, in
//! the right order, from the socket.
//!
//! `shm::offer` makes it, and `supervisor` owns it. It never waits, and trusts neither the rings nor the socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use super::{ROOM_BYTES, broken, segment::Part, wake};
use crate::{
    frame::{Frames, PREFIX_BYTES},
    ring::{Consumer, Producer},
    segment::Segment,
    sys::identified::Identified,
    transport::{
        Descriptors, FrameReceiver, Incoming, Room,
        socket::{SocketSink, SocketSource},
        stream::{Found, FramedReceiver, Read, Sink, Source},
    },
};

pub(super) struct HostSink {
    pub(super) producer: Producer<Part>,
    /// Only used for segments and for closing. Frames go through the ring.
    pub(super) socket: SocketSink,
}

impl Sink for HostSink {
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        self.producer.write(parts).map_err(broken)
    }

    fn ring(&mut self) {
        if let Some(bell) = self.producer.take_bell() {
            wake(bell);
        }
    }

    fn has_room(&mut self) -> bool {
        self.producer.fits(ROOM_BYTES) != Ok(false)
    }

    fn await_room(&mut self) -> Room {
        if self.has_segments() {
            return self.socket.await_room();
        }
        if self.producer.park() { Room::Readable } else { Room::Now }
    }

    fn close(&mut self) {
        self.producer.close();
        self.ring();
        self.socket.close();
    }

    fn is_peer_at_rest(&self) -> bool {
        self.producer.is_peer_at_rest()
    }

    fn attach(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        self.socket.attach(segment);
        self.socket.send_segments()
    }

    fn flush_segments(&mut self) -> io::Result<()> {
        self.socket.send_segments()
    }

    fn has_segments(&self) -> bool {
        self.socket.has_segments()
    }
}

pub(super) struct HostSource {
    pub(super) consumer: Consumer<Part>,
    pub(super) socket: Arc<Identified>,
}

impl Source for HostSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        let n = self.consumer.read(target, most).map_err(broken)?;
        if n == 0 {
            return Ok(Read::Nothing);
        }
        if let Some(bell) = self.consumer.take_bell() {
            wake(bell);
        }
        Ok(Read::Bytes(n))
    }

    fn has_arrivals(&self) -> bool {
        !self.consumer.is_empty()
    }

    fn park(&mut self) -> bool {
        // Announced before and not withdrawn. The worker will ring when it publishes something.
        if self.consumer.bell().load(crate::sync::Ordering::Relaxed) == 1 {
            return self.consumer.is_empty();
        }
        // None of our workers closes its ring. If one seems to have done so, it is checked at intervals instead of being waited for
        // in a loop.
        self.consumer.park() || self.consumer.is_empty()
    }

    fn unpark(&mut self) {
        self.consumer.unpark();
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The number of marks and empty frames that are skipped in one round, so that a peer that sends nothing else does not keep others waiting.
const MOST_SKIPPED: u32 = 1000;

/// Receives from the ring, and from the socket what was sent aside.
pub(super) struct HostReceiver {
    pub(super) ring: FramedReceiver<HostSource>,
    pub(super) aside: FramedReceiver<SocketSource>,
    /// There may be something on the socket.
    pub(super) readable: bool,
    /// The number of frames that have arrived there, except for empty ones.
    pub(super) aside_seen: u64,
    /// The number of frames that must have arrived there before the ring is read further.
    pub(super) aside_due: u64,
    /// The number of marks and empty frames that were skipped in this round.
    pub(super) skipped: u32,
    /// The frames that were returned last came from the socket.
    pub(super) from_aside: bool,
    pub(super) closed: bool,
}

/// The location of the next frame.
enum Turn {
    Ring,
    /// On the socket: the length of the next frame and its prefix.
    Aside(usize),
    Large(Vec<u8>, Vec<u8>),
    Nothing,
    Paused,
}

impl HostReceiver {
    /// Checks the socket. Returns `None` if there is no frame except for empty ones.
    fn poll_aside(&mut self) -> io::Result<Option<Turn>> {
        loop {
            if self.skipped >= MOST_SKIPPED {
                return Ok(Some(Turn::Paused));
            }
            match self.aside.poll()? {
                Found::Frames => match self.aside.frames().split_first() {
                    // The worker rang.
                    Some(([], _)) => {
                        self.aside.consume(PREFIX_BYTES);
                        self.skipped += 1;
                    }
                    Some((frame, _)) => return Ok(Some(Turn::Aside(PREFIX_BYTES + frame.len()))),
                    None => return Err(broken("a brief on the socket")),
                },
                Found::Large { head, body } => {
                    self.aside_seen += 1;
                    return Ok(Some(Turn::Large(head, body)));
                }
                Found::Nothing => {
                    self.readable = false;
                    return Ok(None);
                }
                Found::Paused => return Ok(Some(Turn::Paused)),
                Found::Closed => {
                    self.readable = false;
                    self.closed = true;
                    return Ok(None);
                }
                Found::Mark(_) => return Err(broken("a mark on the socket")),
            }
        }
    }

    fn turn(&mut self) -> io::Result<Turn> {
        loop {
            if self.skipped >= MOST_SKIPPED {
                return Ok(Turn::Paused);
            }
            if self.aside_seen < self.aside_due && !self.closed {
                // They were sent before the mark, so they must have arrived.
                match self.poll_aside()? {
                    Some(turn) => return Ok(turn),
                    None if self.closed => {}
                    None => return Err(broken("the ring counts records that were not sent")),
                }
            }
            match self.ring.poll()? {
                Found::Mark(count) => {
                    self.skipped += 1;
                    self.aside_due = count;
                    self.aside.expect_more();
                }
                Found::Frames => return Ok(Turn::Ring),
                Found::Large { head, body } => return Ok(Turn::Large(head, body)),
                // Only now, so that what was sent aside for the reply after the next one does not come before the next one.
                Found::Nothing | Found::Closed if self.readable && !self.closed => {
                    if let Some(turn) = self.poll_aside()? {
                        return Ok(turn);
                    }
                }
                Found::Nothing | Found::Closed => return Ok(Turn::Nothing),
                Found::Paused => return Ok(Turn::Paused),
            }
        }
    }
}

impl FrameReceiver for HostReceiver {
    fn begin(&mut self, readable: bool) {
        self.readable |= readable;
        self.skipped = 0;
        self.ring.begin(readable);
        self.aside.begin(readable);
    }

    fn recv(&mut self) -> io::Result<Incoming<'_>> {
        let turn = self.turn()?;
        self.from_aside = matches!(turn, Turn::Aside(_));
        Ok(match turn {
            Turn::Ring => Incoming::Frames(self.ring.frames()),
            Turn::Aside(len) => Incoming::Frames(Frames::new(&self.aside.frames().as_bytes()[..len])),
            Turn::Large(head, body) => Incoming::Large { head, body },
            Turn::Nothing if self.closed => Incoming::Closed,
            Turn::Nothing => Incoming::Nothing,
            Turn::Paused => Incoming::Paused,
        })
    }

    fn consume(&mut self, len_bytes: usize) {
        if self.from_aside {
            // One frame at a time is returned, and it is consumed completely or not at all.
            self.aside.consume(len_bytes);
            self.aside_seen += u64::from(len_bytes > 0);
        } else {
            self.ring.consume(len_bytes);
        }
    }

    fn has_arrivals(&self) -> bool {
        self.ring.has_arrivals()
    }

    fn is_midway(&self) -> bool {
        self.ring.is_midway()
    }

    fn park(&mut self) -> bool {
        self.ring.park()
    }

    fn unpark(&mut self) {
        self.ring.unpark();
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.poll_fd()
    }

    fn take_descriptors(&mut self) -> Option<Descriptors> {
        self.aside.take_descriptors()
    }
}
