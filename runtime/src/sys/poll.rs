//! Waiting for descriptors: epoll, timers, event counters, and waits for a single descriptor.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};

use super::fd::{failed, identity};

pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable(fd, Duration::ZERO).unwrap_or(true)
}

/// Waits until the peer of a socket has closed it or will send nothing more, or until a process has ended. Data that arrives does not end
/// the wait. Returns whether the process has ended.
pub(crate) fn wait_for_hangup(socket: BorrowedFd<'_>, process: Option<BorrowedFd<'_>>) -> bool {
    wait_for(PollFd::new(socket, PollFlags::from_bits_retain(libc::POLLRDHUP)), process)
}

/// Waits until the peer has closed both of its sides, or until a process has ended. Returns whether it has.
pub(crate) fn wait_for_end(socket: BorrowedFd<'_>, process: Option<BorrowedFd<'_>>) -> bool {
    // That it has closed them is told unasked.
    wait_for(PollFd::new(socket, PollFlags::empty()), process)
}

fn wait_for(socket: PollFd<'_>, process: Option<BorrowedFd<'_>>) -> bool {
    let mut fds = vec![socket];
    fds.extend(process.map(|process| PollFd::new(process, PollFlags::POLLIN)));
    loop {
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => return fds.get(1).and_then(PollFd::any).unwrap_or(false),
        }
    }
}

/// Returns whether the peer has closed both of its sides.
pub(crate) fn is_ended(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
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

    /// Adds it to a poller in which it is rung by [`ring_in`](Self::ring_in) only.
    pub(crate) fn add_to(&self, poller: &Poller, key: u64) -> io::Result<()> {
        poller.add_disarmed(self.as_fd(), key)?;
        // From now on it is ready whenever it is armed.
        self.0.write(1).map_err(failed("write"))?;
        Ok(())
    }

    /// Rings once in a poller that it was [added to](Self::add_to). Returns whether the poller has it.
    ///
    /// Nothing is written, and nothing need be read: the kernel arms it only if the number still means the same file, which no check
    /// before a write or a read can promise.
    pub(crate) fn ring_in(&self, poller: &Poller, key: u64) -> bool {
        poller.rearm(self.as_fd(), key)
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

    /// Waits for reading, once. Returns whether the set has this descriptor: it has not been closed by other code.
    fn rearm(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        self.check_seal().is_ok() && self.epoll.modify(fd, &mut EpollEvent::new(flags, key)).is_ok()
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
