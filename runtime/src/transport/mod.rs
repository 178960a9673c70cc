//! Moves frames between two processes. Knows no message: a frame is bytes, of any length.
//!
//! The host's end never waits: [`FrameSender::send`] queues what the peer does not take yet, and [`FrameReceiver::recv`] says
//! [`Received::Nothing`]. The worker's end waits for both, which is sound because the host always reads.

mod board;
mod socket;

use std::{borrow::Cow, io, os::fd::BorrowedFd};

pub(crate) use board::{Board, Cause};
pub(crate) use socket::SocketTransport;

/// Two directions of frames.
pub(crate) trait Transport: Send {
    /// The two directions, which may live in different threads.
    fn split(self: Box<Self>) -> (Box<dyn FrameSender>, Box<dyn FrameReceiver>);
}

/// The direction away from here.
pub(crate) trait FrameSender: Send {
    /// Sends a frame of these two parts after all that were sent before it; what does not go now is queued.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn send(&mut self, head: &[u8], body: Cow<'_, [u8]>) -> io::Result<()>;

    /// Sends more of what is queued.
    ///
    /// # Errors
    ///
    /// The peer is gone.
    fn flush(&mut self) -> io::Result<()>;

    /// Bytes that are queued: the caller polls for room and calls [`flush`](Self::flush) while there are any.
    fn queued_bytes(&self) -> usize;

    /// Tells the peer that no more frames will come.
    fn close(&mut self);
}

/// The direction towards here.
pub(crate) trait FrameReceiver: Send {
    /// Begins a round of [`recv`](Self::recv): from now on `Nothing` is said of what has arrived since, too. Within a round an end that
    /// never waits may spare itself asking again what it has just seen to be empty.
    fn begin(&mut self);

    /// The next frame.
    ///
    /// # Errors
    ///
    /// The stream is not one of frames, or the connection failed.
    fn recv(&mut self) -> io::Result<Received<'_>>;

    /// What to poll: readable when [`recv`](Self::recv) has something to say.
    fn poll_fd(&self) -> BorrowedFd<'_>;
}

/// What [`FrameReceiver::recv`] found.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// A whole frame; a large one is the caller's to keep.
    Frame(Cow<'a, [u8]>),
    /// No whole frame has come yet. Only on an end that never waits.
    Nothing,
    /// The peer has closed its end, between two frames.
    Closed,
}
