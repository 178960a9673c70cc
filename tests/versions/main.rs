//! A program with two versions of procession. `life/versions.rs` makes it a package: there `twin` is a copy of procession under another
//! name and version.

use twin::{StartMethod, TaskError};

#[procession::worker]
fn ours(n: u64) -> (u64, u32) {
    (n + 1, std::process::id())
}

#[twin::worker(crate = twin)]
fn theirs(n: u64) -> (u64, u32) {
    (n + 2, std::process::id())
}

/// A worker of one version that uses a pool of the other: the result, and the two processes.
#[procession::worker]
fn ours_by_theirs(n: u64) -> (u64, u32, u32) {
    let pool = twin::Pool::new(1).expect("a pool in a worker of the other version");
    let outcome = pool.map([twin::delayed!(theirs(n))]).expect("a worker of a worker of the other version");
    (outcome[0].0, std::process::id(), outcome[0].1)
}

#[twin::worker(crate = twin)]
fn theirs_by_ours(n: u64) -> (u64, u32, u32) {
    let pool = procession::Pool::new(1).expect("a pool in a worker of the other version");
    let outcome = pool.map([procession::delayed!(ours(n))]).expect("a worker of a worker of the other version");
    (outcome[0].0, std::process::id(), outcome[0].1)
}

#[procession::worker]
fn variables() -> Vec<String> {
    std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("PROCESSION")).collect()
}

/// Workers of either version that start workers of the other, until they are refused: how many there were.
#[procession::worker]
fn deeper(depth: u32) -> u32 {
    match twin::Pool::new(1) {
        Ok(pool) => pool.map([twin::delayed!(and_deeper(depth + 1))]).expect("a worker of a worker")[0],
        Err(_) => depth,
    }
}

#[twin::worker(crate = twin)]
fn and_deeper(depth: u32) -> u32 {
    match procession::Pool::new(1) {
        Ok(pool) => pool.map([procession::delayed!(deeper(depth + 1))]).expect("a worker of a worker")[0],
        Err(_) => depth,
    }
}

fn main() {
    let host = std::process::id();

    // Side by side, and one after the other on the same workers.
    let pool = procession::Pool::new(2).expect("a pool of the one");
    let other = twin::Pool::new(2).expect("a pool of the other");
    for _ in 0..3 {
        let a = pool.map((0..100).map(|n| procession::delayed!(ours(n)))).expect("workers of the one");
        let b = other.map((0..100).map(|n| twin::delayed!(theirs(n)))).expect("workers of the other");
        for n in 0..100u64 {
            assert_eq!((a[n as usize].0, b[n as usize].0), (n + 1, n + 2));
            assert!(a[n as usize].1 != b[n as usize].1 && a[n as usize].1 != host && b[n as usize].1 != host);
        }
    }
    for start_method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let pool = twin::Pool::builder().jobs(1).start_method(start_method).build().expect("a pool of the other");
        let outcome: Result<Vec<_>, TaskError> = pool.imap([twin::delayed!(theirs(1))]).collect();
        assert_eq!(outcome.expect("a worker of the other")[0].0, 3);
    }

    // One in the other.
    let (n, one, two) = procession::parallel!(ours_by_theirs(5)).expect("a worker");
    assert!(n == 7 && one != host && two != host && one != two, "{n} {one} {two}");
    let (n, one, two) = twin::parallel!(theirs_by_ours(5)).expect("a worker");
    assert!(n == 6 && one != host && two != host && one != two, "{n} {one} {two}");
    let depth = procession::parallel!(deeper(1)).expect("a worker");
    assert_eq!(depth, 8, "both versions count how deep a process is");

    // Nothing of either's marker is passed on.
    let variables = procession::parallel!(variables()).expect("a worker");
    assert!(variables.iter().all(|name| !name.contains("WORKER")), "{variables:?}");
    println!("both versions are at work");
}
