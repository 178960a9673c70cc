//! One suite for every transport: what the layers above rely on.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{borrow::Cow, os::fd::AsFd, time::Duration};

use super::{FrameReceiver, FrameSender, Received, SocketTransport, Transport};
use crate::sys::fd::{Poller, stream_pair, wait_readable, write_one};

/// A transport's two ends: the one that never waits, and the one that does.
type Ends = (Box<dyn Transport>, Box<dyn Transport>);

fn sockets() -> Ends {
    let (host, worker) = stream_pair().unwrap();
    let host = SocketTransport::nonblocking(host).unwrap();
    (Box::new(host), Box::new(SocketTransport::blocking(worker.into())))
}

/// The next frame, waited for.
fn next(receiver: &mut dyn FrameReceiver) -> Option<Vec<u8>> {
    loop {
        receiver.begin();
        match receiver.recv().unwrap() {
            Received::Frame(frame) => return Some(frame.into_owned()),
            Received::Closed => return None,
            Received::Nothing => {}
        }
        assert!(wait_readable(receiver.poll_fd(), Duration::from_secs(20)).unwrap(), "nothing comes");
    }
}

/// Sends all that is queued as room is made.
fn flush(sender: &mut dyn FrameSender, poller: &Poller) {
    while sender.queued_bytes() > 0 {
        poller.wait(&mut Vec::new(), Some(Duration::from_secs(20))).unwrap();
        sender.flush().unwrap();
    }
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + salt) as u8).collect()
}

fn frames_of_every_size_arrive_whole_and_in_order((host, worker): Ends) {
    const SIZES: [usize; 12] = [0, 1, 7, 8, 9, 4095, 65_535, 65_536, 65_537, 1 << 20, 3, 5 << 20];
    let (mut to_worker, mut from_worker) = host.split();
    let (mut to_host, mut from_host) = worker.split();
    let echo = std::thread::spawn(move || {
        while let Some(frame) = next(&mut *from_host) {
            let (head, body) = frame.split_at(frame.len() / 2);
            to_host.send(head, Cow::Borrowed(body)).unwrap();
        }
    });
    // All is sent before anything is read: both directions fill up, and neither end waits for the other for ever.
    let poller = Poller::new().unwrap();
    poller.add(from_worker.poll_fd(), 0).unwrap();
    poller.set_writable(from_worker.poll_fd(), 0, true).unwrap();
    for (salt, len) in SIZES.into_iter().enumerate() {
        let frame = pattern(len, salt);
        let (head, body) = frame.split_at(len.min(13));
        to_worker.send(head, Cow::Borrowed(body)).unwrap();
    }
    let mut received = 0;
    while received < SIZES.len() {
        to_worker.flush().unwrap();
        from_worker.begin();
        while let Received::Frame(frame) = from_worker.recv().unwrap() {
            assert!(
                *frame == pattern(SIZES[received], received),
                "frame {received} of {} bytes",
                SIZES[received]
            );
            received += 1;
        }
    }
    flush(&mut *to_worker, &poller);
    to_worker.close();
    echo.join().unwrap();
    assert_eq!(next(&mut *from_worker), None, "the other end closed between two frames");
}

fn an_end_that_never_waits_says_so((host, worker): Ends) {
    let (_to_worker, mut from_worker) = host.split();
    let (mut to_host, _from_host) = worker.split();
    assert!(matches!(from_worker.recv().unwrap(), Received::Nothing));
    to_host.send(b"a", Cow::Borrowed(b"b")).unwrap();
    to_host.send(b"", Cow::Borrowed(b"")).unwrap();
    assert_eq!(next(&mut *from_worker).as_deref(), Some(&b"ab"[..]));
    assert_eq!(next(&mut *from_worker).as_deref(), Some(&b""[..]));
    from_worker.begin();
    assert!(matches!(from_worker.recv().unwrap(), Received::Nothing));
}

fn a_peer_that_is_gone_is_an_error_to_the_sender((host, worker): Ends) {
    let (mut to_worker, mut from_worker) = host.split();
    drop(worker);
    assert!(to_worker.send(b"a", Cow::Borrowed(&[])).is_err());
    assert_eq!(next(&mut *from_worker), None);
}

/// The suite, for one transport.
macro_rules! conformance {
    ($transport:ident: $($promise:ident)*) => {
        mod $transport {
            $(#[test]
            fn $promise() {
                super::$promise(super::$transport());
            })*
        }
    };
}

conformance! {
    sockets:
    frames_of_every_size_arrive_whole_and_in_order
    an_end_that_never_waits_says_so
    a_peer_that_is_gone_is_an_error_to_the_sender
}

#[test]
fn a_stream_that_ends_within_a_frame_is_an_error() {
    for sent in [1, 8, 9, 70_000] {
        let (host, peer) = stream_pair().unwrap();
        let mut bytes = 100_000u64.to_le_bytes().to_vec();
        bytes.resize(sent, 0);
        write_one(peer.as_fd(), &bytes).unwrap();
        drop(peer);
        let (_, mut receiver) =
            (Box::new(SocketTransport::nonblocking(host).unwrap()) as Box<dyn Transport>).split();
        // The first round may end with what had arrived, the second comes to the end.
        let first = receiver.recv().is_err();
        receiver.begin();
        assert!(first || receiver.recv().is_err(), "{sent} bytes");
    }
}

#[test]
fn a_length_that_no_frame_has_is_an_error_and_commits_no_memory() {
    for length in [1u64 << 49, u64::MAX, u64::from_le_bytes(*b"garbage!")] {
        let (host, peer) = stream_pair().unwrap();
        write_one(peer.as_fd(), &length.to_le_bytes()).unwrap();
        let (_, mut receiver) =
            (Box::new(SocketTransport::nonblocking(host).unwrap()) as Box<dyn Transport>).split();
        assert!(receiver.recv().is_err(), "{length}");
    }
    // A length that a frame may have is no reason to reserve so much.
    let (host, peer) = stream_pair().unwrap();
    write_one(peer.as_fd(), &(1u64 << 40).to_le_bytes()).unwrap();
    let (_, mut receiver) =
        (Box::new(SocketTransport::nonblocking(host).unwrap()) as Box<dyn Transport>).split();
    assert!(matches!(receiver.recv().unwrap(), Received::Nothing));
}
