//! A process that other code forks has copies of its parent's pools, calls and handles. Whatever it does with them, the parent's workers
//! and tasks are not affected.
#![expect(unsafe_code, reason = "forks, as code of others does")]

use std::{
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use procession::{Handle, Pool, Process, StartMethod, TaskError, delayed, parallel, rng_seed, worker};

use crate::{
    alone::{alone, alone_in_one_thread, alone_with_warm_pool},
    event::{take_time, until, until_exists, within},
    leak::workers,
    scratch::Folder,
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn wait_for(file: &Path, n: u64) -> u64 {
    until_exists(file);
    n
}

/// Runs `body` in a copy of this process, which ends well, and soon.
fn in_a_copy(what: &str, body: impl FnOnce()) {
    // SAFETY: the copy has one thread, which runs `body` and ends it. It asks for nothing that another thread may have had locked but
    // memory, whose locks the C library handles, and for the subject of the test: that this library needs nothing either.
    match unsafe { fork() }.expect("a copy of this process") {
        ForkResult::Child => {
            body();
            leave();
        }
        ForkResult::Parent { child } => {
            let look = WaitPidFlag::WNOHANG;
            let mut status = WaitStatus::StillAlive;
            let ended = within(Duration::from_secs(20), || {
                status = waitpid(child, Some(look)).expect("it is this process's child");
                status != WaitStatus::StillAlive
            });
            if !ended {
                let _ = kill(child, Signal::SIGKILL);
                let _ = waitpid(child, None);
            }
            assert_eq!(status, WaitStatus::Exited(child, 0), "{what}");
        }
    }
}

#[expect(clippy::exit, reason = "what runs at the end of a process is to run")]
fn leave() -> ! {
    std::process::exit(0)
}

/// As [`in_a_copy`], which drops the copy of this.
fn drop_in_a_copy<T>(what: &str, value: &T) {
    in_a_copy(what, || {
        // SAFETY: the copy ends before the original, of which this is read, would be dropped a second time.
        drop(unsafe { std::ptr::read(value) });
    });
}

#[test]
fn a_copy_that_other_code_forks_does_not_harm_its_parent() {
    alone(|| {
        let folder = Folder::new();
        let (now, go) = (folder.path("now"), folder.path("go"));
        std::fs::write(&now, "").unwrap();
        let pool = Pool::new(2).unwrap();
        let mut stream = pool.imap((0..200).map(|n| delayed!(wait_for(if n == 0 { &now } else { &go }, n))));
        assert_eq!(stream.next().unwrap().unwrap(), 0);
        // Tasks of both run, and wait.
        let handles: Vec<Handle<u64>> = (0..20).map(|n| pool.submit(delayed!(wait_for(&go, n)))).collect();
        until("both workers are there", || workers().len() == 2);
        let pids = workers();
        in_a_copy("it ends at once", || {});
        in_a_copy("it cancels every handle", || handles.iter().for_each(Handle::cancel));
        in_a_copy("it asks every handle", || assert!(!handles.iter().any(Handle::is_finished)));
        in_a_copy("it gives the pool work", || {
            assert_eq!(pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap(), [0, 1, 2]);
            let pid = pool.submit(delayed!(pid())).join().unwrap();
            assert!(pid != std::process::id() && !pids.contains(&pid), "it has workers of its own");
        });
        drop_in_a_copy("it drops the handles", &handles);
        drop_in_a_copy("it drops the iterator", &stream);
        drop_in_a_copy("it drops the pool", &pool);
        in_a_copy("it makes a pool of its own", || {
            let own = Pool::builder().jobs(1).start_method(StartMethod::Spawn).build().unwrap();
            assert_ne!(own.broadcast(delayed!(pid())).unwrap(), [std::process::id()]);
        });
        // What a kill or a close would do takes a moment to be seen.
        take_time(Duration::from_millis(50));
        assert_eq!(workers(), pids, "the same workers serve");
        std::fs::write(&go, "").unwrap();
        assert!(stream.map(Result::unwrap).eq(1..200));
        assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(0..20));
        assert_eq!(workers(), pids);
    });
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn abort() {
    std::process::abort();
}

static LOADED: OnceLock<u32> = OnceLock::new();

/// Notes which process it runs in.
#[worker]
fn load() {
    LOADED.set(std::process::id()).expect("a process loads once");
}

#[worker]
fn look_around() -> (Option<String>, Option<u32>, u64) {
    (std::env::var("KEPT").ok(), LOADED.get().copied(), rng_seed())
}

fn methods() -> [StartMethod; 3] {
    [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork]
}

#[test]
fn a_pool_that_is_used_in_a_copy_starts_workers_of_its_own_with_the_same_settings() {
    alone_in_one_thread(|| {
        for method in methods() {
            let builder = Pool::builder().jobs(2).env("KEPT", "1").seed(7).start_method(method);
            let pool = match method {
                StartMethod::Spawn => builder.initializer(delayed!(load())),
                _ => builder.preload(delayed!(load())),
            };
            let pool = pool.build().unwrap();
            let (_, loaded, _) = pool.submit(delayed!(look_around())).join().unwrap();
            let pids = pool.broadcast(delayed!(pid())).unwrap();
            for n in 0..2 {
                drop_in_a_copy(&format!("{method:?}: copy {n} uses the pool and drops it"), &pool);
                in_a_copy(&format!("{method:?}: copy {n} uses the pool"), || {
                    assert_eq!(pool.jobs(), 2);
                    let own = pool.broadcast(delayed!(pid())).unwrap();
                    assert!(!own.iter().any(|pid| *pid == std::process::id() || pids.contains(pid)));
                    let found = pool.map((0..20).map(|_| delayed!(look_around()))).unwrap();
                    assert!(found.iter().all(|(kept, _, _)| kept.as_deref() == Some("1")));
                    assert!(found.iter().all(|(_, of, _)| of.is_some() && *of != loaded), "loaded anew");
                    assert!(pool.submit(delayed!(abort())).join().unwrap_err().is_crash());
                    assert_eq!(
                        pool.imap((0..9).map(|n| delayed!(echo(n)))).map(Result::unwrap).sum::<u64>(),
                        36
                    );
                    pool.resize(1).unwrap();
                    assert_eq!((pool.jobs(), pool.stats().workers().len()), (1, 2));
                });
            }
            assert_eq!(pool.broadcast(delayed!(pid())).unwrap(), pids, "the original has what it had");
        }
    });
}

#[test]
fn a_copy_has_a_pool_of_its_own_behind_parallel() {
    alone_with_warm_pool(|| {
        let pid_of_worker = || parallel!(jobs = 1; pid()).unwrap();
        let own = pid_of_worker();
        in_a_copy("it calls", || {
            let pid = pid_of_worker();
            assert!(pid != own && pid != std::process::id());
            assert!(parallel!(abort() for _ in 0..1).is_err());
        });
        assert_eq!(pid_of_worker(), own);
    });
}

#[test]
fn a_task_submitted_before_a_copy_was_made_is_an_error_there_unless_it_has_ended() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let pool = Pool::new(2).unwrap();
        let done = pool.submit(delayed!(echo(7)));
        until("a result is there", || done.is_finished());
        let handle = pool.submit(delayed!(wait_for(&go, 1)));
        let stream = pool.imap((0..).map(|n| delayed!(wait_for(&go, n))));
        let unordered = pool.imap_unordered((0..3).map(|n| delayed!(wait_for(&go, n))));
        let process = Process::spawn(delayed!(wait_for(&go, 2))).unwrap();
        in_a_copy("it asks for all of it", || {
            // SAFETY: the copy ends before the originals, of which these are read, would be dropped a second time.
            let done = unsafe { std::ptr::read(&raw const done) };
            assert_eq!(done.join().unwrap(), 7);
            // SAFETY: as above.
            let handle = unsafe { std::ptr::read(&raw const handle) };
            let says_so = |error: TaskError| {
                assert!(error.is_lost() && error.to_string().contains("this one was forked from"), "{error}");
            };
            says_so(handle.join().unwrap_err());
            // SAFETY: as above.
            let mut stream = unsafe { std::ptr::read(&raw const stream) };
            says_so(stream.next().unwrap().unwrap_err());
            assert!(stream.next().is_none());
            // SAFETY: as above.
            let mut unordered = unsafe { std::ptr::read(&raw const unordered) };
            says_so(unordered.next().unwrap().1.unwrap_err());
            assert!(unordered.next().is_none());
            // SAFETY: as above.
            let mut process = unsafe { std::ptr::read(&raw const process) };
            says_so(process.join().unwrap_err());
            assert!(process.terminate().is_err() && process.kill().is_err());
            drop(process);
            assert_eq!(Process::spawn(delayed!(echo(3))).unwrap().join().unwrap(), 3, "its own");
        });
        assert!(process.is_alive());
        std::fs::write(&go, "").unwrap();
        assert_eq!(handle.join().unwrap(), 1);
        let mut process = process;
        assert_eq!(process.join().unwrap(), 2);
        drop((stream, unordered));
    });
}

