//! The transport over two rings in shared memory. The socket between the processes is kept. It reports the peer's end, wakes the
//! host, and carries frames of the worker's other threads.
//!
//! A worker's ring has one producer, the serving thread. Frames of other threads go *aside*, over the socket. A mark in the ring
//! before the next frame contains the number of frames that went aside, so that the host handles them first.
//!
//! The worker sleeps on a futex. The host waits for many workers at once and sleeps in a poller. A worker wakes it by an empty
//! frame on the socket.
//!
//! If memory or futexes are not available, [`offer`] returns an end over the socket alone.

pub(crate) mod claim;
mod host;
pub(crate) mod segment;
pub(crate) mod worker;

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use host::{HostReceiver, HostSink, HostSource};

use crate::{
    error::Result,
    ring::{Consumer, Producer},
    setting::variable,
    sys::{
        fd,
        futex::{self, is_available},
        identified::Identified,
    },
    transport::{
        Board, FrameReceiver, QueueingSender, Segment,
        socket::{SocketSink, SocketSource},
        stream::{FramedReceiver, FramedSender, broken},
    },
};

/// The time for which a worker that may spin does so before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How often a thread that waits looks whether its peer has ended, if no other thread does.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// With less room than this, no piece of a large frame is sent.
const ROOM_BYTES: usize = 64 << 10;
/// The number of times that the ring is checked between two readings of the clock.
const SPINS_A_LOOK: u32 = 64;

/// The host's end of a connection, and the descriptor to pass to the worker.
pub(crate) struct HostEnd {
    pub(crate) sender: Box<dyn QueueingSender>,
    pub(crate) receiver: Box<dyn FrameReceiver>,
    pub(crate) board: Option<Board>,
    /// The shared memory, if there is any.
    pub(crate) segment: Option<Identified>,
    /// The shared memory contains rings.
    pub(crate) rings: bool,
    /// The reason why there are no rings, unless that was requested.
    pub(crate) why_not: Option<String>,
}

/// Reads `PROCESSION_TRANSPORT`. Returns whether nothing is to go through shared memory.
///
/// # Errors
///
/// It is not the name of a transport.
pub(crate) fn wants_socket() -> Result<bool> {
    let parse = |name: &str| match name {
        "memory" => Some(false),
        "socket" => Some(true),
        _ => None,
    };
    Ok(variable("PROCESSION_TRANSPORT", "`memory` or `socket`", parse)?.unwrap_or(false))
}

/// Makes the host's end of a connection over this socket: with rings if memfds and futexes are available, and otherwise over the
/// socket itself.
pub(crate) fn offer(socket: Arc<Identified>) -> io::Result<HostEnd> {
    fd::set_nonblocking(socket.as_fd())?;
    let why_not = if wants_socket().unwrap_or(false) {
        None
    } else if !is_available() {
        Some("futexes may not be used here".to_owned())
    } else {
        match offer_rings(socket.clone()) {
            Ok(end) => return Ok(end),
            Err(error) => Some(format!("memory cannot be shared: {error}")),
        }
    };
    // The board may be available where futexes are not.
    let (board, segment) = match Segment::create(false) {
        Ok((memory, segment)) => (Some(memory.board()), Some(Identified::new(segment))),
        Err(_) => (None, None),
    };
    Ok(HostEnd { board, segment, why_not, ..over_socket(socket) })
}

/// Makes the host's end over a socket, which does not block.
pub(super) fn over_socket(socket: Arc<Identified>) -> HostEnd {
    HostEnd {
        sender: Box::new(FramedSender::new(SocketSink::new(socket.clone()), false)),
        receiver: Box::new(FramedReceiver::new(SocketSource::new(socket), false)),
        board: None,
        segment: None,
        rings: false,
        why_not: None,
    }
}

/// Makes the host's end over rings and this socket, which does not block.
pub(super) fn offer_rings(socket: Arc<Identified>) -> io::Result<HostEnd> {
    let (memory, segment) = Segment::create(true)?;
    let producer = Producer::attach(memory.to_worker()).map_err(broken)?;
    let consumer = Consumer::attach(memory.to_host()).map_err(broken)?;
    Ok(HostEnd {
        sender: Box::new(FramedSender::new(
            HostSink { producer, socket: SocketSink::new(socket.clone()) },
            false,
        )),
        receiver: Box::new(HostReceiver {
            ring: FramedReceiver::new(HostSource { consumer, socket: socket.clone() }, false),
            aside: FramedReceiver::new(SocketSource::new(socket), false),
            readable: false,
            aside_seen: 0,
            aside_due: 0,
            skipped: 0,
            from_aside: false,
            closed: false,
        }),
        board: Some(memory.board()),
        segment: Some(Identified::new(segment)),
        rings: true,
        why_not: None,
    })
}

/// Wakes a thread that sleeps on the word. It fails only where futexes are refused, and then there are no rings.
fn wake(word: &crate::sync::AtomicU32) {
    let _ = futex::wake(word);
}
