//! The process of a manager: accepts connections, feeds the requests of clients to the objects, and sends the replies.
//!
//! It waits for no client, and trusts none: a client that sends nonsense is treated as if it had ended. It spins for a short time
//! after each request, because the next one often comes soon.

use std::{
    collections::{BTreeMap, HashMap},
    hint::spin_loop,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    in_process::run,
    objects::{Objects, Ticket},
    request::{Reply, Request},
    wire::{HEAD_BYTES, HELLO_BYTES, process_of, receive_segments, send_segments},
};
use crate::{
    codec,
    frame::PREFIX_BYTES,
    segment::{Attachments, SegmentId},
    sys::{
        cpu::cpus,
        fd::set_nonblocking,
        identified::Identified,
        pass::{recv_with_fds, send_with_fds},
        poll::{Event, Poller},
        process::hold_peer,
    },
    transport::{Body, FrameReceiver, Incoming, QueueingSender, Room, offer},
};

/// How long the manager looks for requests before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How often the connections are looked at between two readings of the clock.
const LOOKS: u32 = 32;

/// The keys of the poller: the connect socket, what ends the manager, and behind them the clients and connections in turn.
const CONNECT: u64 = 0;
const STOP: u64 = 1;

fn client_key(client: u64) -> u64 {
    2 * client
}

fn connection_key(connection: u64) -> u64 {
    2 * connection + 1
}

/// Serves until the other end of `stop` is closed.
pub(super) fn serve(connect: BorrowedFd<'_>, stop: BorrowedFd<'_>) -> io::Result<()> {
    let poller = Poller::new()?;
    poller.add(connect, CONNECT)?;
    poller.add(stop, STOP)?;
    let server = Server {
        poller,
        objects: Objects::default(),
        clients: BTreeMap::new(),
        processes: HashMap::new(),
        connections: BTreeMap::new(),
        awake: Vec::new(),
        numbers: 1,
        may_spin: cpus() > 1,
    };
    server.serve(connect)
}

/// A process that has connections.
struct Client {
    process: SegmentId,
    connections: Vec<u64>,
    /// Reports the end of the process. A copy of it may keep its connections open.
    held: Option<OwnedFd>,
}

struct Connection {
    client: u64,
    sender: Box<dyn QueueingSender>,
    receiver: Box<dyn FrameReceiver>,
    beside: Identified,
    has_rings: bool,
    /// The poller reports room on the socket.
    awaits_room: bool,
    /// The poller has reported something since the last look.
    is_readable: bool,
    /// A request has no reply yet.
    is_waiting: bool,
}

/// What was found on a connection.
enum Found {
    Request(Vec<u8>, Attachments),
    Nothing,
    Closed,
}

struct Server {
    poller: Poller,
    objects: Objects,
    clients: BTreeMap<u64, Client>,
    processes: HashMap<SegmentId, u64>,
    connections: BTreeMap<u64, Connection>,
    /// The connections that may have something to read or to write. The others are parked.
    awake: Vec<u64>,
    /// The next number of a client or a connection.
    numbers: u64,
    may_spin: bool,
}

impl Server {
    fn serve(mut self, connect: BorrowedFd<'_>) -> io::Result<()> {
        let mut events = Vec::new();
        loop {
            while self.serve_awake() || self.spin() {}
            let timeout = match self.park() {
                false => Some(Duration::ZERO),
                true => self.objects.next_deadline().map(|at| at.saturating_duration_since(Instant::now())),
            };
            self.poller.wait(&mut events, timeout)?;
            for &Event { key } in &events {
                match key {
                    CONNECT => self.accept(connect),
                    STOP => return Ok(()),
                    key if key % 2 == 0 => self.end_client(key / 2),
                    key => self.wake(key / 2),
                }
            }
            self.objects.expire(Instant::now());
            self.send_replies();
        }
    }

