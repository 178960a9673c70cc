//! One test suite for all transports: the promises that the layers above rely on. `README.md` says how to add one. The module
//! `transport::tests` of the runtime, which sees the transports, is a link to this file.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use super::{
    AGAIN_AFTER, Body, Descriptors, FrameReceiver, HostEnd, Incoming, QueueingSender, Room, Segment,
    SharedBytes, WorkerEnd,
    shm::{offer_rings, over_socket},
    socket::{SocketSink, SocketSource, receive_segments},
    stream::{FramedReceiver, FramedSender, Read, Sink, Source},
};
use crate::{
    frame::PREFIX_BYTES,
    segment::{self, Attachments, look_up, set_expecting},
    sys::{
        fd::{set_nonblocking, stream_pair, write_one},
        identified::Identified,
        poll::{Poller, wait_readable},
    },
};

/// The two ends of a transport: the host's, which never waits, and the worker's, which does.
type Ends = (HostEnd, WorkerEnd);

fn pair() -> (Arc<Identified>, Arc<Identified>) {
    let (host, worker) = stream_pair().unwrap();
    set_nonblocking(host.as_fd()).unwrap();
    (Arc::new(Identified::new(host)), Arc::new(Identified::new(worker)))
}

fn sockets() -> Ends {
    let (host, worker) = pair();
    (over_socket(host), WorkerEnd::new(worker, None).unwrap())
}

fn rings() -> Ends {
    let (host, worker) = pair();
    let host = offer_rings(host).unwrap();
    let memory = Segment::attach(host.segment.as_ref().unwrap().as_fd(), true).unwrap();
    (host, WorkerEnd::new(worker, Some(&memory)).unwrap())
}

/// Passes on few bytes at a time. So no piece of a stream ends where a frame does.
struct Trickle<T>(T);

/// The size in bytes. Frames of every size cross it, and none has that size.
const FEW: usize = 997;

impl Sink for Trickle<SocketSink> {
    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let first = parts.iter().find(|part| !part.is_empty()).copied().unwrap_or_default();
        self.0.write(&[&first[..first.len().min(FEW)]])
    }

    fn wait(&mut self) -> io::Result<()> {
        self.0.wait()
    }

    fn ring(&mut self) {
        self.0.ring();
    }

    fn has_room(&mut self) -> bool {
        self.0.has_room()
    }

    fn await_room(&mut self) -> Room {
        self.0.await_room()
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn is_peer_at_rest(&self) -> bool {
        self.0.is_peer_at_rest()
    }
}

impl Source for Trickle<SocketSource> {
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Read> {
        self.0.read(target, most.min(FEW))
    }

    fn wait(&mut self, near: bool) -> io::Result<()> {
        self.0.wait(near)
    }

    fn has_arrivals(&self) -> bool {
        self.0.has_arrivals()
    }

    fn park(&mut self) -> bool {
        self.0.park()
    }

    fn unpark(&mut self) {
        self.0.unpark();
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.poll_fd()
    }

    fn has_descriptors(&self) -> bool {
        self.0.has_descriptors()
    }

    fn take_descriptors(&mut self) -> Option<Descriptors> {
        self.0.take_descriptors()
    }
}

/// A stream over something else than our sockets.
fn trickle() -> Ends {
    let (host, worker) = pair();
    let end = HostEnd {
        sender: Box::new(FramedSender::new(Trickle(SocketSink::new(host.clone())), false)),
        receiver: Box::new(FramedReceiver::new(Trickle(SocketSource::new(host.clone())), false)),
        ..over_socket(host)
    };
    (end, WorkerEnd::new(worker, None).unwrap())
}

/// Returns the next received frame as one part.
fn take(receiver: &mut dyn FrameReceiver) -> Option<Option<Vec<u8>>> {
    let (frame, seen) = match receiver.recv().unwrap() {
        Incoming::Frames(frames) => {
            let (frame, rest) = frames.split_first().expect("one whole frame at least");
            (frame.to_vec(), frames.as_bytes().len() - rest.as_bytes().len())
        }
        Incoming::Large { head, body } => ([head, body].concat(), 0),
        Incoming::Closed => return Some(None),
        Incoming::Nothing | Incoming::Paused => return None,
    };
    receiver.consume(seen);
    Some(Some(frame))
}

