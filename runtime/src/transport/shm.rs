//! Frames over two rings in shared memory. The socket between the two stays: it tells of the peer's end, wakes the host, and carries
//! what the worker's other threads have to say.
//!
//! A worker's ring has one producer, the thread that serves. Frames of other threads go *aside*, over the socket; the number of those
//! that have gone stands in the ring before the next frame (a mark), so that the host sees them before it.
//!
//! The worker sleeps on a futex. The host, which waits for many workers at once, sleeps in a poller: a worker wakes it by an empty
//! frame on the socket.

use std::{
    hint::spin_loop,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Board, Body, FrameReceiver, FrameSender, QueueingSender, Received, Room, Segment,
    framed::{Found, FramedReceiver, FramedSender, Read, Sink, Source},
    segment::Part,
    socket::{SocketSink, SocketSource},
};
use crate::{
    error::Result,
    frame::{Frames, PREFIX_BYTES, Prefix},
    ring::{Alarm, Broken, Consumer, Producer},
    setting::variable,
    sys::{buffer_cache, fd, futex, futex::is_available},
};

/// A worker that may spin does so this long before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Less room is not worth a piece of a large frame.
const ROOM_BYTES: usize = 64 << 10;
/// Looks at the ring between two looks at the clock.
const SPINS_A_LOOK: u32 = 64;

/// The host's end of a connection, and what to pass to the worker.
pub(crate) struct HostEnd {
    pub(crate) sender: Box<dyn QueueingSender>,
    pub(crate) receiver: Box<dyn FrameReceiver>,
    pub(crate) board: Option<Board>,
    /// The shared memory, where there is some.
    pub(crate) segment: Option<OwnedFd>,
    /// The shared memory has rings.
    pub(crate) rings: bool,
    /// Why there are none, if nobody has asked for that.
    pub(crate) why_not: Option<String>,
}

/// `PROCESSION_TRANSPORT`: nothing is to go through shared memory.
///
/// # Errors
///
/// It names no transport.
pub(crate) fn wants_socket() -> Result<bool> {
    let parse = |name: &str| match name {
        "memory" => Some(false),
        "socket" => Some(true),
        _ => None,
    };
    Ok(variable("PROCESSION_TRANSPORT", "`memory` or `socket`", parse)?.unwrap_or(false))
}

/// Makes the host's end of a connection over this socket: rings if there are memfd and futexes, else the socket itself.
pub(crate) fn offer(socket: Arc<OwnedFd>) -> io::Result<HostEnd> {
    fd::set_nonblocking(socket.as_fd())?;
    let why_not = if wants_socket().unwrap_or(false) {
        None
    } else if !is_available() {
        Some("futexes may not be used here".to_owned())
    } else {
        match offer_rings(socket.clone()) {
            Ok(end) => return Ok(end),
            Err(error) => Some(format!("memory cannot be shared: {error}")),
        }
    };
    // The board alone may be had where futexes are not.
    let (board, segment) = match Segment::create(false) {
        Ok((memory, segment)) => (Some(memory.board()), Some(segment)),
        Err(_) => (None, None),
    };
    Ok(HostEnd { board, segment, why_not, ..over_socket(socket) })
}

/// The host's end over a socket that does not wait.
pub(super) fn over_socket(socket: Arc<OwnedFd>) -> HostEnd {
    HostEnd {
        sender: Box::new(FramedSender::new(SocketSink::of_host(socket.clone()), false)),
        receiver: Box::new(FramedReceiver::new(SocketSource::of_host(socket), false)),
        board: None,
        segment: None,
        rings: false,
        why_not: None,
    }
}

