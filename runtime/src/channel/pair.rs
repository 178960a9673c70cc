//! The way of messages that have no room in a slot, or contain handles: packets through a pair of sockets, with descriptors beside them.
//!
//! A packet stays in the socket until its receiver has decoded it. One participant at a time sends, and one receives, each under a lock that
//! names it.

use std::{
    io::{IoSlice, Write as _},
    os::fd::BorrowedFd,
};

use nix::errno::Errno;

use super::{
    error::Failure,
    held::Side,
    memory::Words,
    slots::{SlotMemory as _, Step},
};
use crate::{
    codec::{self, Encoded},
    error::Error,
    segment::{Attachments, Draft, Kind, SegmentId, adopt_all, digest, with_available},
    sys::{fd, limits::is_shortage, pass},
};

/// The most bytes that are sent within a packet. More are sent as a segment.
const MOST_BYTES: usize = 32 << 10;
/// The number of the packet, and where its message is.
const HEAD_BYTES: usize = 9;
const HERE: u8 = 0;
const APART: u8 = 1;

/// A message that is ready to be sent.
pub(super) struct Packet {
    is_apart: bool,
    body: Vec<u8>,
    attachments: Attachments,
}

impl Packet {
    pub(super) fn new(message: &[u8], mut attachments: Attachments) -> Result<Self, Error> {
        let is_apart = message.len() > MOST_BYTES;
        let body = if is_apart {
            let memory = Draft::new(Kind::Slice, digest::<u8>(), message.len()).and_then(|mut draft| {
                draft.write_all(message)?;
                draft.finish(Attachments::default())
            });
            let memory =
                memory.map_err(|error| Error::system("memory for a message cannot be made", error))?;
            attachments.add(&memory);
            let mut body = Vec::new();
            codec::encode(&memory.id(), &mut body).map_err(Error::config)?;
            body
        } else {
            message.to_vec()
        };
        Ok(Self { is_apart, body, attachments })
    }

    /// Sends the packet if there is room.
    pub(super) fn send(&self, words: Words<'_>, socket: BorrowedFd<'_>) -> Result<(), Failure> {
        let mut lock = words.lock(Side::Sender).ok_or(Failure::NotNow)?;
        words.step(Step::Claimed);
        let (sent, received) = words.packets();
        // What is left in the slots takes room, too.
        if words.slots().len() + sent.wrapping_sub(received) >= words.capacity() {
            return Err(Failure::NotNow);
        }
        let number = sent.wrapping_add(1);
        let parts = [&number.to_le_bytes()[..], &[if self.is_apart { APART } else { HERE }], &self.body];
        let fds: Vec<_> = self.attachments.iter().flat_map(|segment| segment.files()).collect();
        if fds.len() > pass::MOST_AT_ONCE {
            return Err(Failure::Failed(Error::config(format!(
                "a message with {} descriptors: it can have up to {}",
                fds.len(),
                pass::MOST_AT_ONCE
            ))));
        }
        match pass::send_some_with_fds(socket, &parts.map(IoSlice::new), &fds) {
            Ok(_) => {}
            // As many bytes or descriptors as the system allows are on their way.
            Err(error) if fd::is_full(&error) && sent != received => return Err(Failure::NotNow),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Err(Failure::Disconnected);
            }
            Err(error) => return Err(Failure::Failed(Error::system("a message cannot be sent", error))),
        }
        words.step(Step::Published);
        words.set_sent(number);
        lock.rings = true;
        Ok(())
    }
}

/// The oldest packet, which stays where it is until this is dropped.
pub(super) struct Peeked<'a> {
    words: Words<'a>,
    socket: BorrowedFd<'a>,
    bytes: Vec<u8>,
    /// Or why they are not what this library has sent.
    attachments: Result<Attachments, String>,
    _lock: super::memory::Lock<'a>,
}

/// Returns the oldest packet.
pub(super) fn peek<'a>(words: Words<'a>, socket: BorrowedFd<'a>) -> Result<Peeked<'a>, Failure> {
    let mut lock = words.lock(Side::Receiver).ok_or(Failure::Busy)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + MOST_BYTES);
    let most = bytes.capacity();
    match pass::peek_with_fds(socket, &mut bytes, most) {
        Ok(Some((length, fds, are_lost))) if length >= HEAD_BYTES => {
            words.step(Step::Taken);
            // The message stays where it is if this process has no room for it now.
            let short =
                |error| Err(Failure::Failed(Error::system("a message cannot be received now", error)));
            let attachments = match adopt_all(fds) {
                _ if are_lost => return short(Errno::EMFILE.into()),
                Err(error) if is_shortage(&error) => return short(error),
                adopted => adopted.map_err(|error| format!("its memory cannot be mapped: {error}")),
            };
            lock.rings = true;
            Ok(Peeked { words, socket, bytes, attachments, _lock: lock })
        }
        // There is none, and no sender has the other end.
        Ok(_) => Err(Failure::NotNow),
        Err(error) => Err(Failure::Failed(Error::system("a message cannot be received", error))),
    }
}

impl Peeked<'_> {
    /// Decodes the message.
    pub(super) fn decode<T: serde::de::DeserializeOwned + 'static>(&self) -> Result<T, String> {
        let (head, body) = self.bytes.split_at(HEAD_BYTES);
        self.words.step(Step::Copied);
        let attachments = self.attachments.as_ref().map_err(Clone::clone)?;
        with_available(attachments, || {
            if head[HEAD_BYTES - 1] != APART {
                return codec::decode_result(Encoded::Short(body));
            }
            let id: SegmentId = codec::decode(body)?;
            let memory = attachments.get(id).ok_or("its memory did not arrive")?;
            codec::decode_result(Encoded::Short(memory.data()))
        })
    }
}

impl Drop for Peeked<'_> {
    fn drop(&mut self) {
        pass::discard(self.socket);
        self.words.step(Step::Finished);
        let number = self.bytes.first_chunk().map(|number| u64::from_le_bytes(*number));
        self.words.set_received(number.unwrap_or_default());
    }
}
