//! Passes descriptors between processes, in messages over sockets.
//!
//! The preamble, the template's requests and its reports use it. Every descriptor that is received is close-on-exec.
#![expect(unsafe_code, reason = "taking ownership of descriptors that arrive as bare numbers")]

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

use super::fd::{failed, uninterrupted};

/// The maximum number of descriptors in one message.
pub(crate) const MOST_AT_ONCE: usize = 253;
/// The room for as many descriptors and for their header.
const CONTROL_WORDS: usize = MOST_AT_ONCE * size_of::<RawFd>() / size_of::<u64>() + 8;

/// Sends a few bytes and these descriptors.
pub(crate) fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control: Vec<_> = (!fds.is_empty()).then_some(ControlMessage::ScmRights(&fds)).into_iter().collect();
    let sent =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(failed("sendmsg"))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Sends as many bytes of these parts as there is room for, and these descriptors with the first of them. Returns how many were sent.
pub(crate) fn send_some_with_fds(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), parts, &control, flags, None).map_err(failed("sendmsg"))
}

/// Receives at most `most` bytes, which are appended to `target`, and the descriptors that came with them. Returns how
/// many bytes there were, which is 0 at the end, the descriptors, and whether some were lost because this process may not have as many. Returns `None` if there is nothing to read yet.
pub(crate) fn read_some_with_fds(
    socket: BorrowedFd<'_>,
    target: &mut Vec<u8>,
    most: usize,
    may_wait: bool,
) -> io::Result<Option<(usize, Vec<OwnedFd>, bool)>> {
    match receive(socket, target, most, if may_wait { 0 } else { libc::MSG_DONTWAIT }) {
        // A filter refuses the call. The bytes say what has happened to the other process, which cannot receive descriptors either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            Ok(super::fd::read_some(socket, target, most)?.map(|n| (n, Vec::new(), false)))
        }
        received => received,
    }
}

/// Like [`read_some_with_fds`], but leaves the packet where it is. The descriptors are duplicates.
pub(crate) fn peek_with_fds(
    socket: BorrowedFd<'_>,
    target: &mut Vec<u8>,
    most: usize,
) -> io::Result<Option<(usize, Vec<OwnedFd>, bool)>> {
    receive(socket, target, most, libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

/// Removes the first packet of a socket, with its descriptors, if there is one.
pub(crate) fn discard(socket: BorrowedFd<'_>) {
    let _ = nix::sys::socket::recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
}

fn receive(
    socket: BorrowedFd<'_>,
    target: &mut Vec<u8>,
    most: usize,
    flags: libc::c_int,
) -> io::Result<Option<(usize, Vec<OwnedFd>, bool)>> {
    target.reserve(most);
    let spare = target.spare_capacity_mut();
    let mut part = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: most.min(spare.len()) };
    // Words, because the headers in it must be aligned.
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: all zero is a valid msghdr, whose fields are set next.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | flags;
    let received = uninterrupted(|| {
        // SAFETY: `message` points to writable memory of the stated lengths, which outlives the call.
        let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        usize::try_from(n).map_err(|_| Errno::last())
    });
    let n = match received {
        Ok(n) => n,
        // The peer ended before it had read everything that was sent to it.
        Err(Errno::ECONNRESET) => 0,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let len = target.len() + n;
    // SAFETY: recvmsg has initialised the `n` bytes after the old length, and they lie within the capacity.
    unsafe { target.set_len(len) };
    let mut fds = Vec::new();
    // SAFETY: recvmsg has filled in the control messages up to the length that it has set.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it is null, or points to a header within the control buffer.
    while let Some(found) = unsafe { header.as_ref() } {
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the header is whole, so its data follow it.
            let mut data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            // SAFETY: CMSG_LEN only computes.
            let empty = unsafe { libc::CMSG_LEN(0) };
            let len_bytes = found.cmsg_len.saturating_sub(empty as _) as usize;
            for _ in 0..len_bytes / size_of::<RawFd>() {
                // SAFETY: the header says that there are this many descriptors, which need not be aligned.
                let fd = unsafe { data.read_unaligned() };
                // SAFETY: the kernel has just made this descriptor for us and nothing else knows its number.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                // SAFETY: it is within the control buffer, or at its end.
                data = unsafe { data.add(1) };
            }
        }
        // SAFETY: `header` lies within the control buffer of `message`.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Some((n, fds, message.msg_flags & libc::MSG_CTRUNC != 0)))
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
