//! Creating, reading, writing, adopting and closing descriptors, and [`Failed`], the error of a named system call.
//!
//! All parts that handle sockets, pipes or memory files use it. Every descriptor that is made here is close-on-exec from its
//! creation. Waiting is in `poll`, and passing descriptors to other processes is in `pass`.
#![expect(unsafe_code, reason = "descriptors that arrive as bare numbers, and calls that nix does not wrap")]

use std::{
    ffi::CStr,
    fs::File,
    io::{self, IoSlice, Read as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::FileExt as _,
    },
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, SigmaskHow, Signal},
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
    },
};

/// The error of a system call. The name of the call is empty where only the error is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    call: &'static str,
    errno: Errno,
}

impl Failed {
    /// Returns the error of a system call that is named, from the number that another process sent.
    pub(crate) fn from_raw(call: &'static str, errno: i32) -> Self {
        Self { call, errno: Errno::from_raw(errno) }
    }

    /// Returns the system call that failed with this error, if it was one.
    pub(crate) fn behind(error: &io::Error) -> Option<Self> {
        let named = || error.get_ref()?.downcast_ref::<Self>().copied();
        error.raw_os_error().map(|errno| Self::from_raw("", errno)).or_else(named)
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        Self::new(Self::from(failed.errno).kind(), failed)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = io::Error::from(self.errno);
        if self.call.is_empty() { error.fmt(f) } else { write!(f, "{}: {error}", self.call) }
    }
}

impl std::error::Error for Failed {}

/// Returns a function that adds the name of the system call to its error.
pub(super) fn failed(call: &'static str) -> impl FnOnce(Errno) -> io::Error {
    move |errno| Failed { call, errno }.into()
}

/// Returns the number of the error that a system call failed with, whether or not the call is named.
pub(crate) fn errno_of(error: &io::Error) -> Option<i32> {
    Failed::behind(error).map(|failed| failed.errno as i32)
}

/// Creates a pair of connected stream sockets.
pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(failed("socketpair"))
}

/// Creates a pair of connected sockets that carry whole messages.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(failed("socketpair"))
}

/// Returns whether a socket takes no more because too much of this user's is on its way.
pub(crate) fn is_full(error: &io::Error) -> bool {
    [libc::EAGAIN, libc::ENOBUFS, libc::ETOOMANYREFS].iter().any(|full| errno_of(error) == Some(*full))
}

/// Creates a pipe. Returns the end to read from and the end to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(failed("pipe2"))
}

/// Returns how many bytes of a pipe can be read without waiting, or the size of a pipe if that cannot be determined.
pub(crate) fn pending_bytes(fd: BorrowedFd<'_>) -> usize {
    const PIPE_BYTES: usize = 64 << 10;
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes a c_int, which `bytes` is, and the descriptor is open.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if done == 0 { usize::try_from(bytes).unwrap_or(0) } else { PIPE_BYTES }
}

/// Makes a system call, and again after each signal.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// Reads once, at most `most` bytes, and appends them. Returns their number, which is 0 at the end, or `None` if there is nothing
/// to read yet.
pub(crate) fn read_some(fd: BorrowedFd<'_>, target: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
    match uninterrupted(|| read_append(fd, target, most)) {
        Ok(n) => Ok(Some(n)),
        // The peer ended before it had read everything that was sent to it.
        Err(Errno::ECONNRESET) => Ok(Some(0)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens `/dev/null`.
pub(crate) fn open_null() -> io::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty()).map_err(failed("/dev/null"))
}

/// Makes descriptor 1 refer to the same file.
pub(crate) fn redirect_stdout(to: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::dup2_stdout(to).map_err(failed("dup2"))
}

/// Makes descriptor 2 refer to the same file.
pub(crate) fn redirect_stderr(to: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::dup2_stderr(to).map_err(failed("dup2"))
}

/// Makes reads and writes of this end return immediately when they would block.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(failed("fcntl"))?;
    let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).map_err(failed("fcntl"))?;
    Ok(())
}

/// Runs code that makes a file larger. Beyond the file size limit (`ulimit -f`) the kernel sends SIGXFSZ, which ends a process.
/// Here it only causes an error.
pub(crate) fn grow_file<R>(grow: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let outcome = grow();
    let outcome = outcome.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            // The signal is pending for this thread.
            let (set, no_time) = (set.as_ref(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
            // SAFETY: the set and the time are whole and outlive the call; without a siginfo the kernel writes nothing.
            unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &raw const no_time) };
            io::Error::new(error.kind(), "the file size limit is too low (ulimit -f)")
        }
        _ => error,
    });
    before.thread_set_mask()?;
    outcome
}