/// Waits for the next frame. Returns `None` at the end.
fn next(receiver: &mut dyn FrameReceiver) -> Option<Vec<u8>> {
    loop {
        receiver.begin(true);
        if let Some(frame) = take(receiver) {
            return frame;
        }
        if receiver.park() {
            let readable = wait_readable(receiver.poll_fd().unwrap(), Duration::from_secs(20)).unwrap();
            assert!(readable, "nothing comes");
        }
    }
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + salt) as u8).collect()
}

/// Sends more of what is queued, and makes the poller report room for the rest.
fn flush(sender: &mut dyn QueueingSender, receiver: &dyn FrameReceiver, poller: &Poller) {
    sender.flush().unwrap();
    while sender.queued_bytes() > 0 {
        match sender.await_room() {
            Room::Now => sender.flush().unwrap(),
            room => {
                return poller.set_writable(receiver.poll_fd().unwrap(), 0, room == Room::Writable).unwrap();
            }
        }
    }
    poller.set_writable(receiver.poll_fd().unwrap(), 0, false).unwrap();
}

fn frames_of_every_size_arrive_whole_and_in_order((host, worker): Ends) {
    const SIZES: [usize; 13] = [0, 1, 7, 8, 9, 4095, 65_535, 65_536, 81_920, 262_144, 1 << 20, 3, 5 << 20];
    let HostEnd { sender: mut to_worker, receiver: mut from_worker, .. } = host;
    let WorkerEnd { sender: mut to_host, receiver: mut from_host, aside, waiting } = worker;
    let echo = std::thread::spawn(move || {
        for _ in SIZES {
            let frame = next(&mut *from_host).expect("a frame");
            let (head, body) = frame.split_at(frame.len().min(20));
            to_host.send(head, Body::Borrowed(body)).unwrap();
            to_host.ring();
        }
        assert_eq!(next(&mut *from_host), None);
    });
    // Everything is sent before anything is read. Both directions fill up, and neither end waits forever.
    let poller = Poller::new().unwrap();
    poller.add(from_worker.poll_fd().unwrap(), 0).unwrap();
    for (salt, len) in SIZES.into_iter().enumerate() {
        let frame = Arc::new(pattern(len, salt));
        match salt % 2 {
            0 => to_worker.send(&[], Body::Shared(&(frame.clone() as SharedBytes))).unwrap(),
            _ => {
                let (head, body) = frame.split_at(len.min(13));
                to_worker.send(head, Body::Borrowed(body)).unwrap();
            }
        }
    }
    let mut received = 0;
    while received < SIZES.len() {
        to_worker.ring();
        flush(&mut *to_worker, &*from_worker, &poller);
        if from_worker.park() {
            let mut events = Vec::new();
            poller.wait(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "nothing comes");
        }
        from_worker.begin(true);
        while let Some(frame) = take(&mut *from_worker) {
            let expected = pattern(SIZES[received], received);
            assert!(frame == Some(expected), "frame {received} of {} bytes", SIZES[received]);
            received += 1;
        }
    }
    assert_eq!(to_worker.queued_bytes(), 0, "all has arrived");
    to_worker.close();
    waiting.end();
    echo.join().unwrap();
    drop((aside, waiting));
    assert_eq!(next(&mut *from_worker), None, "the other end closed between two frames");
}

fn an_end_that_never_waits_reports_that_nothing_has_arrived((host, worker): Ends) {
    let mut from_worker = host.receiver;
    let mut to_host = worker.sender;
    from_worker.begin(true);
    assert!(matches!(from_worker.recv().unwrap(), Incoming::Nothing));
    to_host.send(b"a", Body::Borrowed(b"b")).unwrap();
    to_host.send(b"", Body::Borrowed(b"")).unwrap();
    assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"ab"[..]));
    assert_eq!(next(&mut *from_worker).as_deref(), Some(&b""[..]));
    from_worker.begin(true);
    assert!(matches!(from_worker.recv().unwrap(), Incoming::Nothing));
}

fn frames_that_were_not_consumed_are_returned_again((host, worker): Ends) {
    let mut from_worker = host.receiver;
    let mut to_host = worker.sender;
    to_host.send(b"one", Body::Borrowed(b"")).unwrap();
    to_host.send(b"two", Body::Borrowed(b"")).unwrap();
    from_worker.begin(true);
    for _ in 0..2 {
        let Incoming::Frames(frames) = from_worker.recv().unwrap() else { panic!("frames") };
        assert_eq!(frames.split_first().map(|(first, _)| first), Some(&b"one"[..]));
        from_worker.consume(0);
    }
    from_worker.consume(PREFIX_BYTES + 3);
    assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"two"[..]));
}

