//! A process that other code forks has copies of pools, calls and handles, which are its parent's: whatever it does with them, its
//! parent's workers and tasks are as they were.
#![expect(unsafe_code, reason = "forks, as code of others does")]

use std::{path::Path, time::Duration};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use procession::{Handle, Pool, StartMethod, delayed, worker};

use crate::{
    alone::alone,
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
    // memory, whose locks the C library sees to, and for what is to be tested: that the library asks for nothing either.
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
fn a_copy_that_other_code_forks_harms_nothing_of_its_parents() {
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
            assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), std::process::id());
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