/// Returns a descriptor to pass on, from which these bytes can be read to the end. It is a file without a name. If no such file can
/// be made, it is a socket, which holds less.
pub(crate) fn file_of(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let made = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(failed("memfd_create")).and_then(|file| {
        let file = File::from(file);
        // The readers share the file position, which stays at the start.
        grow_file(|| file.write_all_at(bytes, 0))?;
        Ok(file.into())
    });
    made.or_else(|refused| {
        let (ours, theirs) = stream_pair()?;
        set_nonblocking(ours.as_fd())?;
        match write_whole(ours.as_fd(), bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let words = format!("{refused}, and {} bytes do not fit into a socket", bytes.len());
                Err(io::Error::other(words))
            }
            written => written.map(|()| theirs),
        }
    })
}

/// Reads the whole file.
pub(crate) fn read_file(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(fd).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes all bytes and waits for room.
pub(crate) fn write_whole(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = write_one(fd, bytes)?;
        bytes = &bytes[n..];
    }
    Ok(())
}

fn read_append(fd: BorrowedFd<'_>, target: &mut Vec<u8>, most: usize) -> nix::Result<usize> {
    // Without room, nothing would be read, which looks like the end.
    target.reserve(most);
    let spare = target.spare_capacity_mut();
    // SAFETY: `spare` is writable for its length, and read writes at most `most` bytes, which is no more.
    let n = unsafe { libc::read(fd.as_raw_fd(), spare.as_mut_ptr().cast(), most) };
    let n = usize::try_from(n).map_err(|_| Errno::last())?;
    let len = target.len() + n;
    // SAFETY: read has initialised the `n` bytes after the old length, and they lie within the capacity.
    unsafe { target.set_len(len) };
    Ok(n)
}

/// Writes once, without SIGPIPE.
pub(crate) fn write_one(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    match uninterrupted(|| nix::sys::socket::send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)) {
        // A system call filter refused it. `sendmsg` does the same.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => write_some(fd, &[IoSlice::new(bytes)]),
        sent => Ok(sent?),
    }
}

/// Writes several parts in order, with one call and without SIGPIPE.
pub(crate) fn write_some(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(uninterrupted(|| sendmsg::<()>(fd.as_raw_fd(), parts, &[], MsgFlags::MSG_NOSIGNAL, None))?)
}

/// Tells the peer that no more data will be sent.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

/// Ends a connection in both directions, also for its other descriptors.
pub(crate) fn shutdown_both(fd: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

/// Takes ownership of a descriptor that was inherited under this number, and marks it close-on-exec.
///
/// Returns `None` if there is no such descriptor, or if it is not a socket.
pub(crate) fn adopt_socket(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    // SAFETY: fcntl with F_GETFD reads nothing but the descriptor table, whatever the number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        // It is not open, or this process opened it. A descriptor that was inherited through exec cannot have the flag.
        return None;
    }
    // SAFETY: it is open, it was inherited, and nothing in this process knows of it: no code that could has run.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    match nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType) {
        Ok(SockType::Stream) => Some(out_of_the_way(fd)),
        Ok(_) | Err(Errno::ENOTSOCK) => None,
        // If that cannot be determined, the token shows it.
        Err(_) => Some(out_of_the_way(fd)),
    }
}

/// Moves a descriptor to a high number, to which careless code does not write and which it does not close.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    const NUMBER: RawFd = 200;
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(NUMBER)) {
        // SAFETY: the kernel has just made this descriptor for us, and nothing else knows its number.
        Ok(moved) => unsafe { OwnedFd::from_raw_fd(moved) },
        // The limit is lower, so the descriptor stays at its number.
        Err(_) => fd,
    }
}

/// Returns the numbers of the open descriptors except 0 to 2, as far as they can be listed.
fn open_numbers() -> Vec<RawFd> {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|&number| number > 2).collect()
}

/// Closes every inherited descriptor except 0 to 2. Other code in the parent had left them open for any child.
///
/// Descriptors that this process has opened since its start are close-on-exec in well-written libraries. An inherited descriptor
/// cannot be. Those with the flag stay open.
pub(crate) fn close_inherited() {
    for number in open_numbers() {
        // SAFETY: fcntl with F_GETFD reads nothing but the descriptor table, whatever the number.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: without the flag it was inherited, so no object in this process owns it.
            unsafe { libc::close(number) };
        }
    }
}

/// Closes every descriptor except 0 to 2 and those in `kept`.
///
/// # Safety
///
/// No object that owns one of the other descriptors is used again in this process.
pub(crate) unsafe fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let is_kept = |number| kept.iter().any(|fd| fd.as_raw_fd() == number);
    for number in open_numbers().into_iter().filter(|&number| !is_kept(number)) {
        // SAFETY: what owns the descriptor is not used again (the caller's promise); the folder's own is closed by now.
        unsafe { libc::close(number) };
    }
}

/// Returns the device and inode, which identify a socket until the system is restarted.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    nix::sys::stat::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}
