//! Passes descriptors between processes, in messages over sockets.
//!
//! The preamble, the template's requests and its reports use it. Every descriptor that is received is close-on-exec.
#![expect(unsafe_code, reason = "taking ownership of descriptors that arrive as bare numbers")]

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::fd::failed;

/// Sends a few bytes and these descriptors.
pub(crate) fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control: Vec<_> = (!fds.is_empty()).then_some(ControlMessage::ScmRights(&fds)).into_iter().collect();
    let sent =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(failed("sendmsg"))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives exactly `bytes.len()` bytes in one piece, and at most `N` descriptors that came with them.
pub(crate) fn recv_with_fds<const N: usize>(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<Vec<OwnedFd>> {
    let wanted = bytes.len();
    let mut space = nix::cmsg_space!([RawFd; N]);
    let mut parts = [IoSliceMut::new(bytes)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.map_err(failed("recvmsg"))?,
        }
    };
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        // The kernel dropped descriptors and does not say why. Duplicating one fails for the same reason.
        let why = socket.try_clone_to_owned().err();
        return Err(why.unwrap_or_else(|| io::Error::other("more descriptors came than were expected")));
    }
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us and nothing else knows its number.
                received.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    if message.bytes == wanted { Ok(received) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
