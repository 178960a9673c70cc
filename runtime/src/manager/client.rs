//! The connections of a process to a manager in another process.
//!
//! A request takes a connection that is idle, or makes one, so threads do not wait for each other. A copy of the process makes its own.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use super::{
    owner::Owner,
    request::{Reply, Request},
    wire::{HEAD_BYTES, HELLO_BYTES, hello, receive_segments, send_segments},
};
use crate::{
    codec,
    error::{Error, Result},
    frame::PREFIX_BYTES,
    segment::{Attachments, Segment, User},
    sync::ignore_poison,
    sys::{
        cpu::cpus,
        fd::{message_pair, set_nonblocking, stream_pair},
        identified::Identified,
        pass::{recv_with_fds, send_some_with_fds},
        per_process::PerProcess,
        poll::{wait_readable, wait_writable},
    },
    transport::{self, Body, Incoming, WorkerEnd},
};

/// How long a manager may take to accept a connection. It may be starting, or running an update.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The connect socket of a manager, of which this type is only the name.
pub(super) enum ConnectSocket {}

/// What this process knows of a manager.
pub(super) struct Client {
    idle: PerProcess<Mutex<Vec<Connection>>>,
    /// What started the manager, in the process that did.
    owner: OnceLock<Weak<Owner>>,
}

impl User for Client {}

impl Client {
    /// Returns the client of the manager that has this connect socket.
    pub(super) fn of(connect: &Segment) -> &Self {
        let make = || Self { idle: PerProcess::new(), owner: OnceLock::new() };
        connect.user(make).expect("nothing else uses a connect socket")
    }

    pub(super) fn set_owner(&self, owner: &Arc<Owner>) {
        let _ = self.owner.set(Arc::downgrade(owner));
    }

    /// Sends a request and waits for the reply.
    pub(super) fn call(&self, connect: &Segment, request: &Request<'_>, with: &Attachments) -> Result<Reply> {
        let idle = self.idle.get_or_init(Mutex::default);
        let used = ignore_poison(idle.lock()).pop();
        let connection = used.map_or_else(|| Connection::new(connect.descriptor()?, &hello()), Ok);
        let reply = connection.and_then(|mut connection| {
            let reply = connection.exchange(request, with)?;
            ignore_poison(idle.lock()).push(connection);
            Ok(reply)
        });
        reply.map_err(|error| self.explain(error))
    }

    /// Closes the connections of this process.
    pub(super) fn close(&self) {
        if let Some(idle) = self.idle.get() {
            ignore_poison(idle.lock()).clear();
        }
    }

    #[cold]
    fn explain(&self, error: io::Error) -> Error {
        use io::ErrorKind as Kind;
        let is_end = [Kind::BrokenPipe, Kind::ConnectionReset, Kind::UnexpectedEof, Kind::NotConnected];
        if !is_end.contains(&error.kind()) {
            return Error::system("a request to the manager failed", error);
        }
        let cause = self.owner.get().and_then(Weak::upgrade).and_then(|owner| owner.cause());
        Error::config(match cause {
            Some(cause) => format!("the manager has ended: {cause}"),
            None => "the manager has ended".to_owned(),
        })
    }
}

/// Creates the connect socket of a manager: the segment that handles contain, and the manager's end.
pub(super) fn connect_socket(digest: u64) -> io::Result<(Arc<Segment>, OwnedFd)> {
    let (ours, theirs) = message_pair()?;
    Ok((Segment::of_descriptor(digest, ours)?, theirs))
}

/// A connection, on which one request is made at a time.
struct Connection {
    end: WorkerEnd,
    beside: Identified,
    bytes: Vec<u8>,
}