/// The host's end over rings, and over this socket, which does not wait.
pub(super) fn offer_rings(socket: Arc<OwnedFd>) -> io::Result<HostEnd> {
    let (memory, segment) = Segment::create(true)?;
    let producer = Producer::attach(memory.to_worker()).map_err(broken)?;
    let consumer = Consumer::attach(memory.to_host()).map_err(broken)?;
    Ok(HostEnd {
        sender: Box::new(FramedSender::new(HostSink { producer, socket: socket.clone() }, false)),
        receiver: Box::new(HostReceiver {
            ring: FramedReceiver::new(HostSource { consumer, socket: socket.clone() }, false),
            aside: FramedReceiver::new(SocketSource::of_host(socket), false),
            readable: false,
            aside_seen: 0,
            aside_due: 0,
            from_aside: false,
            closed: false,
        }),
        board: Some(memory.board()),
        segment: Some(segment),
        rings: true,
        why_not: None,
    })
}

fn broken(error: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Wakes whoever sleeps on the word. It fails only where futexes are refused, and then there are no rings.
fn wake(word: &crate::sync::AtomicU32) {
    let _ = futex::wake(word);
}

struct HostSink {
    producer: Producer<Part>,
    socket: Arc<OwnedFd>,
}

impl Sink for HostSink {
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        self.producer.write(parts).map_err(broken)
    }

    fn wait(&mut self) -> io::Result<()> {
        unreachable!("the host never waits")
    }

    fn ring(&mut self) {
        if self.producer.take_bell() {
            wake(self.producer.peer_bell());
        }
    }

    fn has_room(&mut self) -> bool {
        self.producer.fits(ROOM_BYTES) != Ok(false)
    }

    fn await_room(&mut self) -> Room {
        if self.producer.park() { Room::Readable } else { Room::Now }
    }

    fn close(&mut self) {
        self.producer.close();
        self.ring();
        fd::shutdown_write(self.socket.as_fd());
    }

    fn is_peer_at_rest(&self) -> bool {
        self.producer.is_peer_at_rest()
    }
}

struct HostSource {
    consumer: Consumer<Part>,
    socket: Arc<OwnedFd>,
}