    /// Accepts a connection. One that cannot be made is closed, which its client notices.
    fn accept(&mut self, connect: BorrowedFd<'_>) {
        let mut hello = [0; HELLO_BYTES];
        let Ok(fds) = recv_with_fds::<2>(connect, &mut hello) else { return };
        let (Some(process), Ok([socket, beside])) = (process_of(&hello), <[OwnedFd; 2]>::try_from(fds))
        else {
            return;
        };
        let held = hold_peer(socket.as_fd());
        // A connection that failed is not in the tables.
        let _ = self.connect(process, held, socket, beside);
    }

    fn connect(
        &mut self,
        process: SegmentId,
        held: Option<OwnedFd>,
        socket: OwnedFd,
        beside: OwnedFd,
    ) -> io::Result<()> {
        set_nonblocking(beside.as_fd())?;
        let end = offer(Arc::new(Identified::new(socket)))?;
        let rings = end.segment.iter().filter(|_| end.rings).map(AsFd::as_fd);
        send_with_fds(beside.as_fd(), &[end.rings.into()], &rings.collect::<Vec<_>>())?;
        let number = self.next_number();
        let fd = end.receiver.poll_fd().ok_or(io::ErrorKind::InvalidInput)?;
        self.poller.add(fd, connection_key(number))?;
        let client = match self.processes.get(&process) {
            Some(client) => *client,
            None => {
                let client = self.next_number();
                if let Some(held) = &held {
                    self.poller.add(held.as_fd(), client_key(client))?;
                }
                self.processes.insert(process, client);
                self.clients.insert(client, Client { process, connections: Vec::new(), held });
                client
            }
        };
        self.clients.get_mut(&client).expect("it was found or made").connections.push(number);
        let connection = Connection {
            client,
            sender: end.sender,
            receiver: end.receiver,
            beside: Identified::new(beside),
            has_rings: end.rings,
            awaits_room: false,
            is_readable: false,
            is_waiting: false,
        };
        self.connections.insert(number, connection);
        self.awake.push(number);
        Ok(())
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Notes that something has happened on a connection.
    fn wake(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.is_readable = true;
        connection.receiver.unpark();
        if !self.awake.contains(&number) {
            self.awake.push(number);
        }
    }

    /// Serves one request of each connection that has some. Returns whether there was any.
    fn serve_awake(&mut self) -> bool {
        let mut has_served = false;
        for at in 0..self.awake.len() {
            let Some(&number) = self.awake.get(at) else { break };
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            match connection.next() {
                Ok(Found::Request(bytes, with)) => {
                    has_served = true;
                    self.handle(number, &bytes, &with);
                }
                Ok(Found::Nothing) => {}
                Ok(Found::Closed) => self.end_connection(number),
                Err(_) => self.end_client_of(number),
            }
        }
        let connections = &self.connections;
        self.awake.retain(|number| connections.contains_key(number));
        has_served
    }

    fn handle(&mut self, number: u64, bytes: &[u8], with: &Attachments) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Ok(request) = codec::decode::<Request<'_>>(bytes) else { return self.end_client_of(number) };
        connection.is_waiting = true;
        let from = Ticket { client: connection.client, connection: number };
        self.objects.handle(from, &request, with, Instant::now(), &run);
        self.send_replies();
    }

    fn send_replies(&mut self) {
        for (to, reply) in self.objects.take_replies() {
            let Some(connection) = self.connections.get_mut(&to.connection) else { continue };
            connection.is_waiting = false;
            if connection.send(&reply).is_err() {
                self.end_client_of(to.connection);
            }
        }
    }

    /// Looks for requests for a short time. Returns whether there is one.
    fn spin(&self) -> bool {
        let mut ready =
            self.awake.iter().filter_map(|number| self.connections.get(number)).filter(|it| it.has_rings);
        let Some(first) = ready.next() else { return false };
        let others: Vec<_> = ready.collect();
        let has_arrivals =
            || first.receiver.has_arrivals() || others.iter().any(|other| other.receiver.has_arrivals());
        let start = Instant::now();
        while self.may_spin && start.elapsed() < SPIN {
            for _ in 0..LOOKS {
                if has_arrivals() {
                    return true;
                }
                spin_loop();
            }
        }
        has_arrivals()
    }

