//! Unit tests: the ends within this process, and participants that die at each step.
#![expect(unsafe_code, reason = "participants that die are copies of this process")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pause},
};

use super::{slots::Step, *};

/// Where this process dies: one more than the number of a step. Only copies of the test's process do.
static DIES_AT: AtomicU32 = AtomicU32::new(0);

/// This is a copy of the test's process.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Called at each step of each channel of this process.
pub(super) fn at_step(step: Step) {
    if DIES_AT.load(Ordering::Relaxed) == step as u32 + 1 {
        raise(Signal::SIGKILL).unwrap();
    }
}

/// Runs this in a copy of this process, until it dies at a step or is done.
fn in_a_copy(step: Option<Step>, live: impl FnOnce()) -> Pid {
    // SAFETY: the copy uses atomics, memory and futexes only, and ends here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            IS_COPY.store(true, Ordering::Relaxed);
            DIES_AT.store(step.map_or(0, |step| step as u32 + 1), Ordering::Relaxed);
            live();
            loop {
                pause();
            }
        }
    }
}

/// Waits until a copy has died where it was to.
fn buried(copy: Pid) {
    assert_eq!(waitpid(copy, None), Ok(WaitStatus::Signaled(copy, Signal::SIGKILL, false)));
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn messages_go_round_many_times_in_order() {
    for capacity in [1, 2, 3, 7, 64] {
        let (tx, rx) = channel(capacity).unwrap();
        assert_eq!((tx.capacity(), rx.capacity()), (capacity, capacity));
        let sender = thread::spawn(move || (0..20_000_u64).for_each(|n| tx.send(n).unwrap()));
        assert!(rx.into_iter().eq(0..20_000), "with room for {capacity}");
        sender.join().unwrap();
    }
}

#[test]
fn a_channel_has_room_for_as_many_messages_as_was_asked_and_for_some() {
    for capacity in [1, 5] {
        let (tx, rx) = channel(capacity).unwrap();
        for round in 0..3 {
            (0..capacity).for_each(|n| tx.try_send(n).unwrap());
            assert!(matches!(tx.try_send(7), Err(TrySendError::Full(7))), "in round {round}");
            assert!(rx.try_iter().eq(0..capacity));
        }
    }
    for capacity in [0, MOST_MESSAGES + 1] {
        let refused = channel::<u8>(capacity).unwrap_err().to_string();
        assert!(refused.contains("it can have room for 1 to 16777216"), "{refused}");
    }
}

#[test]
fn each_message_of_many_senders_is_received_once_by_many_receivers() {
    let (tx, rx) = channel(8).unwrap();
    let receivers: Vec<_> = (0..3).map(|_| rx.clone()).collect();
    drop(rx);
    let mut all: Vec<u64> = thread::scope(|scope| {
        for sender in 0..3 {
            let tx = tx.clone();
            scope.spawn(move || (0..5000).for_each(|n| tx.send(3 * n + sender).unwrap()));
        }
        drop(tx);
        let receivers: Vec<_> =
            receivers.into_iter().map(|rx| scope.spawn(move || rx.iter().collect::<Vec<_>>())).collect();
        receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert!(all.into_iter().eq(0..15_000));
}

#[test]
fn waiting_ends_with_the_time_and_with_the_last_opposite_end() {
    let (tx, rx) = channel(1).unwrap();
    let short = Duration::from_millis(5);
    assert!(matches!(rx.recv_timeout(short), Err(RecvTimeoutError::Timeout)));
    tx.send(1).unwrap();
    assert!(matches!(tx.send_timeout(2, short), Err(SendTimeoutError::Timeout(2))));
    let (again, other) = (tx.clone(), rx.clone());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| again.send(3));
        drop((rx, other));
        assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    });
    let (tx, rx) = channel::<u8>(1).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rx.recv());
        drop(tx);
        assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    });
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
}

