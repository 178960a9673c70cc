//! Pools and processes at a limit of processes: it is lowered until no process can be started, and lifted again.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use procession::{Pool, Process, StartMethod, delayed, worker};

/// The time that a start may take. Long enough for one on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(3);

#[worker]
fn double(n: u64) -> u64 {
    n * 2
}

#[worker]
fn end() {
    std::process::abort();
}

/// Of this process and of those that it has started: at a limit of one, none can start another.
fn set_limit(most: libc::rlim_t) {
    let own = std::process::id();
    let mut all = vec![own];
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let children = fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    for pid in all {
        // Its hard limit stays, which this user may not raise again.
        let mut old = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: `old` is writable; nothing is set.
        unsafe { libc::prlimit(pid.cast_signed(), libc::RLIMIT_NPROC, std::ptr::null(), &raw mut old) };
        let limit = libc::rlimit { rlim_cur: most.min(old.rlim_max), rlim_max: old.rlim_max };
        // SAFETY: `limit` is readable; the old one is not asked for.
        unsafe {
            libc::prlimit(pid.cast_signed(), libc::RLIMIT_NPROC, &raw const limit, std::ptr::null_mut())
        };
    }
}

fn lift_limit() {
    set_limit(libc::RLIM_INFINITY);
}

pub(super) fn play(method: &str) {
    let method: StartMethod = method.parse().unwrap();
    let pool = Pool::builder().jobs(3).start_method(method).start_timeout(START_TIMEOUT).build().unwrap();
    let process = || Process::builder().name("p").start_method(method).start_timeout(START_TIMEOUT);
    // There is a template, and the thread that watches processes, from now on.
    assert_eq!(pool.submit(delayed!(double(1))).join().unwrap(), 2);
    let keep = process().spawn(delayed!(double(1))).unwrap();

    // One worker serves.
    set_limit(1);
    let doubles = pool.map((0..100).map(|n| delayed!(double(n)))).unwrap();
    assert!(doubles.into_iter().eq((0..100).map(|n| n * 2)));
    println!("a pool with a live worker works");
    let begun = Instant::now();
    println!("{}", pool.broadcast(delayed!(double(1))).unwrap_err());
    assert!(begun.elapsed() < START_TIMEOUT + Duration::from_secs(3), "{:?}", begun.elapsed());
    println!("{}", Pool::new(1).unwrap_err());

    // None does.
    assert!(pool.submit(delayed!(end())).join().unwrap_err().is_crash());
    while method == StartMethod::ForkServer && pool.submit(delayed!(end())).join().unwrap_err().is_crash() {
        // A worker that was made ahead.
    }
    for _ in 0..2 {
        let begun = Instant::now();
        let error = pool.submit(delayed!(double(2))).join().unwrap_err();
        assert!(error.is_lost(), "{error}");
        println!("{error}");
        let took = begun.elapsed();
        assert!(took < START_TIMEOUT + Duration::from_secs(3), "{took:?}");
    }
    let spawn = || process().spawn(delayed!(double(2)));
    // The first may be a process that was made ahead.
    let error = match spawn() {
        Ok(_) if method == StartMethod::ForkServer => spawn().unwrap_err(),
        spawned => spawned.unwrap_err(),
    };
    println!("{error}");

    // It is lifted while tasks wait.
    let waits = pool.submit(delayed!(double(3)));
    std::thread::sleep(Duration::from_millis(100));
    lift_limit();
    assert_eq!(waits.join().unwrap(), 6);
    assert_eq!(pool.map((0..100).map(|n| delayed!(double(n)))).unwrap().len(), 100);
    assert_eq!(process().spawn(delayed!(double(4))).unwrap().join().unwrap(), 8);
    println!("a pool works again once the limit is lifted");
    drop(keep);
}

/// At a limit of descriptors.
pub(super) fn play_with_few_files() {
    let pool = Pool::builder().jobs(1).start_timeout(START_TIMEOUT).build().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    println!("{}", pool.submit(delayed!(double(1))).join().unwrap_err());
    // A lazy call waits once, not once for each few of its tasks.
    let begun = Instant::now();
    let outcomes = pool.imap((0..500).map(|n| delayed!(double(n)))).chunk_size(1);
    assert_eq!(outcomes.filter(|outcome| outcome.as_ref().is_err_and(|error| error.is_lost())).count(), 500);
    assert!(begun.elapsed() < 2 * START_TIMEOUT + Duration::from_secs(3), "{:?}", begun.elapsed());
    println!("{}", Pool::new(1).unwrap_err());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(pool.submit(delayed!(double(1))).join().unwrap(), 2);
    println!("it works again");
}

/// Runs in a cgroup with a limit, which this file contains.
pub(super) fn play_in_group(limit: &str) {
    let pool = Pool::builder().jobs(1).start_timeout(START_TIMEOUT).build().unwrap();
    // This process has two threads; a worker would be the third task in the group, and its thread the fourth.
    for most in ["2", "3"] {
        fs::write(limit, most).unwrap();
        println!("{}", pool.submit(delayed!(double(1))).join().unwrap_err());
    }
    fs::write(limit, "max").unwrap();
    assert_eq!(pool.submit(delayed!(double(1))).join().unwrap(), 2);
    println!("it works again");
}