    /// Has the poller report what happens from now on. Returns `false` if something has happened already.
    fn park(&mut self) -> bool {
        let mut is_quiet = true;
        let awake = std::mem::take(&mut self.awake);
        for number in awake {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            if !connection.park(&self.poller, connection_key(number)) {
                is_quiet = false;
                self.awake.push(number);
            }
        }
        is_quiet
    }

    fn end_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        connection.forget(&self.poller);
        let client = connection.client;
        self.objects.connection_gone(Ticket { client, connection: number });
        let Some(its) = self.clients.get_mut(&client) else { return };
        its.connections.retain(|other| *other != number);
        if its.connections.is_empty() {
            self.end_client(client);
        }
    }

    fn end_client_of(&mut self, connection: u64) {
        if let Some(connection) = self.connections.get(&connection) {
            self.end_client(connection.client);
        }
    }

    fn end_client(&mut self, number: u64) {
        let Some(client) = self.clients.remove(&number) else { return };
        self.processes.remove(&client.process);
        if let Some(held) = &client.held {
            self.poller.remove(held.as_fd());
        }
        let connections = client.connections.iter().filter_map(|number| self.connections.remove(number));
        connections.for_each(|connection| connection.forget(&self.poller));
        self.objects.client_gone(number);
        self.send_replies();
    }
}

impl Connection {
    /// Returns the next request, if it has arrived.
    fn next(&mut self) -> io::Result<Found> {
        if self.sender.queued_bytes() > 0 {
            self.sender.flush()?;
            self.sender.ring();
        }
        self.receiver.begin(std::mem::take(&mut self.is_readable));
        let (head, body) = match self.receiver.recv()? {
            Incoming::Frames(frames) => {
                let (frame, _) = frames.split_first().ok_or(io::ErrorKind::InvalidData)?;
                let (head, body) = frame.split_at_checked(HEAD_BYTES).ok_or(io::ErrorKind::InvalidData)?;
                let parts = (head.to_vec(), body.to_vec());
                let len_bytes = PREFIX_BYTES + frame.len();
                self.receiver.consume(len_bytes);
                parts
            }
            Incoming::Large { head, body } => (head, body),
            Incoming::Nothing | Incoming::Paused => return Ok(Found::Nothing),
            Incoming::Closed => return Ok(Found::Closed),
        };
        if self.is_waiting || self.sender.queued_bytes() > 0 {
            // A client waits for its reply.
            return Err(io::ErrorKind::InvalidData.into());
        }
        let with = receive_segments(&self.beside, &head)?;
        Ok(Found::Request(body, with))
    }

    fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let mut with = Attachments::default();
        reply.values().iter().for_each(|value| with.merge(&value.with));
        let mut bytes = Vec::new();
        codec::encode(reply, &mut bytes).map_err(io::Error::other)?;
        let head = match send_segments(&self.beside, &with) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                bytes.clear();
                let reply = Reply::refused(format!("the reply cannot be sent: {error}"));
                codec::encode(&reply, &mut bytes).map_err(io::Error::other)?;
                [0; HEAD_BYTES]
            }
            head => head?,
        };
        self.sender.send(&head, Body::Borrowed(&bytes))?;
        self.sender.ring();
        Ok(())
    }

    /// Has the poller report what happens. Returns `false` if something has happened already.
    fn park(&mut self, poller: &Poller, key: u64) -> bool {
        let room = (self.sender.queued_bytes() > 0).then(|| self.sender.await_room());
        let awaits_room = room == Some(Room::Writable);
        if self.awaits_room != awaits_room {
            let Some(fd) = self.receiver.poll_fd() else { return true };
            if poller.set_writable(fd, key, awaits_room).is_err() {
                return true;
            }
            self.awaits_room = awaits_room;
        }
        room != Some(Room::Now) && self.receiver.park()
    }

    fn forget(&self, poller: &Poller) {
        if let Some(fd) = self.receiver.poll_fd() {
            poller.remove(fd);
        }
    }
}