impl Source for HostSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        let n = self.consumer.read(target, most).map_err(broken)?;
        if n == 0 {
            return Ok(Read::Nothing);
        }
        if self.consumer.take_bell() {
            wake(self.consumer.peer_bell());
        }
        Ok(Read::Bytes(n))
    }

    fn wait(&mut self, _near: bool) -> io::Result<()> {
        unreachable!("the host never waits")
    }

    fn has_arrivals(&self) -> bool {
        !self.consumer.is_empty()
    }

    fn park(&mut self) -> bool {
        // Announced before, and not taken down: the worker will ring for what it publishes.
        if self.consumer.bell().load(crate::sync::Ordering::Relaxed) == 1 {
            return self.consumer.is_empty();
        }
        // No worker of ours closes its ring. One that seems to have done so is looked at now and then, not waited for in a loop.
        self.consumer.park() || self.consumer.is_empty()
    }

    fn unpark(&mut self) {
        self.consumer.unpark();
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Receives from the ring, and from the socket what was sent aside.
struct HostReceiver {
    ring: FramedReceiver<HostSource>,
    aside: FramedReceiver<SocketSource>,
    /// There may be something on the socket.
    readable: bool,
    /// How many frames have come by it, but for empty ones.
    aside_seen: u64,
    /// How many must have come before the ring is read further.
    aside_due: u64,
    /// What was handed out last came by it.
    from_aside: bool,
    closed: bool,
}

/// Where the next frame lies.
enum Turn {
    Ring,
    /// On the socket: the first so many bytes of the frames.
    Aside(usize),
    Large(Vec<u8>, Vec<u8>),
    Nothing,
    Paused,
}

impl HostReceiver {
    /// Looks at the socket; `None`: there is no frame but empty ones.
    fn poll_aside(&mut self) -> io::Result<Option<Turn>> {
        loop {
            match self.aside.poll()? {
                Found::Frames => match self.aside.frames().split_first() {
                    // Somebody rang.
                    Some(([], _)) => self.aside.consume(PREFIX_BYTES),
                    Some((frame, _)) => return Ok(Some(Turn::Aside(PREFIX_BYTES + frame.len()))),
                    None => return Err(nonsense("a brief on the socket")),
                },
                Found::Large { head, body } => {
                    self.aside_seen += 1;
                    return Ok(Some(Turn::Large(head, body)));
                }
                Found::Nothing => {
                    self.readable = false;
                    return Ok(None);
                }
                Found::Paused => return Ok(Some(Turn::Paused)),
                Found::Closed => {
                    self.readable = false;
                    self.closed = true;
                    return Ok(None);
                }
                Found::Mark(_) => return Err(nonsense("a mark on the socket")),
            }
        }
    }

    fn turn(&mut self) -> io::Result<Turn> {
        loop {
            if self.readable
                && !self.closed
                && let Some(turn) = self.poll_aside()?
            {
                return Ok(turn);
            }
            if self.aside_seen < self.aside_due && !self.closed {
                // They were sent before the mark was, so they have come.
                return Err(nonsense("the ring tells of records that were not sent"));
            }
            match self.ring.poll()? {
                Found::Mark(count) => {
                    self.aside_due = count;
                    self.readable = self.aside_seen < count;
                    self.aside.expect_more();
                }
                Found::Frames => return Ok(Turn::Ring),
                Found::Large { head, body } => return Ok(Turn::Large(head, body)),
                Found::Nothing | Found::Closed => return Ok(Turn::Nothing),
                Found::Paused => return Ok(Turn::Paused),
            }
        }
    }
}

fn nonsense(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

impl FrameReceiver for HostReceiver {
    fn begin(&mut self, readable: bool) {
        self.readable |= readable;
        self.ring.begin(readable);
        self.aside.begin(readable);
    }

    fn recv(&mut self) -> io::Result<Received<'_>> {
        let turn = self.turn()?;
        self.from_aside = matches!(turn, Turn::Aside(_));
        Ok(match turn {
            Turn::Ring => Received::Frames(self.ring.frames()),
            Turn::Aside(len) => Received::Frames(Frames::new(&self.aside.frames().as_bytes()[..len])),
            Turn::Large(head, body) => Received::Large { head, body },
            Turn::Nothing if self.closed => Received::Closed,
            Turn::Nothing => Received::Nothing,
            Turn::Paused => Received::Paused,
        })
    }

    fn consume(&mut self, len_bytes: usize) {
        if self.from_aside {
            // One frame at a time is handed out, and all of it is seen to, or nothing.
            self.aside.consume(len_bytes);
            self.aside_seen += u64::from(len_bytes > 0);
        } else {
            self.ring.consume(len_bytes);
        }
    }

    fn has_arrivals(&self) -> bool {
        self.ring.has_arrivals()
    }

    fn is_midway(&self) -> bool {
        self.ring.is_midway()
    }

    fn park(&mut self) -> bool {
        self.ring.park()
    }

    fn unpark(&mut self) {
        self.ring.unpark();
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.ring.poll_fd()
    }
}

/// The worker's end.
pub(crate) struct WorkerEnd {
    /// For the thread that serves.
    pub(crate) sender: Box<dyn FrameSender>,
    pub(crate) receiver: Box<dyn FrameReceiver>,
    pub(crate) aside: Aside,
    pub(crate) waiting: Waiting,
}

impl WorkerEnd {
    /// Over the rings in this memory, or over the socket alone.
    pub(crate) fn new(socket: Arc<OwnedFd>, rings: Option<&Segment>) -> io::Result<Self> {
        let to_socket = FramedSender::new(SocketSink::new(socket.clone()), true);
        let aside = Aside { socket: Arc::new(Mutex::new(to_socket)), sent: Arc::default() };
        let waiting =
            Arc::new(WaitingState { may_spin: AtomicBool::new(false), ended: AtomicBool::new(false) });
        let Some(segment) = rings else {
            return Ok(Self {
                sender: Box::new(Alone(aside.clone())),
                receiver: Box::new(FramedReceiver::new(SocketSource::new(socket), true)),
                aside,
                waiting: Waiting { state: waiting, alarms: Vec::new() },
            });
        };
        let consumer = Consumer::attach(segment.to_worker()).map_err(broken)?;
        let producer = Producer::attach(segment.to_host()).map_err(broken)?;
        let sink = WorkerSink { producer, waiting: waiting.clone(), aside: aside.clone() };
        let sender = WorkerSender { ring: FramedSender::new(sink, true), aside: aside.clone(), marked: 0 };
        let source = WorkerSource {
            consumer,
            socket,
            waiting: waiting.clone(),
            aside: aside.clone(),
            _keeper: buffer_cache::Keeper::new(),
        };
        let alarms = vec![Alarm::of_consumer(segment.to_worker()), Alarm::of_producer(segment.to_host())];
        Ok(Self {
            sender: Box::new(sender),
            receiver: Box::new(FramedReceiver::new(source, true)),
            aside,
            waiting: Waiting { state: waiting, alarms },
        })
    }
}

/// Sends one frame over a worker's socket, where there is no more to the connection, and waits until it is sent.
pub(crate) fn send_alone(socket: Arc<OwnedFd>, frame: &[u8]) -> io::Result<()> {
    FramedSender::new(SocketSink::new(socket), true).send(&[], Body::Borrowed(frame))
}

/// How the worker's thread that serves waits, for other threads to change.
#[derive(Debug)]
pub(crate) struct Waiting {
    state: Arc<WaitingState>,
    alarms: Vec<Alarm<Part>>,
}

#[derive(Debug)]
struct WaitingState {
    may_spin: AtomicBool,
    /// The host will say no more.
    ended: AtomicBool,
}

impl Waiting {
    /// Whether it may spin before it sleeps.
    pub(crate) fn set_spin(&self, may_spin: bool) {
        self.state.may_spin.store(may_spin, Ordering::Relaxed);
    }

    /// The host has closed the connection: what is there is read to the end, nothing more is sent, and that is all.
    pub(crate) fn end(&self) {
        // SYNC(reading-ended): pairs with the loads of `ended` in `WorkerSource` and `WorkerSink`. It comes before the look at the bells, as
        // their announcements come before their looks at this.
        self.state.ended.store(true, Ordering::SeqCst);
        self.alarms.iter().filter(|alarm| alarm.take_bell()).for_each(|alarm| wake(alarm.bell()));
    }
}

/// The way for frames of any thread of a worker: the socket.
#[derive(Clone)]
pub(crate) struct Aside {
    socket: Arc<Mutex<FramedSender<SocketSink>>>,
    /// How many have been sent.
    sent: Arc<AtomicU64>,
}

impl Aside {
    /// Sends a frame, and waits until it is sent.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.send(&[], Body::Borrowed(frame))?;
        // Whoever sees the number, and tells the host of it, knows that the frame is on its way.
        // SYNC(aside-sent): pairs with the Acquire load of `sent` in `WorkerSender::send`.
        self.sent.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// The sender of a worker that has no ring: there is but one way.
struct Alone(Aside);

impl FrameSender for Alone {
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        self.0.socket.lock().unwrap_or_else(PoisonError::into_inner).send(head, body)
    }

    fn send_brief(&mut self, head: u64, body: &[u8]) -> io::Result<()> {
        self.0.socket.lock().unwrap_or_else(PoisonError::into_inner).send_brief(head, body)
    }

    fn ring(&mut self) {}
}

struct WorkerSender {
    ring: FramedSender<WorkerSink>,
    aside: Aside,
    /// What the last mark said.
    marked: u64,
}

impl WorkerSender {
    /// Marks what has gone aside since the last mark.
    #[inline]
    fn mark(&mut self) -> io::Result<()> {
        // SYNC(aside-sent): pairs with the Release in `Aside::send`.
        let sent = self.aside.sent.load(Ordering::Acquire);
        if sent != self.marked {
            self.marked = sent;
            self.ring.send_prefix(Prefix::Mark(sent))?;
        }
        Ok(())
    }
}

impl FrameSender for WorkerSender {
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        self.mark()?;
        self.ring.send(head, body)
    }

    #[inline]
    fn send_brief(&mut self, head: u64, body: &[u8]) -> io::Result<()> {
        self.mark()?;
        self.ring.send_brief(head, body)
    }

    fn ring(&mut self) {
        self.ring.ring();
    }
}

