//! Writes any bytes to a worker's connection.

use std::{
    fs::File,
    io::IoSlice,
    os::{fd::RawFd, unix::fs::FileExt},
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};

use crate::event::take_time;

const PAGE_BYTES: u64 = 4 << 10;

const HEADER_BYTES: u64 = 384;

const RING_BYTES: u64 = 256 << 10;

const RING_STRIDE: u64 = (HEADER_BYTES + RING_BYTES).next_multiple_of(PAGE_BYTES);

/// In a ring's header.
const CONSUMER_PARKED: u64 = 12;

const TAIL: u64 = 128;

const HEAD: u64 = 256;

/// This worker's own way to the host, past its sender: the ring, or the socket where there is none. The layout is that of
/// `docs/protocol.md`. Once it is used, what the sender sends is nonsense.
pub(super) struct Wire {
    pub(super) memory: File,
    /// The address of the shared memory, and the ring to the host, if there is one.
    pub(super) board: Option<u64>,
    pub(super) ring: Option<u64>,
    pub(super) socket: RawFd,
}

impl Wire {
    pub(super) fn open() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
        let memory = File::options().read(true).write(true).open("/proc/self/mem").expect("our own memory");
        let range = maps.lines().find(|line| line.contains("/memfd:procession ")).map(|line| {
            let (start, rest) = line.split_once('-').expect("a range");
            let end = rest.split(' ').next().expect("its end");
            [start, end].map(|n| u64::from_str_radix(n, 16).expect("an address"))
        });
        let board = range.map(|[start, _]| start);
        let ring = range
            .filter(|[start, end]| end - start > PAGE_BYTES)
            .map(|[start, _]| start + PAGE_BYTES + RING_STRIDE);
        let fds = std::fs::read_dir("/proc/self/fd").expect("/proc is there").filter_map(Result::ok);
        let socket = fds
            .filter(|fd| {
                std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            })
            .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
            .find(|fd: &RawFd| *fd > 2);
        Self { memory, board, ring, socket: socket.expect("the connection") }
    }

    pub(super) fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, at).expect("it is mapped");
        bytes
    }

    /// The number of the task that runs: the one begun last.
    pub(super) fn seq(&self) -> u32 {
        self.board.map_or(1, |board| u32::from_le_bytes(self.read(board)))
    }

    /// Sends bytes as they are, and waits for room as long as it takes.
    pub(super) fn send(&self, mut bytes: &[u8]) {
        let Some(ring) = self.ring else { return self.send_aside(bytes) };
        while !bytes.is_empty() {
            let [tail, head] = [TAIL, HEAD].map(|word| u64::from_le_bytes(self.read(ring + word)));
            let at = tail % RING_BYTES;
            let room = (RING_BYTES - (tail - head)).min(RING_BYTES - at);
            let (piece, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.memory.write_all_at(piece, ring + HEADER_BYTES + at).expect("it is mapped");
            self.memory
                .write_all_at(&(tail + piece.len() as u64).to_le_bytes(), ring + TAIL)
                .expect("it is mapped");
            if self.read(ring + CONSUMER_PARKED) != [0; 4] {
                self.memory.write_all_at(&[0; 4], ring + CONSUMER_PARKED).expect("it is mapped");
                // An empty frame wakes the host.
                self.send_aside(&[0; 8]);
            }
            bytes = rest;
        }
    }

    /// Sends bytes by the socket, and these descriptors with them.
    pub(super) fn send_with(&self, bytes: &[u8], fds: &[RawFd]) {
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &control };
        // If it fails, the host has ended this worker, or is about to.
        let _ = sendmsg::<()>(self.socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
    }

    /// Sends bytes by the socket.
    pub(super) fn send_aside(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match send(self.socket, bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => bytes = &bytes[n..],
                Err(nix::errno::Errno::EINTR) => {}
                // The host has ended this worker, or is about to.
                Err(_) => take_time(Duration::from_secs(60)),
            }
        }
    }
}

/// Returns the prefix of a frame.
pub(super) fn prefix(head_len: u64, len: u64) -> [u8; 8] {
    (head_len << 48 | len).to_le_bytes()
}

/// One whole frame, of one piece.
pub(super) fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&prefix(0, body.len() as u64)[..], &body].concat()
}

pub(super) fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

pub(super) fn words(words: &str) -> Vec<u8> {
    [&varint(words.len() as u64)[..], words.as_bytes()].concat()
}
