//! Descriptors: socket pairs, passing one over a socket, event counters, epoll, closing what leaked in. Everything made here is
//! close-on-exec from its creation.
#![expect(unsafe_code, reason = "taking ownership of descriptors that arrive as bare numbers")]

use std::{
    ffi::CStr,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        memfd::{MFdFlags, memfd_create},
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
            sendmsg, socketpair,
        },
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};

use super::signal::grow_file;

/// A system call has failed, and this one it was.
#[derive(Debug)]
struct Failed {
    call: &'static str,
    errno: Errno,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.call, io::Error::from(self.errno))
    }
}

impl std::error::Error for Failed {}

/// Says which system call failed.
fn failed(call: &'static str) -> impl FnOnce(Errno) -> io::Error {
    move |errno| io::Error::new(io::Error::from(errno).kind(), Failed { call, errno })
}

/// Returns the number of the error that a system call failed with, whether or not the call is named.
pub(crate) fn errno_of(error: &io::Error) -> Option<i32> {
    let failed = || error.get_ref()?.downcast_ref::<Failed>().map(|failed| failed.errno as i32);
    error.raw_os_error().or_else(failed)
}

/// A pair of connected stream sockets.
pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(failed("socketpair"))
}

/// A pipe: the end to read from, and the end to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(failed("pipe2"))
}

/// Returns how many bytes of a pipe can be read at once. Where that cannot be asked, it is as many as a pipe holds.
pub(crate) fn pending_bytes(fd: BorrowedFd<'_>) -> usize {
    const PIPE_BYTES: usize = 64 << 10;
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes a c_int, which `bytes` is, and the descriptor is open.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if done == 0 { usize::try_from(bytes).unwrap_or(0) } else { PIPE_BYTES }
}

/// Reads once, at most `most` bytes, and appends what came: how many, 0 at the end; `None`: nothing yet. The vector must have room for
/// them.
pub(crate) fn read_some(fd: BorrowedFd<'_>, target: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
    let spare = target.spare_capacity_mut();
    let most = most.min(spare.len());
    let n = loop {
        // SAFETY: `spare` is writable for its length, and read writes at most `most` bytes, which is no more.
        let n = unsafe { libc::read(fd.as_raw_fd(), spare.as_mut_ptr().cast(), most) };
        let Ok(n) = usize::try_from(n) else {
            match nix::errno::Errno::last() {
                nix::errno::Errno::EINTR => continue,
                nix::errno::Errno::EAGAIN => return Ok(None),
                error => return Err(error.into()),
            }
        };
        break n;
    };
    let len = target.len() + n;
    // SAFETY: read has initialised the `n` bytes after the old length, and they lie within the capacity.
    unsafe { target.set_len(len) };
    Ok(Some(n))
}

/// Writes all of it to a pipe, waiting for room even where somebody has made the pipe's writers not wait.
pub(crate) fn write_waiting(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => {
                let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
                let _ = nix::poll::poll(&mut fds, PollTimeout::NONE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Where nothing is read from and what is written is gone.
pub(crate) fn open_null() -> io::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty()).map_err(failed("/dev/null"))
}

/// Has descriptor 1 be the same as this one.
pub(crate) fn redirect_stdout(to: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::dup2_stdout(to).map_err(failed("dup2"))
}

/// Has descriptor 2 be the same as this one.
pub(crate) fn redirect_stderr(to: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::dup2_stderr(to).map_err(failed("dup2"))
}

/// Makes reads and writes of this end return at once when they would wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(failed("fcntl"))?;
    let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).map_err(failed("fcntl"))?;
    Ok(())
}

/// Sends a few bytes and, if there is one, a descriptor.
pub(crate) fn send_with_fd(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    match fd {
        Some(fd) => send_with_fds(socket, bytes, [fd]),
        None => send_with_fds(socket, bytes, []),
    }
}

