//! What both ends of a connection to a manager send: the hello of the client, and the segments beside frames.
//!
//! A client makes two pairs of sockets and passes one end of each through the connect socket of the manager. The first is the connection
//! of a transport. The second carries segments, and once the memory of the rings. The head of each frame is the number of descriptors
//! that go beside it.

use std::io;

use serde::{Deserialize, Serialize};

use crate::{
    registry,
    segment::{Attachments, SegmentId, adopt_all},
    sys::{
        identified::Identified,
        pass::{MOST_AT_ONCE, read_some_with_fds, send_with_fds},
        per_process::PerProcess,
    },
};

/// The length of a hello.
pub(super) const HELLO_BYTES: usize = 32;

/// The length of a frame's head.
pub(super) const HEAD_BYTES: usize = 2;

/// What a client sends with the sockets of a connection.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    build: u64,
    process: SegmentId,
}

/// Returns the hello of this process.
pub(super) fn hello() -> [u8; HELLO_BYTES] {
    static PROCESS: PerProcess<SegmentId> = PerProcess::new();
    hello_of(*PROCESS.get_or_init(SegmentId::new))
}

/// Returns the hello of a process.
pub(super) fn hello_of(process: SegmentId) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    postcard::to_slice(&Hello { build: registry::build_id(), process }, &mut bytes)
        .expect("three numbers have room");
    bytes
}

/// Returns the process that has sent a hello, if it is of this build.
pub(super) fn process_of(hello: &[u8; HELLO_BYTES]) -> Option<SegmentId> {
    let (Hello { build, process }, _) = postcard::take_from_bytes(hello).ok()?;
    (build == registry::build_id()).then_some(process)
}

/// Sends the segments that a frame names. Returns the head of the frame.
///
/// # Errors
///
/// There are too many, or the peer has ended.
pub(super) fn send_segments(beside: &Identified, attachments: &Attachments) -> io::Result<[u8; HEAD_BYTES]> {
    let fds: Vec<_> = attachments.iter().flat_map(|segment| segment.files()).collect();
    if fds.len() > MOST_AT_ONCE {
        let words = format!("it names {} descriptors of shared values, more than {MOST_AT_ONCE}", fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    if !fds.is_empty() {
        send_with_fds(beside.check()?, &[0], &fds)?;
    }
    Ok((fds.len() as u16).to_le_bytes())
}

/// Receives the segments that a frame with this head names. They were sent before it.
///
/// # Errors
///
/// Something else was sent, or this process may not open more descriptors.
pub(super) fn receive_segments(beside: &Identified, head: &[u8]) -> io::Result<Attachments> {
    let head = head.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let count = usize::from(u16::from_le_bytes(head));
    if count == 0 {
        return Ok(Attachments::default());
    }
    let mut byte = Vec::with_capacity(1);
    match read_some_with_fds(beside.check()?, &mut byte, 1, false)? {
        Some((1, _, true)) => {
            Err(io::Error::other("shared values did not arrive: the process may not open more descriptors"))
        }
        Some((1, fds, false)) if fds.len() == count => adopt_all(fds),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
