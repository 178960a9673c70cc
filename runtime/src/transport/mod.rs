//! Moves frames between two processes. A frame is bytes of any length, in two parts, of which the first is short.
//!
//! The host's end never waits. [`FrameSender::send`] queues what the peer does not accept yet, and [`FrameReceiver::recv`] returns
//! [`Incoming::Nothing`]. The worker's end waits for both, which cannot deadlock because the host always reads.
//!
//! There are two transports: rings in shared memory ([`shm`]) and, if no memory can be shared, a stream socket (`socket.rs`). Both
//! carry the same stream of frames (`stream`). `supervisor` and `worker` use them. No transport knows what a message means.

#[cfg(all(any(test, fuzzing), not(loom)))]
mod scenario;
pub(crate) mod shm;
mod socket;
mod stream;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use scenario::play_frames;
pub(crate) use shm::{
    HostEnd, offer,
    segment::{Board, Cause, Segment},
    wants_socket,
    worker::{Aside, Waiting, WorkerEnd},
};

pub(crate) use socket::receive_segments;

use crate::frame::Frames;

/// Bytes with several owners.
pub(crate) type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The second part of a frame.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Borrowed(&'a [u8]),
    /// Sent from its own memory, however long that takes.
    Shared(&'a SharedBytes),
}

impl Body<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => (***bytes).as_ref(),
        }
    }
}

/// The sending direction of a connection.
pub(crate) trait FrameSender: Send {
    /// Sends a frame of these two parts after all earlier frames. An end that never waits queues what cannot be sent now. The peer
    /// is not necessarily woken.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()>;

    /// Sends a brief, like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn send_brief(&mut self, head: u64, body: &[u8]) -> io::Result<()>;

    /// Wakes the peer if it sleeps and was not told about what was sent.
    fn ring(&mut self);
}

/// The sending direction of an end that never waits.
pub(crate) trait QueueingSender: FrameSender {
    /// Sends more of what is queued.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn flush(&mut self) -> io::Result<()>;

    /// Hands over a segment before whatever is sent next is received. Segments for which there is no room are queued.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn attach(&mut self, segment: Arc<crate::segment::Segment>) -> io::Result<()>;

    /// Returns how many bytes are queued. The caller calls [`flush`](Self::flush) when there is room for more.
    fn queued_bytes(&self) -> usize;

    /// Returns whether there is room for some of what is queued. Checks once.
    fn has_room(&mut self) -> bool;

    /// Returns how the caller learns that there is room for what is queued.
    fn await_room(&mut self) -> Room;

    /// Tells the peer that no more frames will come.
    fn close(&mut self);

    /// Returns whether the peer has read all that was sent and sleeps, so that all of its answers have been sent. Returns `false`
    /// if that is not known.
    fn is_peer_at_rest(&self) -> bool;
}

/// The pause before descriptors are sent again for which the system had no room.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The way in which the caller learns that there is room to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room now.
    Now,
    /// The descriptor that is polled for reading becomes writable.
    Writable,
    /// The descriptor that is polled for reading becomes readable.
    Readable,
    /// The system has no room for more descriptors that are on their way. Nothing reports when it has, so the caller tries again.
    Later,
}

/// The receiving direction of a connection.
pub(crate) trait FrameReceiver: Send {
    /// Begins a round of [`recv`](Self::recv), which also considers what has arrived since the last round. `readable` says that the
    /// descriptor was seen to be readable.
    fn begin(&mut self, readable: bool);

    /// Returns the next frames.
    ///
    /// # Errors
    ///
    /// The stream is not a stream of frames, or the connection failed.
    fn recv(&mut self) -> io::Result<Incoming<'_>>;

    /// Consumes bytes of the [`Incoming::Frames`]. The rest is returned again.
    fn consume(&mut self, len_bytes: usize);

    /// Returns whether something has arrived that no poller reports. Checks once, without a system call.
    fn has_arrivals(&self) -> bool;

    /// Returns whether part of a large frame has arrived.
    fn is_midway(&self) -> bool;

    /// Makes the descriptor report everything that arrives from now on. Returns `false` if something has arrived already.
    fn park(&mut self) -> bool;

    /// The descriptor need not report arrivals any more, because the caller looks.
    fn unpark(&mut self);

    /// Returns the descriptor to poll for reading, if there is one.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Returns the descriptors that came with the oldest message that had some. Only on the host's end.
    fn take_descriptors(&mut self) -> Option<Descriptors> {
        None
    }
}

/// Descriptors that came with one message.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) fds: Vec<OwnedFd>,
    /// There were more, but this process may not have as many.
    pub(crate) are_lost: bool,
}

/// The result of [`FrameReceiver::recv`].
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// Frames, of which the last may be incomplete. The caller says how many of the bytes it has consumed.
    Frames(Frames<'a>),
    /// One frame that is too large to arrive in one piece.
    Large { head: Vec<u8>, body: Vec<u8> },
    /// No complete frame has arrived yet. Only on an end that never waits.
    Nothing,
    /// This round has read its share, and there may be more. Only on an end that never waits.
    Paused,
    /// The peer has closed its end between two frames.
    Closed,
}