fn frames_sent_aside_are_received_before_later_ones((host, worker): Ends) {
    let mut from_worker = host.receiver;
    let WorkerEnd { sender: mut to_host, aside, .. } = worker;
    // The frames that go aside must fit into the socket, because no thread reads meanwhile.
    let large = pattern(30_000, 3);
    for round in 0..3u8 {
        to_host.send(&[round], Body::Borrowed(b"before")).unwrap();
        let (aside, sent) = (aside.clone(), large.clone());
        let other = std::thread::spawn(move || {
            aside.send(b"aside").unwrap();
            aside.send(&sent).unwrap();
        });
        other.join().unwrap();
        to_host.send(&[round], Body::Borrowed(b"after")).unwrap();
        to_host.ring();
    }
    let frames: Vec<Vec<u8>> = (0..12).map(|_| next(&mut *from_worker).unwrap()).collect();
    let place = |frame: &[u8], nth: usize| {
        frames.iter().enumerate().filter(|(_, f)| *f == frame).nth(nth).expect("it has come").0
    };
    for round in 0..3u8 {
        let after = place(&[&[round], &b"after"[..]].concat(), 0);
        assert!(place(b"aside", usize::from(round)) < after && place(&large, usize::from(round)) < after);
        assert!(place(&[&[round], &b"before"[..]].concat(), 0) < after);
    }
}

fn descriptors_of_a_worker_come_with_their_frame((host, worker): Ends) {
    let mut from_worker = host.receiver;
    let WorkerEnd { sender: mut to_host, aside, .. } = worker;
    for round in 0..20 {
        let mut segments = Attachments::default();
        for _ in 0..round % 3 + 1 {
            segments.add(&segment::Segment::of_descriptor(0, stream_pair().unwrap().0).unwrap());
        }
        aside.send(b"other").unwrap();
        aside.send_with(b"descriptors", &segments).unwrap();
        aside.send(b"another").unwrap();
        to_host.send(b"result", Body::Borrowed(b"")).unwrap();
        to_host.ring();
        assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"other"[..]));
        assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"descriptors"[..]));
        let Descriptors { fds, are_lost } = from_worker.take_descriptors().unwrap();
        assert_eq!((fds.len(), are_lost), (2 * segments.len(), false));
        assert!(from_worker.take_descriptors().is_none());
        assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"another"[..]));
        assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"result"[..]));
    }
}

fn a_worker_that_sends_descriptors_without_end_is_cut_off((host, worker): Ends) {
    let mut from_worker = host.receiver;
    let mut segments = Attachments::default();
    segments.add(&segment::Segment::of_descriptor(0, stream_pair().unwrap().0).unwrap());
    for _ in 0..20 {
        worker.aside.send_with(b"", &segments).unwrap();
    }
    from_worker.begin(true);
    loop {
        match from_worker.recv() {
            Ok(Incoming::Frames(_)) => from_worker.consume(PREFIX_BYTES),
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    assert!(std::iter::from_fn(|| from_worker.take_descriptors()).count() < 10);
}

fn the_end_of_a_peer_is_reported_once_everything_is_read((host, worker): Ends) {
    let mut from_worker = host.receiver;
    let mut to_host = worker.sender;
    to_host.send(b"last", Body::Borrowed(b"words")).unwrap();
    drop((to_host, worker.receiver, worker.aside, worker.waiting));
    assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"lastwords"[..]));
    assert_eq!(next(&mut *from_worker), None);
    assert_eq!(next(&mut *from_worker), None, "and stays so");
}

/// Runs the suite for each transport.
macro_rules! conformance {
    ($($transport:ident)*) => {
        $(mod $transport {
            super::conformance! {
                @ $transport:
                frames_of_every_size_arrive_whole_and_in_order
                an_end_that_never_waits_reports_that_nothing_has_arrived
                frames_that_were_not_consumed_are_returned_again
                frames_sent_aside_are_received_before_later_ones
                descriptors_of_a_worker_come_with_their_frame
                a_worker_that_sends_descriptors_without_end_is_cut_off
                the_end_of_a_peer_is_reported_once_everything_is_read
            }
        })*
    };
    (@ $transport:ident: $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::$promise(super::$transport());
        })*
    };
}
use conformance;

conformance! { sockets rings trickle }

/// More segments than an unread socket holds.
const MANY: usize = 400;

