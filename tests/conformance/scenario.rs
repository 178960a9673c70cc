//! Plays what a hostile peer can send: any bytes, in any pieces, through the ring, the socket or the shared memory. Used by the
//! fuzz target `hostile_frames` and by property tests.
//!
//! This is the module `transport::scenario` of the runtime, which has a link to this file.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{
    FrameReceiver, HostEnd, Incoming, Segment,
    shm::offer_rings,
    stream::{FramedReceiver, Read, Source},
};
use crate::{
    frame::Prefix,
    ring::Producer,
    sys::{
        fd::{set_nonblocking, stream_pair, write_one},
        identified::Identified,
    },
};

/// Plays a script. The first byte selects the channel. Each piece is a byte for the action, one for the length, and its bytes.
/// Everything that is received goes to `on`, which returns how much of it was consumed.
pub(crate) fn play_frames(script: &[u8], on: impl FnMut(Incoming<'_>) -> usize) {
    match script.split_first() {
        Some((first, script)) if first & 1 == 0 => over_bytes(script, on),
        Some((_, script)) => over_memory(script, on).expect("a socket and a page are to be had"),
        None => {}
    }
}

fn split(script: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&[what, len], rest) = script.split_first_chunk()?;
    let (piece, rest) = rest.split_at(rest.len().min(usize::from(len)));
    Some((what, dress(what, piece), rest))
}

/// Returns the bytes of a piece unchanged, as a whole frame, or as the beginning of a frame with a false length.
fn dress(what: u8, piece: &[u8]) -> Vec<u8> {
    let prefix = match (what >> 4, piece.first_chunk::<6>()) {
        (1 | 2, _) => Prefix::Frame { head_len: 0, len: piece.len() },
        (3, Some(lie)) => {
            let lie = lie.iter().fold(0, |lie: usize, byte| lie << 8 | usize::from(*byte));
            Prefix::Frame { head_len: lie.min(13), len: lie }
        }
        _ => return piece.to_vec(),
    };
    [&prefix.to_bytes(), piece].concat()
}

/// Receives until nothing is left. Returns `false` if the stream is broken or has ended.
fn receive(receiver: &mut dyn FrameReceiver, on: &mut impl FnMut(Incoming<'_>) -> usize) -> bool {
    receiver.begin(true);
    loop {
        let (seen, is_whole) = match receiver.recv() {
            Ok(Incoming::Nothing) => return true,
            Ok(Incoming::Paused) => {
                receiver.begin(true);
                continue;
            }
            Ok(Incoming::Closed) | Err(_) => return false,
            Ok(Incoming::Frames(frames)) => {
                let all = frames.as_bytes().len();
                assert!(
                    frames.split_first().is_some() || frames.split_brief().is_some(),
                    "one whole frame at least"
                );
                let seen = on(Incoming::Frames(frames));
                assert!(seen <= all);
                (seen, false)
            }
            Ok(large) => (on(large), true),
        };
        if seen == 0 && !is_whole {
            return false;
        }
        if !is_whole {
            receiver.consume(seen);
        }
    }
}

/// Returns bytes that are ready.
struct ReadyBytes {
    bytes: Vec<u8>,
    socket: OwnedFd,
}

impl Source for ReadyBytes {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        let n = self.bytes.len().min(most);
        target.extend(self.bytes.drain(..n));
        Ok(if n == 0 { Read::Nothing } else { Read::Bytes(n) })
    }

    fn wait(&mut self, _near: bool) -> io::Result<()> {
        unreachable!("this end never waits")
    }

    fn has_arrivals(&self) -> bool {
        !self.bytes.is_empty()
    }

    fn park(&mut self) -> bool {
        self.bytes.is_empty()
    }

    fn unpark(&mut self) {}

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn over_bytes(mut script: &[u8], mut on: impl FnMut(Incoming<'_>) -> usize) {
    let (socket, _) = stream_pair().expect("a socket is to be had");
    let mut pieces = Vec::new();
    while let Some((_, piece, rest)) = split(script) {
        pieces.push(piece);
        script = rest;
    }
    let source = ReadyBytes { bytes: Vec::new(), socket };
    let mut receiver = FramedReceiver::new(source, false);
    let mut sent = 0;
    for piece in pieces {
        sent += piece.len();
        receiver.source_mut().bytes.extend_from_slice(&piece);
        let goes_on = receive(&mut receiver, &mut on);
        let (reserved, on_trust) = receiver.reserved_bytes();
        assert!(reserved <= 2 * sent + on_trust, "{reserved} bytes for {sent} that were sent");
        if !goes_on {
            return;
        }
    }
}

fn over_memory(mut script: &[u8], mut on: impl FnMut(Incoming<'_>) -> usize) -> io::Result<()> {
    let (host, peer) = stream_pair()?;
    set_nonblocking(host.as_fd())?;
    set_nonblocking(peer.as_fd())?;
    let HostEnd { mut receiver, segment, .. } = offer_rings(Arc::new(Identified::new(host)))?;
    let segment = segment.expect("there are rings");
    let memory = Segment::attach(segment.as_fd(), true)?;
    let mut producer = Producer::attach(memory.to_host()).map_err(io::Error::other)?;
    while let Some((what, piece, rest)) = split(script) {
        script = rest;
        match what % 4 {
            0 | 1 => {
                let _ = producer.write(&[&piece]);
            }
            2 => {
                let _ = write_one(peer.as_fd(), &piece);
            }
            _ => drop(receiver.park()),
        }
        if !receive(&mut *receiver, &mut on) {
            break;
        }
    }
    Ok(())
}