/// Sends a few bytes and so many descriptors.
pub(crate) fn send_with_fds<const N: usize>(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: [BorrowedFd<'_>; N],
) -> io::Result<()> {
    send_with_all(socket, bytes, &fds)
}

/// Sends a few bytes and all of these descriptors.
pub(crate) fn send_with_all(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control: Vec<_> = (!fds.is_empty()).then_some(ControlMessage::ScmRights(&fds)).into_iter().collect();
    let sent =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(failed("sendmsg"))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives exactly `bytes.len()` bytes, in one piece, and the descriptors that came with them: at most `N`.
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

/// Returns a descriptor from which these bytes can be read to the end, to be passed on: a file without a name, or, where there can be none,
/// a socket, which holds less.
pub(crate) fn file_of(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let made = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(failed("memfd_create")).and_then(|file| {
        let file = File::from(file);
        // Whoever reads it shares the place in it, which stays at the start.
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

/// All that a file holds.
pub(crate) fn read_file(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(fd).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes all of it, waiting for room.
pub(crate) fn write_whole(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_one(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads once, at most `most` bytes, and appends what came. The vector must have room for them.
pub(crate) fn read_append(fd: BorrowedFd<'_>, target: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let spare = target.spare_capacity_mut();
    let most = most.min(spare.len());
    // SAFETY: `spare` is writable for its length, and read writes at most `most` bytes, which is no more.
    let n = unsafe { libc::read(fd.as_raw_fd(), spare.as_mut_ptr().cast(), most) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    let len = target.len() + n;
    // SAFETY: read has initialised the `n` bytes after the old length, and they lie within the capacity.
    unsafe { target.set_len(len) };
    Ok(n)
}

/// Writes once, without SIGPIPE.
pub(crate) fn write_one(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    match nix::sys::socket::send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
        // Refused by a filter of system calls: the other one does the same.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => write_some(fd, &[IoSlice::new(bytes)]),
        sent => Ok(sent?),
    }
}

/// Writes parts one after the other, once, without SIGPIPE.
pub(crate) fn write_some(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(sendmsg::<()>(fd.as_raw_fd(), parts, &[], MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Tells the peer that nothing more will come.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

/// Ends a connection in both directions, also for other descriptors of it.
pub(crate) fn shutdown_both(fd: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

/// Waits until the peer of a socket has closed it or will send nothing more. Data that arrives does not end the wait.
pub(crate) fn wait_for_hangup(fd: BorrowedFd<'_>) {
    loop {
        let mut fds = [PollFd::new(fd, PollFlags::from_bits_retain(libc::POLLRDHUP))];
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => return,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Waits until the peer has closed both of its sides.
pub(crate) fn wait_for_end(fd: BorrowedFd<'_>) {
    loop {
        // That it has closed them is told unasked.
        let mut fds = [PollFd::new(fd, PollFlags::empty())];
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Waits until some of these are readable or at their end, and says which.
pub(crate) fn wait_any(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        match nix::poll::poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => return Ok(polled.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until there is something to read, at most so long.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match nix::poll::poll(&mut fds, timeout) {
            Ok(n) => return Ok(n > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes ownership of a descriptor that was inherited under this number, and marks it close-on-exec.
///
/// Returns `None` if there is none, or if it is no socket.
pub(crate) fn adopt_socket(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    // SAFETY: fcntl with F_GETFD reads nothing but the descriptor table, whatever the number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        // Not open, or opened by this process itself: what was inherited through exec cannot have the flag.
        return None;
    }
    // SAFETY: it is open, it was inherited, and nothing in this process knows of it: no code that could has run.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    match nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType) {
        Ok(SockType::Stream) => Some(out_of_the_way(fd)),
        Ok(_) | Err(Errno::ENOTSOCK) => None,
        // Where that cannot be asked, the token tells.
        Err(_) => Some(out_of_the_way(fd)),
    }
}

/// Moves a descriptor to a number that careless code does not write to or close.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    const NUMBER: RawFd = 200;
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(NUMBER)) {
        // SAFETY: the kernel has just made this descriptor for us, and nothing else knows its number.
        Ok(moved) => unsafe { OwnedFd::from_raw_fd(moved) },
        // The limit is lower: it stays where it is.
        Err(_) => fd,
    }
}

/// Closes every inherited descriptor but 0 to 2: what foreign code in the parent had left open for any child.
///
/// Descriptors that this process opened itself since its start are close-on-exec, by the rule of every good library, which an
/// inherited one cannot be; those stay.
pub(crate) fn close_inherited() {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number > 2)
        .collect();
    for number in numbers {
        // SAFETY: fcntl with F_GETFD reads nothing but the descriptor table, whatever the number.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: without the flag it was inherited, so no object in this process owns it.
            unsafe { libc::close(number) };
        }
    }
}

/// Closes every descriptor but 0 to 2 and these.
///
/// # Safety
///
/// No object of this process that is used again owns one of the others.
pub(crate) unsafe fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number > 2 && !kept.iter().any(|fd| fd.as_raw_fd() == number))
        .collect();
    for number in numbers {
        // SAFETY: what owns the descriptor is not used again (the caller's promise); the folder's own is closed by now.
        unsafe { libc::close(number) };
    }
}

/// Becomes readable when a time has passed.
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

impl Timer {
    /// # Errors
    ///
    /// There can be none, or it cannot be set.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(failed("timerfd_create"))?;
        // What works once works again.
        timer.unset().map_err(failed("timerfd_settime"))?;
        Ok(Self(timer))
    }

    /// From now on.
    pub(crate) fn set(&self, time: Duration) {
        // Zero would mean never.
        let time = time.max(Duration::from_nanos(1));
        let _ = self.0.set(Expiration::OneShot(time.into()), TimerSetTimeFlags::empty());
    }

    /// It does not become readable any more.
    pub(crate) fn unset(&self) {
        let _ = self.0.unset();
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A counter that wakes whoever polls it.
#[derive(Debug)]
pub(crate) struct Bell(EventFd);

impl Bell {
    /// # Errors
    ///
    /// There can be none, or it cannot be rung: a thread that waits for it would wait for ever.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags).map_err(failed("eventfd2"))?;
        // What works once works again.
        bell.write(1).map_err(failed("write"))?;
        bell.read().map_err(failed("read"))?;
        Ok(Self(bell))
    }

    /// Rings a bell that is in no poller.
    pub(crate) fn ring(&self) {
        // Full means that it has rung already.
        let _ = self.0.write(1);
    }

    /// Rings, if the poller has it under this key: its number may be another's by now. Returns whether it has.
    pub(crate) fn ring_in(&self, poller: &Poller, key: u64) -> bool {
        let is_there = poller.has(self.as_fd(), key);
        if is_there {
            self.ring();
        }
        is_there
    }

    pub(crate) fn silence(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A set of descriptors to wait for, each under a number of the caller's.
///
/// Other code of the process may close descriptors that are not its own, and their numbers are given to others then. So the set has a
/// *seal*: an unused socket in it. A number that is the seal's, in this set, has not been given away. While that is not
/// so, nothing is done, and every call is an error.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    seal: OwnedFd,
    /// Which file the seal is: no other socket of this system's run has the same.
    identity: (u64, u64),
}

/// The key of the seal, which is never reported.
const SEAL: u64 = u64::MAX - 2;

/// What tells a socket from any other file, for as long as the system runs.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    nix::sys::stat::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// An entry of which nothing is told.
fn disarmed(key: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLONESHOT, key)
}

/// What happened to one descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) key: u64,
}

/// As many events as one wait returns.
const MOST_EVENTS: usize = 64;

impl Poller {
    /// # Errors
    ///
    /// There can be none, or it cannot be waited with.
    pub(crate) fn new() -> io::Result<Self> {
        // It has no end that could be told of.
        let seal = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC);
        let (seal, _) = seal.map_err(failed("socketpair"))?;
        let identity = identity(seal.as_fd()).ok_or_else(io::Error::last_os_error)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        epoll.add(&seal, disarmed(SEAL)).map_err(failed("epoll_ctl"))?;
        let poller = Self { epoll, seal, identity };
        // What works once works again.
        poller.wait(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(poller)
    }

    fn check_seal(&self) -> io::Result<()> {
        if identity(self.seal.as_fd()) == Some(self.identity) { Ok(()) } else { Err(closed()) }
    }

    /// The number of the set, and of what makes it known again, have not been closed by other code.
    pub(crate) fn is_whole(&self) -> bool {
        self.check_seal().is_ok() && self.epoll.modify(&self.seal, &mut disarmed(SEAL)).is_ok()
    }

    /// This descriptor is waited for, for reading and under this key: it has not been closed by other code.
    pub(crate) fn has(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        self.check_seal().is_ok()
            && self.epoll.modify(fd, &mut EpollEvent::new(EpollFlags::EPOLLIN, key)).is_ok()
    }

    /// Waits for reading.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        self.check_seal()?;
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key)).map_err(failed("epoll_ctl"))
    }

    /// Waits for reading and, if asked, for room to write.
    pub(crate) fn set_writable(&self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writable);
        self.check_seal()?;
        self.epoll.modify(fd, &mut EpollEvent::new(flags, key)).map_err(failed("epoll_ctl"))
    }

    /// Adds a descriptor that is not waited for until [`arm`](Self::arm).
    pub(crate) fn add_disarmed(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        self.check_seal()?;
        self.epoll.add(fd, disarmed(key)).map_err(failed("epoll_ctl"))
    }

    /// Waits for reading, once. Where that fails, the next wait tells of it.
    pub(crate) fn arm(&self, fd: BorrowedFd<'_>, key: u64) {
        self.modify(fd, &mut EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, key));
    }

    /// Waits no more, until the next [`arm`](Self::arm).
    pub(crate) fn disarm(&self, fd: BorrowedFd<'_>, key: u64) {
        self.modify(fd, &mut disarmed(key));
    }

    fn modify(&self, fd: BorrowedFd<'_>, event: &mut EpollEvent) {
        if self.check_seal().is_ok() {
            let _ = self.epoll.modify(fd, event);
        }
    }

    /// One that is not there any more is not waited for, either.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        if self.check_seal().is_ok() {
            let _ = self.epoll.delete(fd);
        }
    }

    /// Waits for events, at most so long; `None` is for ever. Rounds up to whole milliseconds.
    ///
    /// # Errors
    ///
    /// Other code of the process has closed the set: it is of no use any more. A wait that has begun before does not end by that.
    pub(crate) fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(d) => EpollTimeout::try_from(d.as_nanos().div_ceil(1_000_000).min(1 << 30) as i32)
                .unwrap_or(EpollTimeout::NONE),
        };
        let mut buffer = [EpollEvent::empty(); MOST_EVENTS];
        events.clear();
        if !self.is_whole() {
            return Err(closed());
        }
        match self.epoll.wait(&mut buffer, timeout) {
            Ok(n) => {
                // What they tell of may have been closed since.
                self.check_seal()?;
                events.extend(buffer[..n].iter().map(|event| Event { key: event.data() }));
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed("epoll_wait")(error)),
        }
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// What becomes of whatever needs descriptors that other code has closed.
pub(crate) const CLOSED: &str = "the descriptors by which its worker is watched were closed by other code in this process \
     (`closefrom`, for example, or a `close` of a number that is not its own); pools and processes that are made afterwards work";

pub(crate) fn closed() -> io::Error {
    io::Error::other(CLOSED)
}

/// Writes to stderr without std's locks, for places where they may be held.
pub(crate) fn say(words: &str) {
    // SAFETY: descriptor 2 is borrowed for one write; if it is closed the write fails and nothing else happens.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = nix::unistd::write(stderr, words.as_bytes());
}
