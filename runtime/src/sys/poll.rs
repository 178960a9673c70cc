//! Waits for descriptors: epoll, timers, event counters, and waits for single descriptors.
//!
//! The driver, the launchers and the worker's watching thread use it. Other code of the process may close
//! descriptors, so [`Poller`] checks its seal before it uses a number.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
        eventfd::{EfdFlags, EventFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};

use super::{
    fd::{failed, identity, uninterrupted},
    identified::{Identified, closed},
};

/// The reason why a wait for the end of a peer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndOf {
    /// The peer has closed its end of the connection.
    Connection,
    /// The process has ended.
    Process,
    /// Other code of this process has closed a descriptor. Nothing is known of the peer.
    Descriptors,
}

pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable(fd, Duration::ZERO).unwrap_or(true)
}

/// Waits until the peer of a socket has closed it or will send nothing more, or until a process has ended. Data that arrives does
/// not end the wait. If it is to be received, `on_input` is called for it, and returns `false` if there is none.
pub(crate) fn wait_for_hangup(
    socket: &Identified,
    process: Option<&Identified>,
    on_input: Option<fn(&Identified) -> bool>,
) -> EndOf {
    let hangup = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let Some(on_input) = on_input else { return wait_for(socket, hangup, process) };
    loop {
        let end = wait_for(socket, hangup | PollFlags::POLLIN, process);
        if end != EndOf::Connection || !is_readable(socket.as_fd()) || !on_input(socket) {
            return end;
        }
    }
}

/// Waits until the peer has closed both directions or a process has ended.
pub(crate) fn wait_for_end(socket: &Identified, process: Option<&Identified>) -> EndOf {
    // The end of both directions is always reported.
    wait_for(socket, PollFlags::empty(), process)
}

fn wait_for(socket: &Identified, events: PollFlags, process: Option<&Identified>) -> EndOf {
    let is_whole = || socket.is_whole() && process.is_none_or(Identified::is_whole);
    let mut fds = vec![PollFd::new(socket.as_fd(), events)];
    fds.extend(process.map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)));
    // A wait goes on with the files that it began with. One that was interrupted begins anew with what has the numbers by then.
    while is_whole() {
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) if !is_whole() => break,
            Ok(_) | Err(_) if fds.get(1).and_then(PollFd::any).unwrap_or(false) => return EndOf::Process,
            Ok(_) | Err(_) => return EndOf::Connection,
        }
    }
    EndOf::Descriptors
}

/// Returns whether the peer has closed both directions.
pub(crate) fn is_ended(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Waits until some of these are readable or at their end. Returns which.
pub(crate) fn wait_any(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    uninterrupted(|| nix::poll::poll(&mut polled, PollTimeout::NONE))?;
    Ok(polled.iter().map(|fd| fd.any().unwrap_or(true)).collect())
}

/// Waits until there is something to read, for at most `timeout`.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    Ok(uninterrupted(|| nix::poll::poll(&mut fds, timeout))? > 0)
}

/// Waits until there is room to write, for at most `timeout`.
pub(crate) fn wait_writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    Ok(uninterrupted(|| nix::poll::poll(&mut fds, timeout))? > 0)
}