#[test]
fn the_error_of_a_copy_that_cannot_have_workers_says_what_to_do() {
    alone_in_one_thread(|| {
        let pool = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap();
        assert_ne!(pool.submit(delayed!(pid())).join().unwrap(), std::process::id());
        in_a_copy("it has a second thread", || {
            let (waits, _until_the_end) = std::sync::mpsc::channel::<()>();
            let _second = std::thread::spawn(move || {
                let _waits = waits;
                std::thread::park();
            });
            let says_so = |words: String| {
                assert!(
                    words.contains("forked from") && words.contains("build a pool in this process"),
                    "{words}"
                );
            };
            says_so(pool.submit(delayed!(pid())).join().unwrap_err().to_string());
            says_so(pool.map([delayed!(pid())]).unwrap_err().to_string());
            says_so(pool.broadcast(delayed!(pid())).unwrap_err().to_string());
            says_so(pool.resize(2).unwrap_err().to_string());
            assert_eq!(pool.jobs(), 1);
        });
    });
}

#[test]
fn a_copy_that_is_made_while_other_threads_use_the_pool_waits_for_none_of_their_locks() {
    alone_with_warm_pool(|| {
        let pool = Pool::builder().jobs(2).start_method(StartMethod::Spawn).build().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let handles: Vec<_> = (0..50).map(|n| pool.submit(delayed!(echo(n)))).collect();
                        assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(0..50));
                        assert_eq!(pool.map((0..50).map(|n| delayed!(echo(n)))).unwrap().len(), 50);
                    }
                });
            }
            for n in 0..20 {
                in_a_copy(&format!("copy {n}"), || {
                    assert_eq!(pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap(), [0, 1, 2]);
                    assert_eq!(Process::spawn(delayed!(echo(3))).unwrap().join().unwrap(), 3);
                    // SAFETY: the copy ends before the original would be dropped a second time.
                    drop(unsafe { std::ptr::read(&raw const pool) });
                });
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}
