//! The worker's end: receives frames from the host's ring, sends frames of the serving thread through the other ring, and those of
//! other threads over the socket.
//!
//! `worker::serve` uses it. It may wait, because the host always reads.

use std::{
    hint::spin_loop,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{LOOK_EVERY, ROOM_BYTES, SPIN, SPINS_A_LOOK, broken, segment::Part, wake};
use crate::{
    frame::{PREFIX_BYTES, Prefix},
    ring::{Alarm, Consumer, Producer},
    segment::Attachments,
    sync::ignore_poison,
    sys::{
        buffer_cache, futex,
        identified::Identified,
        poll::is_ended,
        spin::{self, Spinner},
    },
    transport::{
        Body, FrameReceiver, FrameSender, QueueingSender as _, Segment,
        socket::{SocketSink, SocketSource},
        stream::{FramedReceiver, FramedSender, Read, Sink, Source},
    },
};

/// The worker's end of a connection.
pub(crate) struct WorkerEnd {
    /// For the serving thread.
    pub(crate) sender: Box<dyn FrameSender>,
    pub(crate) receiver: Box<dyn FrameReceiver>,
    pub(crate) aside: Aside,
    pub(crate) waiting: Waiting,
}

impl WorkerEnd {
    /// Creates the end over the rings in this memory, or over the socket alone.
    pub(crate) fn new(socket: Arc<Identified>, rings: Option<&Segment>) -> io::Result<Self> {
        Self::watched(socket, rings, true)
    }

    /// Creates the end of a process in which no thread watches the socket. One that waits looks itself whether the peer has ended.
    pub(crate) fn unwatched(socket: Arc<Identified>, rings: Option<&Segment>) -> io::Result<Self> {
        Self::watched(socket, rings, false)
    }

    fn watched(socket: Arc<Identified>, rings: Option<&Segment>, is_watched: bool) -> io::Result<Self> {
        let to_socket = FramedSender::new(SocketSink::new(socket.clone()), true);
        let aside = Aside {
            own: socket.clone(),
            socket: Arc::new(Mutex::new(to_socket)),
            sent: Arc::default(),
            is_cut: Arc::default(),
        };
        let (may_spin, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let waiting = Arc::new(WaitingState { may_spin, ended, is_watched });
        let Some(segment) = rings else {
            let source = if is_watched { SocketSource::of_worker(socket) } else { SocketSource::new(socket) };
            return Ok(Self {
                sender: Box::new(Alone(aside.clone())),
                receiver: Box::new(FramedReceiver::new(source, true)),
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
            waiting: waiting.clone(),
            aside: aside.clone(),
            _keeper: is_watched.then(buffer_cache::Keeper::new),
            spinner: Spinner::default(),
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

/// Sends one frame over a worker's socket and waits until it was sent. For a connection of which only the socket exists yet.
pub(crate) fn send_alone(socket: Arc<Identified>, frame: &[u8]) -> io::Result<()> {
    FramedSender::new(SocketSink::new(socket), true).send(&[], Body::Borrowed(frame))
}

/// The manner in which the serving thread waits. Other threads change it here.
#[derive(Debug)]
pub(crate) struct Waiting {
    state: Arc<WaitingState>,
    /// Those of the ring from the host and of the ring to it, in this order, if there are rings.
    alarms: Vec<Alarm<Part>>,
}

#[derive(Debug)]
struct WaitingState {
    may_spin: AtomicBool,
    /// The host will send nothing more.
    ended: AtomicBool,
    /// Another thread notices the end of the host.
    is_watched: bool,
}

impl WaitingState {
    /// Sleeps until the peer wakes this end, for a limited time if no other thread notices its end.
    fn sleep(
        &self,
        bell: &crate::sync::AtomicU32,
        own: &Identified,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if self.is_watched {
            futex::wait(bell, 1, timeout)?;
        } else if !futex::wait(bell, 1, Some(LOOK_EVERY))? && is_ended(own.check()?) {
            // What has arrived until now is read first.
            self.ended.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Waiting {
    /// Sets whether the thread may spin before it sleeps.
    pub(crate) fn set_spin(&self, may_spin: bool) {
        self.state.may_spin.store(may_spin, Ordering::Relaxed);
    }

    /// Returns whether the host has sent more than was read. Returns `false` if that is unknown.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.alarms.first().is_some_and(Alarm::has_arrivals)
    }

    /// The host has closed the connection. What has arrived is read to the end, and nothing more is sent.
    pub(crate) fn end(&self) {
        // SYNC(reading-ended): pairs with the loads of `ended` in `WorkerSource` and `WorkerSink`. It comes before the look at the bells, as
        // their announcements come before their looks at this.
        self.state.ended.store(true, Ordering::SeqCst);
        self.alarms.iter().filter_map(Alarm::take_bell).for_each(wake);
    }
}

/// Sends frames of any thread of a worker, over the socket.
#[derive(Clone)]
pub(crate) struct Aside {
    own: Arc<Identified>,
    socket: Arc<Mutex<FramedSender<SocketSink>>>,
    /// The number of frames that were sent.
    sent: Arc<AtomicU64>,
    /// A descriptor that was needed has been closed by user code.
    is_cut: Arc<AtomicBool>,
}

impl Aside {
    /// Sends a frame and waits until it was sent.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut socket = ignore_poison(self.socket.lock());
        socket.send(&[], Body::Borrowed(frame))?;
        // A thread that sees the number, and reports it to the host, knows that the frame is on its way.
        // SYNC(aside-sent): pairs with the Acquire load of `sent` in `WorkerSender::send`.
        self.sent.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Sends a frame and the descriptors of these segments in one message, and waits until it was sent.
    pub(crate) fn send_with(&self, frame: &[u8], segments: &Attachments) -> io::Result<()> {
        {
            let mut socket = ignore_poison(self.socket.lock());
            for segment in segments.iter() {
                socket.attach(segment.clone())?;
            }
        }
        self.send(frame)
    }

    /// Wakes the host. If the host has gone, the watching thread ends this process.
    fn ring(&self) {
        let mut socket = ignore_poison(self.socket.lock());
        if socket.send(&[], Body::Borrowed(&[])).is_err() && !self.own.is_whole() {
            self.cut();
        }
    }

    /// Notes that user code has closed a descriptor that this worker needs.
    pub(crate) fn cut(&self) {
        // It does not order anything.
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Returns whether user code has closed a descriptor that this worker needs, as [`cut`](Self::cut) has noted.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Returns whether user code has not closed the socket.
    pub(crate) fn is_whole(&self) -> bool {
        self.own.is_whole()
    }
}

/// The sender of a worker without rings, for which there is only the socket.
struct Alone(Aside);

impl FrameSender for Alone {
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        ignore_poison(self.0.socket.lock()).send(head, body)
    }

    fn send_brief(&mut self, head: u64, body: &[u8]) -> io::Result<()> {
        ignore_poison(self.0.socket.lock()).send_brief(head, body)
    }

    fn ring(&mut self) {}
}

struct WorkerSender {
    ring: FramedSender<WorkerSink>,
    aside: Aside,
    /// The number in the last mark.
    marked: u64,
}

impl WorkerSender {
    /// Writes a mark if frames have gone aside since the last one.
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
        if self.aside.is_cut() {
            // The host may not learn that there is something to read.
            return Err(io::ErrorKind::NotConnected.into());
        }
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
            self.waiting.sleep(self.producer.bell(), &self.aside.own, None)?;
        }
        Ok(())
    }

    fn ring(&mut self) {
        if self.producer.take_bell().is_some() {
            self.aside.ring();
        }
    }
}

struct WorkerSource {
    consumer: Consumer<Part>,
    waiting: Arc<WaitingState>,
    aside: Aside,
    /// The serving thread, which waits here, frees the buffer that is kept.
    _keeper: Option<buffer_cache::Keeper>,
    spinner: Spinner,
}

impl Source for WorkerSource {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        let ended = self.waiting.ended.load(Ordering::SeqCst) || self.consumer.is_closed();
        let n = self.consumer.read(target, most).map_err(broken)?;
        if n > 0 {
            if self.consumer.take_bell().is_some() {
                // The host waits for room in its poller.
                self.aside.ring();
            }
            return Ok(Read::Bytes(n));
        }
        Ok(if ended { Read::Closed } else { Read::Nothing })
    }

    fn wait(&mut self, near: bool) -> io::Result<()> {
        if near || self.waiting.may_spin.load(Ordering::Relaxed) {
            let start = Instant::now();
            let mut now = start;
            while now - start < SPIN {
                for _ in 0..SPINS_A_LOOK {
                    if !self.consumer.is_empty() {
                        return Ok(());
                    }
                    spin_loop();
                }
                now = Instant::now();
                if self.spinner.should_offer(now - start, now) {
                    let took = spin::offer();
                    now += took;
                    self.spinner.offered(took, now);
                }
            }
        }
        // A worker that cannot wake its host, and cannot see its end, must not sleep.
        self.aside.own.check()?;
        if self.consumer.park() {
            // SYNC(reading-ended): pairs with the store in `Waiting::end`.
            if self.waiting.ended.load(Ordering::SeqCst) {
                self.consumer.unpark();
            } else {
                // A buffer that was kept for long enough is freed.
                self.waiting.sleep(self.consumer.bell(), &self.aside.own, buffer_cache::expire())?;
            }
        }
        Ok(())
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.aside.own.as_fd()
    }
}
