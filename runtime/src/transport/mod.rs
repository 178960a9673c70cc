//! Moves frames between two processes. Knows no message: a frame is bytes, of any length, in two parts of which the first is short.
//!
//! The host's end never waits: [`FrameSender::send`] queues what the peer does not take yet, and [`FrameReceiver::recv`] says
//! [`Received::Nothing`]. The worker's end waits for both, which is sound because the host always reads.
//!
//! Two ways: rings in shared memory ([`shm`]), and, where there is none, a stream socket ([`socket`]). Both carry the same stream of
//! frames ([`framed`]).

#[cfg(all(any(test, fuzzing), not(loom)))]
mod scenario;
pub(crate) mod shm;
mod socket;
mod stream;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{io, os::fd::BorrowedFd, sync::Arc};

#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use scenario::play_frames;
pub(crate) use shm::{
    HostEnd, offer,
    segment::{Board, Cause, Segment},
    wants_socket,
    worker::{Aside, Waiting, WorkerEnd},
};

use crate::frame::Frames;

/// Bytes that several have.
pub(crate) type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The second part of a frame.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Borrowed(&'a [u8]),
    /// Sent from where it lies, however long that takes.
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

/// The direction away from here.
pub(crate) trait FrameSender: Send {
    /// Sends a frame of these two parts after all that were sent before it; an end that never waits queues what does not go now. The peer may sleep
    /// on.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()>;

    /// As [`send`](Self::send), a brief.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn send_brief(&mut self, head: u64, body: &[u8]) -> io::Result<()>;

    /// Wakes the peer if it sleeps and does not know of what was sent.
    fn ring(&mut self);
}

/// The end that never waits.
pub(crate) trait QueueingSender: FrameSender {
    /// Sends more of what is queued.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn flush(&mut self) -> io::Result<()>;

    /// Bytes that are queued: the caller calls [`flush`](Self::flush) when there is room for more.
    fn queued_bytes(&self) -> usize;

    /// There is room for some of what is queued, at one look.
    fn has_room(&mut self) -> bool;

    /// How the caller learns that there is room for what is queued.
    fn await_room(&mut self) -> Room;

    /// Tells the peer that no more frames will come.
    fn close(&mut self);

    /// The peer has read all that was sent, and sleeps: what it had to say to that, it has said. `false`: that is not known.
    fn is_peer_at_rest(&self) -> bool;
}

/// How one learns that there is room to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Now,
    /// The descriptor that is polled for reading becomes writable.
    Writable,
    /// The descriptor that is polled for reading becomes readable.
    Readable,
}

/// The direction towards here.
pub(crate) trait FrameReceiver: Send {
    /// Begins a round of [`recv`](Self::recv): from now on `Nothing` is said of what has arrived since, too. `readable`: the descriptor
    /// was seen to be.
    fn begin(&mut self, readable: bool);

    /// The next frames.
    ///
    /// # Errors
    ///
    /// The stream is not one of frames, or the connection failed.
    fn recv(&mut self) -> io::Result<Received<'_>>;

    /// So many of the bytes of the [`Received::Frames`] have been seen to; the rest is given again.
    fn consume(&mut self, len_bytes: usize);

    /// Something has come that no poller tells of. One look, and no system call.
    fn has_arrivals(&self) -> bool;

    /// Part of a large frame has come.
    fn is_midway(&self) -> bool;

    /// Has the descriptor tell of whatever comes from now on. `false`: something has come already.
    fn park(&mut self) -> bool;

    /// The descriptor need tell no more: somebody looks.
    fn unpark(&mut self);

    /// What to poll for reading.
    fn poll_fd(&self) -> BorrowedFd<'_>;
}

/// What [`FrameReceiver::recv`] found.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// Frames, of which the last may not be whole. The caller says how many of the bytes it has seen to.
    Frames(Frames<'a>),
    /// One frame that is too large to come in one piece.
    Large { head: Vec<u8>, body: Vec<u8> },
    /// No whole frame has come yet. Only on an end that never waits.
    Nothing,
    /// This round has read its share, and there may be more. Only on an end that never waits.
    Paused,
    /// The peer has closed its end, between two frames.
    Closed,
}