/// The host hands over segments, and names each in the frame that follows it. It never waits. `aside` is the worker's socket if the frames
/// come by another way.
fn segments_can_be_looked_up_when_a_frame_names_them((host, worker): Ends, aside: Option<Arc<Identified>>) {
    let made = || segment::Segment::of_descriptor(0, stream_pair().unwrap().0).unwrap();
    let segments: Vec<_> = (0..MANY).map(|_| made()).collect();
    segment::expect();
    let (mut to_worker, from_worker) = (host.sender, host.receiver);
    let mut from_host = worker.receiver;
    let poller = Poller::new().unwrap();
    poller.add(from_worker.poll_fd().unwrap(), 0).unwrap();
    for (index, segment) in segments.iter().enumerate() {
        to_worker.attach(segment.clone()).unwrap();
        to_worker.send(&(index as u64).to_le_bytes(), Body::Borrowed(&[])).unwrap();
    }
    std::thread::scope(|scope| {
        let watches = scope.spawn(|| {
            while let Some(socket) = &aside
                && wait_readable(socket.check().unwrap(), Duration::from_secs(20)).unwrap()
                && receive_segments(socket)
            {}
        });
        let serves = scope.spawn(|| {
            set_expecting(true);
            let mut named = 0;
            while named < MANY {
                let frame = next(&mut *from_host).expect("more frames");
                // An empty one carries segments only.
                if let Ok(index) = <[u8; 8]>::try_from(&frame[..]) {
                    let segment = &segments[u64::from_le_bytes(index) as usize];
                    assert_eq!(look_up(segment.id()).unwrap().id(), segment.id());
                    segment::forget(segment.id());
                    named += 1;
                }
            }
        });
        to_worker.ring();
        while to_worker.queued_bytes() > 0 {
            flush(&mut *to_worker, &*from_worker, &poller);
            to_worker.ring();
            poller.wait(&mut Vec::new(), Some(AGAIN_AFTER)).unwrap();
        }
        serves.join().unwrap();
        to_worker.close();
        watches.join().unwrap();
    });
}

#[test]
fn segments_come_with_frames_over_a_socket() {
    segments_can_be_looked_up_when_a_frame_names_them(sockets(), None);
}

#[test]
fn segments_come_beside_frames_over_rings() {
    let (host, worker) = pair();
    let host = offer_rings(host).unwrap();
    let memory = Segment::attach(host.segment.as_ref().unwrap().as_fd(), true).unwrap();
    let end = WorkerEnd::new(worker.clone(), Some(&memory)).unwrap();
    segments_can_be_looked_up_when_a_frame_names_them((host, end), Some(worker));
}

/// Returns the receiver of a stream of these bytes, which ends after them if `ends` is set.
fn receiver_of(bytes: &[u8], ends: bool) -> (FramedReceiver<SocketSource>, Option<Arc<Identified>>) {
    let (host, peer) = pair();
    write_one(peer.as_fd(), bytes).unwrap();
    (FramedReceiver::new(SocketSource::new(host), false), (!ends).then_some(peer))
}

#[test]
fn a_stream_that_ends_within_a_frame_is_an_error() {
    for sent in [1, 8, 9, 70_000] {
        let mut bytes = 100_000u64.to_le_bytes().to_vec();
        bytes.resize(sent, 0);
        let (mut receiver, _) = receiver_of(&bytes, true);
        // The first round may end with what had arrived. The second one reaches the end.
        let first = receiver.recv().is_err();
        receiver.begin(true);
        assert!(first || receiver.recv().is_err(), "{sent} bytes");
    }
}

#[test]
fn a_length_that_no_frame_has_is_an_error_and_commits_no_memory() {
    for length in [1u64 << 57, u64::MAX, u64::from_le_bytes(*b"garbage!")] {
        let (mut receiver, _peer) = receiver_of(&length.to_le_bytes(), false);
        assert!(receiver.recv().is_err(), "{length}");
    }
    // A length that a frame may have is not a reason to reserve that much.
    let (mut receiver, _peer) = receiver_of(&(1u64 << 40).to_le_bytes(), false);
    assert!(matches!(receiver.recv().unwrap(), Incoming::Nothing));
}

#[test]
fn a_mark_for_records_that_were_not_sent_is_an_error() {
    let (host, worker) = pair();
    let mut host = offer_rings(host).unwrap();
    let memory = Segment::attach(host.segment.as_ref().unwrap().as_fd(), true).unwrap();
    let mut to_host = crate::ring::Producer::attach(memory.to_host()).unwrap();
    to_host.write(&[&crate::frame::Prefix::Mark(1).to_bytes()]).unwrap();
    host.receiver.begin(false);
    assert!(host.receiver.recv().is_err());
    drop(worker);
}