/// Writes all bytes to a pipe. Waits for room even if other code has made the pipe non-blocking.
pub(crate) fn write_waiting(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match uninterrupted(|| nix::unistd::write(fd, bytes)) {
            Ok(n) => bytes = &bytes[n..],
            Err(nix::errno::Errno::EAGAIN) => {
                let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
                uninterrupted(|| nix::poll::poll(&mut fds, PollTimeout::NONE))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A timer that becomes readable when its time has passed.
#[derive(Debug)]
pub(crate) struct Timer(Identified<TimerFd>);

impl Timer {
    /// Creates a timer.
    ///
    /// # Errors
    ///
    /// It cannot be created or set.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(failed("timerfd_create"))?;
        // If it works once, it works again.
        timer.unset().map_err(failed("timerfd_settime"))?;
        Ok(Self(Identified::new(timer)))
    }

    /// Starts the timer.
    pub(crate) fn set(&self, time: Duration) {
        // Zero would turn the timer off.
        let time = time.max(Duration::from_nanos(1));
        let _ = self.0.set(Expiration::OneShot(time.into()), TimerSetTimeFlags::empty());
    }

    /// Stops the timer, so that it does not become readable.
    pub(crate) fn unset(&self) {
        let _ = self.0.unset();
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An event counter that wakes the thread that polls it.
#[derive(Debug)]
pub(crate) struct Bell(Identified<EventFd>);

impl Bell {
    /// Creates a bell.
    ///
    /// # Errors
    ///
    /// It cannot be created, or it cannot be rung. A thread that waits for it would wait forever.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags).map_err(failed("eventfd2"))?;
        // If it works once, it works again.
        bell.write(1).map_err(failed("write"))?;
        bell.read().map_err(failed("read"))?;
        Ok(Self(Identified::new(bell)))
    }

    /// Rings a bell that is not in a poller.
    pub(crate) fn ring(&self) {
        if self.0.is_whole() {
            // A full counter means that it has already been rung.
            let _ = self.0.write(1);
        }
    }

    /// Adds the bell to a poller. From then on it is rung only by [`ring_in`](Self::ring_in).
    pub(crate) fn add_to(&self, poller: &Poller, key: u64) -> io::Result<()> {
        poller.add_disarmed(self.as_fd(), key)?;
        // It is now ready whenever it is armed.
        self.0.write(1).map_err(failed("write"))?;
        Ok(())
    }

    /// Rings the bell once in a poller to which it was [added](Self::add_to). Returns whether the poller still has it.
    ///
    /// Nothing is written, and nothing needs to be read. The kernel arms the bell only if the number still means the same file. A
    /// check before a write or a read could not guarantee that.
    pub(crate) fn ring_in(&self, poller: &Poller, key: u64) -> bool {
        poller.arm(self.as_fd(), key)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A set of descriptors to wait for, each with a key chosen by the caller.
///
/// Other code of the process may close these descriptors, and their numbers are then given to other files. The set therefore
/// contains a *seal*, an unused socket. If the seal's number still refers to the seal in this set, the numbers have not been
/// reused. If it does not, nothing is done and every call returns an error.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Identified<Set>,
    /// No other socket has the same identity until the system is restarted.
    seal: Identified,
}

#[derive(Debug)]
struct Set(Epoll);

impl AsFd for Set {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// The key of the seal, which is never reported.
const SEAL: u64 = u64::MAX - 2;

/// An entry that reports nothing.
fn disarmed(key: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLONESHOT, key)
}

/// An event of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) key: u64,
}

/// Rounds a timeout up to whole milliseconds. `None` has no limit.
fn in_millis(timeout: Option<Duration>) -> PollTimeout {
    timeout.map_or(PollTimeout::NONE, |timeout| {
        let millis = timeout.as_nanos().div_ceil(1_000_000).min(1 << 30);
        PollTimeout::try_from(millis as i32).unwrap_or(PollTimeout::NONE)
    })
}

/// The maximum number of events that one wait returns.
const MOST_EVENTS: usize = 64;

impl Poller {
    /// Creates a poller.
    ///
    /// # Errors
    ///
    /// It cannot be created, or it cannot be used for waiting.
    pub(crate) fn new() -> io::Result<Self> {
        // Only this end is kept. A datagram socket does not report the end of its peer.
        let seal = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC);
        let (seal, _) = seal.map_err(failed("socketpair"))?;
        // Without an identity it would be trusted.
        identity(seal.as_fd()).ok_or_else(io::Error::last_os_error)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        epoll.add(&seal, disarmed(SEAL)).map_err(failed("epoll_ctl"))?;
        let poller = Self { epoll: Identified::new(Set(epoll)), seal: Identified::new(seal) };
        // If it works once, it works again.
        poller.wait(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(poller)
    }

    fn check_seal(&self) -> io::Result<()> {
        self.seal.check().map(drop)
    }

    /// Returns whether other code has closed neither the set nor its seal.
    pub(crate) fn is_whole(&self) -> bool {
        self.modify(self.seal.as_fd(), &mut disarmed(SEAL))
    }

    /// Adds a descriptor and waits for reading.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        self.check_seal()?;
        self.epoll.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key)).map_err(failed("epoll_ctl"))
    }

    /// Sets whether to wait for room to write, in addition to reading.
    pub(crate) fn set_writable(&self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writable);
        self.check_seal()?;
        self.epoll.0.modify(fd, &mut EpollEvent::new(flags, key)).map_err(failed("epoll_ctl"))
    }

    /// Adds a descriptor that is not waited for until [`arm`](Self::arm).
    pub(crate) fn add_disarmed(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        self.check_seal()?;
        self.epoll.0.add(fd, disarmed(key)).map_err(failed("epoll_ctl"))
    }

    /// Waits for reading, once. Returns whether the set still has this descriptor, so that it has not been closed by other code. If
    /// not, the next wait returns the error.
    pub(crate) fn arm(&self, fd: BorrowedFd<'_>, key: u64) -> bool {
        self.modify(fd, &mut EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, key))
    }

    /// Stops waiting until the next [`arm`](Self::arm).
    pub(crate) fn disarm(&self, fd: BorrowedFd<'_>, key: u64) {
        self.modify(fd, &mut disarmed(key));
    }

    fn modify(&self, fd: BorrowedFd<'_>, event: &mut EpollEvent) -> bool {
        self.check_seal().is_ok() && self.epoll.0.modify(fd, event).is_ok()
    }

    /// Removes a descriptor. Does nothing if it is not in the set.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        if self.check_seal().is_ok() {
            let _ = self.epoll.0.delete(fd);
        }
    }

    /// Waits like [`wait`](Self::wait), and keeps the file of this bell open meanwhile.
    ///
    /// A ring is lost with its file. If other code closes the bell after it was rung and before this thread runs, a plain wait goes on
    /// without it. The kernel keeps the files that a `poll` waits for, but not those of a set.
    ///
    /// # Errors
    ///
    /// Other code of the process has closed the set or the bell.
    pub(crate) fn wait_for_bell(
        &self,
        bell: &Bell,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if self.is_whole() {
            let timeout = in_millis(timeout);
            let mut fds = [
                PollFd::new(self.epoll.as_fd(), PollFlags::POLLIN),
                // It is always ready, and reports nothing that it is not asked for.
                PollFd::new(bell.as_fd(), PollFlags::empty()),
            ];
            // After a signal the numbers may mean other files.
            let polled = nix::poll::poll(&mut fds, timeout);
            if polled.is_ok() && fds[1].any().unwrap_or(true) {
                return Err(closed());
            }
        }
        self.wait(events, Some(Duration::ZERO))
    }

    /// Waits for events, for at most `timeout`, or without a limit if it is `None`. The timeout is rounded up to whole
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// Other code of the process has closed the set, which cannot be used any more. A wait that has already begun does not end
    /// because of that.
    pub(crate) fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = in_millis(timeout);
        let mut buffer = [EpollEvent::empty(); MOST_EVENTS];
        events.clear();
        if !self.is_whole() {
            return Err(closed());
        }
        match self.epoll.0.wait(&mut buffer, timeout) {
            Ok(n) => {
                // The descriptors of these events may have been closed since.
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
        self.epoll.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{os::fd::AsRawFd as _, process::Command, sync::mpsc, thread, time::Instant};

    use super::*;

    /// In a process that runs one test.
    const ALONE: &str = "PROCESSION_TESTS_ALONE";

    #[test]
    fn a_ring_is_not_lost_if_other_code_closes_the_bell_right_after_it() {
        if std::env::var_os(ALONE).is_none() {
            // The number of the bell must not be given to a file of another test before the wait begins.
            let name = "sys::poll::tests::a_ring_is_not_lost_if_other_code_closes_the_bell_right_after_it";
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
            let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            return assert!(output.status.success() && words.contains("1 passed"), "{words}");
        }
        for _ in 0..300 {
            let (poller, bell) = (Poller::new().unwrap(), Bell::new().unwrap());
            bell.add_to(&poller, 1).unwrap();
            let (sender, receiver) = mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(|| {
                    sender.send(()).unwrap();
                    let begun = Instant::now();
                    // If the bell was closed before the wait began, that is an error.
                    let _ = poller.wait_for_bell(&bell, &mut Vec::new(), Some(Duration::from_secs(60)));
                    assert!(begun.elapsed() < Duration::from_secs(30));
                });
                receiver.recv().unwrap();
                assert!(bell.ring_in(&poller, 1));
                nix::unistd::close(bell.as_fd().as_raw_fd()).unwrap();
            });
            // The number may be that of another eventfd by now, which has the same identity.
            std::mem::forget(bell);
        }
    }
}