#[test]
fn a_sender_that_dies_leaves_a_whole_message_or_none_and_others_go_on() {
    for (step, is_sent) in [(Step::Claimed, false), (Step::Written, false), (Step::Published, true)] {
        let (tx, rx) = channel(2).unwrap();
        buried(in_a_copy(Some(step), || drop(tx.send("dying".to_owned()))));
        // Nobody says that it has died. They find out.
        for n in 0..4 {
            let other = n.to_string();
            thread::scope(|scope| {
                scope.spawn(|| tx.send_timeout(other.clone(), SOON).unwrap());
                if n == 0 && is_sent {
                    assert_eq!(rx.recv_timeout(SOON).unwrap(), "dying", "it died at {step:?}");
                }
                assert_eq!(rx.recv_timeout(SOON).unwrap(), other, "after one died at {step:?}");
            });
        }
    }
}

#[test]
fn a_message_whose_receiver_dies_is_received_again_unless_its_recv_was_done() {
    for (step, is_back) in [(Step::Taken, true), (Step::Copied, true), (Step::Finished, false)] {
        let (tx, rx) = channel(2).unwrap();
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        buried(in_a_copy(Some(step), || drop(rx.recv())));
        drop(tx);
        let mut received: Vec<u64> = rx.iter().collect();
        // A message that comes back may come after later ones.
        received.sort_unstable();
        assert_eq!(received, if is_back { &[1, 2][..] } else { &[2] }, "it died at {step:?}");
    }
}

#[test]
fn a_message_that_was_taken_by_one_that_lives_may_come_back() {
    /// A message whose decoding takes until the process is killed, in copies of the test's process.
    #[derive(Debug, serde::Serialize)]
    struct Slow;
    impl<'de> serde::Deserialize<'de> for Slow {
        fn deserialize<D: serde::Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
            while IS_COPY.load(Ordering::Relaxed) {
                pause();
            }
            <()>::deserialize(decoder).map(|()| Self)
        }
    }
    let (tx, rx) = channel(2).unwrap();
    tx.send(Slow).unwrap();
    let reading = in_a_copy(None, || drop(rx.recv()));
    while !rx.end.is_empty() {
        thread::yield_now();
    }
    drop(tx);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)), "it may come back");
    kill(reading, Signal::SIGKILL).unwrap();
    buried(reading);
    rx.recv_timeout(SOON).unwrap();
    assert!(rx.recv().unwrap_err().is_disconnected());
}

#[test]
fn ends_of_a_copy_count_from_their_first_use_until_it_dies() {
    let (tx, rx) = channel::<u32>(4).unwrap();
    let copy = in_a_copy(None, || tx.send(7).unwrap());
    assert_eq!(rx.recv_timeout(SOON).unwrap(), 7);
    drop(tx);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)), "the copy has one");
    kill(copy, Signal::SIGKILL).unwrap();
    buried(copy);
    let start = Instant::now();
    assert!(rx.recv().unwrap_err().is_disconnected());
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_message_that_cannot_be_decoded_is_an_error_and_makes_room() {
    #[derive(Debug, serde::Serialize)]
    struct Lost;
    impl<'de> serde::Deserialize<'de> for Lost {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("it is lost"))
        }
    }
    let (tx, rx) = channel(1).unwrap();
    for _ in 0..3 {
        tx.try_send(Lost).unwrap();
        let error = rx.recv().unwrap_err().to_string();
        assert!(error.contains("a message that was received: `"), "{error}");
    }
}

