//! Forks in code of users, once it is armed, and checks how the copy ends.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use procession::{Pool, delayed};

use super::{Outcome, echo};
use crate::{
    event::{until, within},
    leak::workers,
};

thread_local! {
    /// This thread makes the call.
    static IS_CALLER: Cell<bool> = const { Cell::new(false) };
}

/// The exit code of a copy that has found what it should.
pub(super) const FOUND: i32 = 7;

/// The number of tasks of a call.
pub(super) const TASKS: u64 = 300;

/// The code of users that forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    Logger = 1,
    Subscriber,
    Input,
    Deserialize,
    Waker,
    WakerClone,
    WakerDrop,
}

/// The code that forks next, or 0.
pub(super) static ARMED: AtomicU32 = AtomicU32::new(0);

/// The number of calls of that code before the one that forks.
static BEFORE: AtomicU32 = AtomicU32::new(0);

/// Only the thread that waits forks.
static ONLY_CALLER: AtomicBool = AtomicBool::new(true);

/// The copy, in its parent. -1 in the copy. 0 before.
pub(super) static COPY: AtomicI32 = AtomicI32::new(0);

/// Has the code of users fork, once.
pub(super) fn arm(code: Code, before: u32, only_caller: bool) {
    IS_CALLER.set(true);
    COPY.store(0, Ordering::Relaxed);
    BEFORE.store(before, Ordering::Relaxed);
    ONLY_CALLER.store(only_caller, Ordering::Relaxed);
    ARMED.store(code as u32, Ordering::Relaxed);
}

/// Called by all code of users. Takes no lock.
pub(super) fn user_code(code: Code) {
    let is_armed = ARMED.load(Ordering::Relaxed) == code as u32
        && (IS_CALLER.get() || !ONLY_CALLER.load(Ordering::Relaxed));
    if !is_armed || BEFORE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        return;
    }
    // Another thread may be in such code, too.
    if ARMED.compare_exchange(code as u32, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: the copy has this thread alone. It asks for nothing that another thread may have locked but memory, whose locks the C
    // library handles, and for the subject of the test: that this library needs nothing either.
    match unsafe { fork() }.expect("a copy of this process") {
        ForkResult::Child => COPY.store(-1, Ordering::Relaxed),
        ForkResult::Parent { child } => COPY.store(child.as_raw(), Ordering::Relaxed),
    }
}

/// Repeats the call until the code has forked, and returns the last outcome: the pool's own thread may have led instead of this one,
/// or the workers did not know yet that the host wants records. The outcomes before are passed to `right`.
pub(super) fn call_until_forked<T>(mut call: impl FnMut() -> T, mut right: impl FnMut(T)) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let outcome = call();
        if COPY.load(Ordering::Relaxed) != 0 || deadline < Instant::now() {
            ARMED.store(0, Ordering::Relaxed);
            return outcome;
        }
        right(outcome);
    }
}

pub(super) fn is_copy() -> bool {
    COPY.load(Ordering::Relaxed) == -1
}

/// Ends the copy at once.
fn leave(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Waits for the copy, which ends with this code.
pub(super) fn expect_copy_ends(what: &str, code: i32) {
    let pid = COPY.swap(0, Ordering::Relaxed);
    assert!(pid > 0, "{what}: there is a copy");
    let copy = Pid::from_raw(pid);
    let mut status = WaitStatus::StillAlive;
    let ended = within(Duration::from_secs(20), || {
        status = waitpid(copy, Some(WaitPidFlag::WNOHANG)).expect("it is this process's child");
        status != WaitStatus::StillAlive
    });
    if !ended {
        let _ = kill(copy, Signal::SIGKILL);
        let _ = waitpid(copy, None);
    }
    assert_eq!(status, WaitStatus::Exited(copy, code), "{what}");
}

/// As [`expect_copy_ends`], for a copy of this thread or of the pool's own, which ends with it.
pub(super) fn expect_copy_ended(what: &str) {
    let pid = COPY.swap(0, Ordering::Relaxed);
    assert!(pid > 0, "{what}: there is a copy");
    let pid = Pid::from_raw(pid);
    let mut status = WaitStatus::StillAlive;
    until("the copy ends", || {
        status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("it is this process's child");
        status != WaitStatus::StillAlive
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0 | FOUND)), "{what}: {status:?}");
}

/// In the copy: its call failed as it should, or `may_succeed`; the pool can be used and dropped. Then the copy ends.
pub(super) fn end_copy(
    what: &str,
    outcome: std::thread::Result<Outcome>,
    pool: Option<&Pool>,
    may_succeed: bool,
) -> ! {
    let checked = catch_unwind(AssertUnwindSafe(|| {
        match outcome.expect("no panic") {
            Err(words) => assert!(words.contains("this one was forked from"), "{words}"),
            Ok(values) => assert!(may_succeed, "the copy has {} results of its parent's", values.len()),
        }
        if let Some(pool) = pool {
            assert_eq!(
                pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap(),
                [0, 1, 2],
                "it has its own workers"
            );
            // SAFETY: the copy ends before the original, of which this is read, would be dropped a second time.
            drop(unsafe { std::ptr::read(pool) });
        }
    }));
    if checked.is_err() {
        eprintln!("this was the copy of: {what}");
    }
    leave(if checked.is_ok() { FOUND } else { 1 })
}

/// Makes a call while code of users forks and both processes return.
pub(super) fn check(
    pool: &Pool,
    what: &str,
    (code, before): (Code, u32),
    may_succeed: bool,
    call: impl Fn(&Pool) -> Outcome,
) {
    let what = format!("{what}: {code:?} forks after {before} calls");
    let pids = workers();
    // Input is read and results are decoded by the thread that calls. Whichever thread leads passes on what workers log, and the
    // pool's own thread leads between two waits. A copy of that ends with it.
    let leads_alone = matches!(code, Code::Input | Code::Deserialize)
        && !what.starts_with("submit")
        && !what.starts_with("stream");
    arm(code, before, leads_alone);
    let right = |outcome: std::thread::Result<Outcome>| {
        let values = outcome.expect("no panic").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(values.into_iter().eq(0..TASKS), "{what}: the parent has its results");
    };
    let outcome = call_until_forked(|| catch_unwind(AssertUnwindSafe(|| call(pool))), right);
    if is_copy() {
        end_copy(&what, outcome, Some(pool), may_succeed);
    }
    right(outcome);
    if leads_alone {
        expect_copy_ends(&what, FOUND);
    } else {
        expect_copy_ended(&what);
    }
    assert_eq!(workers(), pids, "{what}: the parent has its workers");
}
