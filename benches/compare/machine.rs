//! The limits of the machine: bare round trips, copies, and the encoding alone.

use std::{
    hint::black_box,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::Instant,
};

use procession_benches::BareChild;

use crate::{
    futex::{Manner, Peer},
    timing::{self, LARGE_BYTES, Outcome, Size, add_one, hot, rate, rested, throughput},
};

/// Round trips between two processes, one after another and after rests.
pub(crate) fn ping(size: &Size) -> Outcome {
    let mut sleeping = Peer::start(Manner::Sleep);
    let mut figures = vec![
        ("futex", hot(size, 20_000, || sleeping.ping())),
        ("futex_rested", rested(size, || sleeping.ping())),
    ];
    drop(sleeping);
    // A request and a reply of a call are some 40 bytes.
    let mut bytes = [7; 40];
    let mut socket = BareChild::echo();
    figures.push(("socket", hot(size, 20_000, || socket.ping(&mut bytes))));
    figures.push(("socket_rested", rested(size, || socket.ping(&mut bytes))));
    drop(socket);
    let mut pipes = Pipes::start();
    figures.push(("pipe", hot(size, 20_000, || pipes.ping(&mut bytes))));
    Ok(figures)
}

/// The round trip of two processes that both spin.
pub(crate) fn spinning(size: &Size) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("two processes cannot spin on one core".to_owned());
    }
    let mut peer = Peer::start(Manner::Spin);
    Ok(vec![("futex", hot(size, 100_000, || peer.ping()))])
}

/// `cat`, and a pipe each way.
struct Pipes(Child);

impl Pipes {
    fn start() -> Self {
        let mut cat = Command::new("cat");
        Self(cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`cat` is everywhere"))
    }

    fn ping(&mut self, bytes: &mut [u8]) {
        let Child { stdin: Some(there), stdout: Some(back), .. } = &mut self.0 else {
            unreachable!("both are pipes")
        };
        there.write_all(bytes).expect("cat reads");
        back.read_exact(bytes).expect("cat writes");
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.0.stdin = None;
        let _ = self.0.wait();
    }
}

/// A copy of a large slice, into memory that was touched and into memory that was not.
pub(crate) fn copy(size: &Size) -> Outcome {
    let bytes = size.bytes(LARGE_BYTES);
    let from = vec![1u8; bytes];
    let mut to = vec![2u8; bytes];
    let warm = throughput(size, bytes, || black_box(&mut to).copy_from_slice(black_box(&from)));
    let fresh = throughput(size, bytes, || drop(black_box(black_box(&from).clone())));
    Ok(vec![("warm", warm), ("fresh", fresh)])
}

/// Argument and result encoded and decoded, with the call between them, by one thread.
pub(crate) fn encoding(size: &Size) -> Outcome {
    let rate = rate(size, size.tasks(5_000_000), |tasks| {
        let start = Instant::now();
        let mut bytes = [0; 16];
        for n in 0..tasks {
            let arg: u64 =
                postcard::from_bytes(black_box(encode(n, &mut bytes))).expect("it was encoded here");
            let result = add_one(arg);
            let result: u64 =
                postcard::from_bytes(black_box(encode(result, &mut bytes))).expect("so was this");
            assert_eq!(result, n + 1);
        }
        start.elapsed()
    });
    Ok(vec![("rate", rate)])
}

fn encode(n: u64, bytes: &mut [u8; 16]) -> &[u8] {
    postcard::to_slice(&n, bytes).expect("a number takes at most ten bytes")
}

/// Measures what two cores do more than one, with threads that share nothing.
pub(crate) fn two(size: &Size) -> Outcome {
    let rounds = timing::spin_rounds(size) * timing::SPINS;
    let run = |threads: u64| {
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(|| black_box(timing::spin(rounds / threads)))));
        });
    };
    Ok(vec![("gain", timing::gain(size, || run(1), || run(2)))])
}