#[test]
fn long_messages_and_messages_with_ends_are_received_in_order_within_the_bound() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Letter {
        text: Vec<u8>,
        reply: Option<Sender<usize>>,
    }
    let (tx, rx) = channel(3).unwrap();
    let (reply, replies) = channel(8).unwrap();
    let lens = [10, 100_000, 20, 5_000, 1 << 20, 0];
    let sender = thread::spawn(move || {
        for (n, len) in lens.into_iter().enumerate() {
            let reply = (n >= 3).then(|| reply.clone());
            tx.send(Letter { text: vec![n as u8; len], reply }).unwrap();
        }
        assert!(tx.send_timeout(Letter { text: vec![9], reply: None }, SOON).is_ok());
    });
    for (n, len) in lens.into_iter().enumerate() {
        let letter = rx.recv_timeout(SOON).unwrap();
        assert!(letter.text.len() == len && letter.text.iter().all(|byte| *byte == n as u8), "{n}");
        if let Some(reply) = letter.reply {
            reply.send(n).unwrap();
        }
    }
    assert_eq!(rx.recv_timeout(SOON).unwrap().text, [9]);
    sender.join().unwrap();
    assert!(rx.recv().is_err_and(|error| error.is_disconnected()));
    assert!(replies.iter().eq([3, 4, 5]), "no end is left");
}

#[test]
fn the_bound_holds_for_long_messages() {
    let (tx, rx) = channel(2).unwrap();
    let long = vec![7_u8; 50_000];
    tx.try_send(vec![1]).unwrap();
    tx.try_send(long.clone()).unwrap();
    for _ in 0..3 {
        assert!(matches!(tx.try_send(vec![3]), Err(TrySendError::Full(_))));
        assert!(!rx.recv().unwrap().is_empty());
        tx.try_send(long.clone()).unwrap();
    }
}

#[test]
fn a_long_message_whose_receiver_dies_is_received_again() {
    for step in [Step::Taken, Step::Copied] {
        let (tx, rx) = channel(2).unwrap();
        tx.send(vec![1_u8; 50_000]).unwrap();
        buried(in_a_copy(Some(step), || drop(rx.recv())));
        drop(tx);
        assert_eq!(rx.recv_timeout(SOON).unwrap().len(), 50_000);
        assert!(rx.recv().unwrap_err().is_disconnected());
    }
}

#[test]
fn others_go_on_if_a_sender_of_long_messages_dies() {
    for (step, is_sent) in [(Step::Claimed, false), (Step::Published, true)] {
        let (tx, rx) = channel(2).unwrap();
        let long = |n: u8| vec![n; 50_000];
        buried(in_a_copy(Some(step), || drop(tx.send(long(1)))));
        tx.send_timeout(long(2), SOON).unwrap();
        if is_sent {
            assert_eq!(rx.recv_timeout(SOON).unwrap(), long(1), "it died at {step:?}");
        }
        assert_eq!(rx.recv_timeout(SOON).unwrap(), long(2), "after one died at {step:?}");
        for n in 0..4 {
            tx.send_timeout(long(n), SOON).unwrap();
            assert_eq!(rx.recv_timeout(SOON).unwrap(), long(n), "there is room");
        }
    }
}

#[test]
fn an_end_in_a_message_counts_until_nobody_can_receive_it() {
    let (tx, rx) = channel::<Sender<u8>>(2).unwrap();
    let (inner, from_inner) = channel(2).unwrap();
    inner.send(1).unwrap();
    tx.send(inner).unwrap();
    assert!(from_inner.try_iter().eq([1]));
    assert!(matches!(from_inner.try_recv(), Err(TryRecvError::Empty)), "there is one in a message");
    let arrived = rx.recv().unwrap();
    arrived.send(2).unwrap();
    tx.send(arrived).unwrap();
    assert_eq!(from_inner.recv().unwrap(), 2);
    drop((tx, rx));
    assert!(from_inner.recv().unwrap_err().is_disconnected());
}

#[cfg(feature = "futures")]
#[test]
fn a_death_that_nobody_notices_wakes_futures() {
    let (tx, rx) = channel(1).unwrap();
    let copy = in_a_copy(Some(Step::Published), || drop(tx.send(1)));
    pollster::block_on(async {
        assert_eq!(rx.recv_async().await.unwrap(), 1);
        drop(tx);
        assert!(rx.recv_async().await.unwrap_err().is_disconnected());
    });
    buried(copy);
}