impl Connection {
    fn new(connect: BorrowedFd<'_>, hello: &[u8; HELLO_BYTES]) -> io::Result<Self> {
        let (socket, their_socket) = stream_pair()?;
        let (beside, their_beside) = stream_pair()?;
        // A manager waits for none of its clients.
        set_nonblocking(their_beside.as_fd())?;
        send_hello(connect, hello, &[their_socket.as_fd(), their_beside.as_fd()])?;
        drop((their_socket, their_beside));
        if !wait_readable(beside.as_fd(), CONNECT_TIMEOUT)? {
            let words = format!("it has not accepted a connection for {CONNECT_TIMEOUT:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        let mut has_rings = [0];
        let rings = recv_with_fds::<1>(beside.as_fd(), &mut has_rings)?.pop();
        let rings = rings.map(|rings| transport::Segment::attach(rings.as_fd(), true)).transpose()?;
        if rings.is_some() != (has_rings == [1]) {
            return Err(io::Error::other("no memory came with the connection"));
        }
        let end = WorkerEnd::unwatched(Arc::new(Identified::new(socket)), rings.as_ref())?;
        end.waiting.set_spin(cpus() > 1);
        Ok(Self { end, beside: Identified::new(beside), bytes: Vec::new() })
    }

    fn exchange(&mut self, request: &Request<'_>, with: &Attachments) -> io::Result<Reply> {
        self.bytes.clear();
        codec::encode(request, &mut self.bytes).map_err(io::Error::other)?;
        let head = send_segments(&self.beside, with)?;
        self.end.sender.send(&head, Body::Borrowed(&self.bytes))?;
        self.end.sender.ring();
        match self.end.receiver.recv()? {
            Incoming::Frames(frames) => {
                let (frame, _) = frames.split_first().ok_or(io::ErrorKind::InvalidData)?;
                let (head, body) = frame.split_at_checked(HEAD_BYTES).ok_or(io::ErrorKind::InvalidData)?;
                let reply = reply_of(&self.beside, head, body);
                let len_bytes = PREFIX_BYTES + frame.len();
                self.end.receiver.consume(len_bytes);
                reply
            }
            Incoming::Large { head, body } => reply_of(&self.beside, &head, &body),
            Incoming::Nothing | Incoming::Paused | Incoming::Closed => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

fn reply_of(beside: &Identified, head: &[u8], body: &[u8]) -> io::Result<Reply> {
    let with = receive_segments(beside, head)?;
    let mut reply: Reply = codec::decode(body).map_err(io::Error::other)?;
    if !with.is_empty() {
        reply.values_mut().into_iter().for_each(|value| value.with = with.clone());
    }
    Ok(reply)
}

/// Sends the hello of a process and the ends of a new connection. Waits for room.
fn send_hello(connect: BorrowedFd<'_>, hello: &[u8; HELLO_BYTES], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        match send_some_with_fds(connect, &[io::IoSlice::new(hello)], fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !wait_writable(connect, CONNECT_TIMEOUT)? {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it accepts no connections"));
                }
            }
            sent => return sent.map(drop),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        codec::Bytes,
        manager::{
            Manager,
            link::Link,
            request::{Action, Create},
            serve,
            wire::hello_of,
        },
        segment::{SegmentId, digest},
        sys::{fd::pipe, pass::send_with_fds},
    };

    /// Sends nonsense on a connection of another process that has locked a mutex. Returns whether the mutex is free then, and all else goes
    /// on.
    fn is_released_after(nonsense: impl FnOnce(&mut Connection, BorrowedFd<'_>)) -> bool {
        let (connect, theirs) = connect_socket(digest::<ConnectSocket>()).expect("the manager serves");
        let (stopped, stop) = pipe().expect("the manager serves");
        let server = thread::spawn(move || serve::serve(theirs.as_fd(), stopped.as_fd()));
        let manager = Manager { link: Link::Process(connect.clone()), owner: None, is_guest: false };
        let (mutex, counter) = (
            manager.mutex(7_u8).expect("the manager serves"),
            manager.counter(1).expect("the manager serves"),
        );
        let hello = hello_of(SegmentId::new());
        let mut other = Connection::new(connect.descriptor().expect("the manager serves"), &hello)
            .expect("the manager serves");
        // The mutex was created first.
        let lock = Request::Use { object: 1, action: Action::Acquire(None) };
        assert!(matches!(other.exchange(&lock, &Attachments::default()), Ok(Reply::Locked { .. })));
        assert!(mutex.try_lock().expect("the manager serves").is_none());
        nonsense(&mut other, connect.descriptor().expect("the manager serves"));
        let is_free = mutex.lock_timeout(Duration::from_secs(10)).expect("the manager serves").is_some();
        assert_eq!(counter.get().expect("the manager serves"), 1);
        drop((other, stop));
        server.join().expect("the manager serves").expect("the manager serves");
        assert!(counter.get().is_err());
        is_free
    }

    #[test]
    fn a_client_that_sends_nonsense_has_ended_and_the_others_go_on() {
        let frame = |head: &'static [u8], body: &'static [u8]| {
            move |other: &mut Connection, _: BorrowedFd<'_>| {
                other.end.sender.send(head, Body::Borrowed(body)).unwrap();
                other.end.sender.ring();
            }
        };
        assert!(is_released_after(frame(&[0, 0], b"\xff\xff")), "no request");
        assert!(is_released_after(frame(&[0], b"")), "no head");
        assert!(is_released_after(frame(&[1, 0], b"")), "segments that were not sent");
        assert!(is_released_after(|other, _| {
            other.end.sender.send_brief(7, b"brief").unwrap();
            other.end.sender.ring();
        }));
        // A second request before the reply to the first.
        assert!(is_released_after(|other, _| {
            let mut wait = Vec::new();
            let create = Request::Create(Create::Mutex(Bytes(b"")));
            codec::encode(&create, &mut wait).unwrap();
            let lock = Request::Use { object: 1, action: Action::Acquire(None) };
            let mut again = Vec::new();
            codec::encode(&lock, &mut again).unwrap();
            for bytes in [&again, &wait] {
                other.end.sender.send(&[0, 0], Body::Borrowed(bytes)).unwrap();
            }
            other.end.sender.ring();
        }));
    }

    #[test]
    fn a_hello_without_sockets_is_ignored() {
        assert!(is_released_after(|other, connect| {
            send_with_fds(connect, b"what", &[]).unwrap();
            send_with_fds(connect, &hello(), &[]).unwrap();
            send_with_fds(connect, &[7; 200], &[connect]).unwrap();
            other.end.sender.send(&[], Body::Borrowed(b"")).unwrap();
            other.end.sender.ring();
        }));
    }
}
