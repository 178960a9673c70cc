//! Large values: what they take is given back.

use std::time::Duration;

use procession::{Pool, delayed, worker};

use crate::{
    alone::alone,
    event::{take_time, until},
};

/// Returns the sum of some of the bytes: all of them would take a while in a debug build.
#[worker]
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(61).map(|&byte| u64::from(byte)).sum()
}

#[worker]
fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

#[worker]
fn join(first: Vec<u8>, second: Vec<u8>, last: u8) -> Vec<u8> {
    [&first[..], &second, &[last]].concat()
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// A process's own memory, files' and shared memory not counted, in bytes.
fn own_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says so");
    kib.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn some(len_bytes: usize) -> Vec<u8> {
    let piece: Vec<u8> = (0..251 * 256).map(|n| (n * 7 + n / 251) as u8).collect();
    let mut bytes = piece.repeat(len_bytes / piece.len() + 1);
    bytes.truncate(len_bytes);
    bytes
}

#[test]
fn the_memory_of_large_values_is_given_back_after_a_rest() {
    const LEN: usize = 48 << 20;
    const LITTLE: u64 = 12 << 20;
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let pids = [pool.submit(delayed!(pid())).join().unwrap(), std::process::id()];
        let before = pids.map(own_bytes);
        for round in 0..2 {
            // The buffer that was kept from the previous round may be used or not.
            take_time(Duration::from_millis(round * 700));
            let bytes = some(LEN);
            let expected = sum(&bytes);
            assert_eq!(pool.submit(delayed!(sum(&bytes))).join().unwrap(), expected);
            let back = pool.submit(delayed!(reverse(bytes.clone()))).join().unwrap();
            assert!(back.iter().rev().eq(&bytes));
            assert_eq!(pool.submit(delayed!(sum(&bytes))).join().unwrap(), expected);
        }
        for (pid, before) in pids.into_iter().zip(before) {
            until("the memory is given back", || own_bytes(pid) < before + LITTLE);
        }
    });
}

#[test]
fn large_values_of_every_size_arrive_unchanged_in_new_and_reused_memory() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        // Around the sizes from which on values take another way, up and down, so that memory that was used before fits and does not.
        let sizes =
            [1, 32 << 10, 80 << 10, 256 << 10, 1 << 20, 5 << 20, 3 << 20, 2 << 20, 1 << 20, 256 << 10];
        for len in sizes.into_iter().flat_map(|len| [len - 1, len]) {
            let bytes = some(len);
            let expected = sum(&bytes);
            assert_eq!(pool.submit(delayed!(sum(&bytes))).join().unwrap(), expected, "{len}");
            let back = pool.submit(delayed!(reverse(bytes.clone()))).join().unwrap();
            assert!(back.iter().rev().eq(&bytes), "{len}");
            let small = some(len % 100);
            for (first, second) in [(&bytes, &small), (&small, &bytes), (&bytes, &bytes)] {
                let joined = pool.submit(delayed!(join(first.clone(), second.clone(), 9))).join().unwrap();
                assert_eq!(joined.len(), first.len() + second.len() + 1, "{len}");
                assert!(joined == [&first[..], second, &[9]].concat(), "{len}");
            }
            assert!(delayed!(reverse(bytes.clone())).call().unwrap().iter().rev().eq(&bytes), "{len}");
            let both = pool.broadcast(delayed!(reverse(bytes.clone()))).unwrap();
            assert!(both.iter().all(|back| back.iter().rev().eq(&bytes)), "{len}");
        }
    });
}