struct WorkerSink {
    producer: Producer<Part>,
    waiting: Arc<WaitingState>,
    aside: Aside,
}

impl Aside {
    /// Wakes the host. If it has gone, the watching thread ends this process.
    fn ring(&self) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = socket.send(&[], Body::Borrowed(&[]));
    }
}

impl Sink for WorkerSink {
    #[inline]
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        self.producer.write(parts).map_err(broken)
    }

    #[inline]
    fn write_few(&mut self, prefix: [u8; PREFIX_BYTES], few: &[u8]) -> bool {
        self.producer.write_few(prefix, few)
    }

    fn wait(&mut self) -> io::Result<()> {
        self.ring();
        let start = Instant::now();
        while start.elapsed() < SPIN {
            if self.producer.fits(ROOM_BYTES) != Ok(false) {
                return Ok(());
            }
            spin_loop();
        }
        if self.producer.park() {
            // The host always reads, unless it has gone.
            // SYNC(reading-ended): pairs with the store in `Waiting::end`.
            if self.waiting.ended.load(Ordering::SeqCst) {
                self.producer.unpark();
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            futex::wait(self.producer.bell(), 1, None)?;
        }
        Ok(())
    }

    fn ring(&mut self) {
        if self.producer.take_bell() {
            self.aside.ring();
        }
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn await_room(&mut self) -> Room {
        Room::Now
    }

    fn close(&mut self) {}

    fn is_peer_at_rest(&self) -> bool {
        false
    }
}

struct WorkerSource {
    consumer: Consumer<Part>,
    socket: Arc<OwnedFd>,
    waiting: Arc<WaitingState>,
    aside: Aside,
    /// Whoever waits here gives back what is kept.
    _keeper: buffer_cache::Keeper,
}

impl Source for WorkerSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        let ended = self.waiting.ended.load(Ordering::SeqCst) || self.consumer.is_closed();
        let n = self.consumer.read(target, most).map_err(broken)?;
        if n > 0 {
            if self.consumer.take_bell() {
                // The host waits for room, in its poller.
                self.aside.ring();
            }
            return Ok(Read::Bytes(n));
        }
        Ok(if ended { Read::Closed } else { Read::Nothing })
    }

    fn wait(&mut self, near: bool) -> io::Result<()> {
        if near || self.waiting.may_spin.load(Ordering::Relaxed) {
            let start = Instant::now();
            while start.elapsed() < SPIN {
                for _ in 0..SPINS_A_LOOK {
                    if !self.consumer.is_empty() {
                        return Ok(());
                    }
                    spin_loop();
                }
            }
        }
        if self.consumer.park() {
            // SYNC(reading-ended): pairs with the store in `Waiting::end`.
            if self.waiting.ended.load(Ordering::SeqCst) {
                self.consumer.unpark();
            } else {
                // A buffer that is kept is given back after a rest.
                futex::wait(self.consumer.bell(), 1, buffer_cache::expire())?;
            }
        }
        Ok(())
    }

    fn has_arrivals(&self) -> bool {
        !self.consumer.is_empty()
    }

    fn park(&mut self) -> bool {
        self.consumer.park()
    }

    fn unpark(&mut self) {
        self.consumer.unpark();
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
