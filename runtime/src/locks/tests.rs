//! Processes that die at each step, and what needs no other process.
#![expect(unsafe_code, reason = "copies of this process, which die")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::atomic::Ordering, time::Duration};

use nix::{
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

use super::*;
use crate::sync::steps::end_at;

/// Longer than anything here takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

fn another<H: Handle>(handle: &H) -> H {
    H::of(handle.state().again())
}

/// Starts a copy of this process, which does something and ends.
fn copy(run: impl FnOnce()) -> Pid {
    // SAFETY: the copy allocates at most, which it may do, and takes no lock of another thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            crate::sys::exit::end_now(0)
        }
    }
}

/// Waits for the end of a copy, which must be a kill.
fn was_killed(child: Pid) {
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false)));
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = deadline(LONG).unwrap();
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn threads_and_mappings_exclude_each_other() {
    let mutex = SharedMutex::new([0_u64; 2]).unwrap();
    let other = another(&mutex);
    std::thread::scope(|scope| {
        for handle in [&mutex, &mutex, &other] {
            scope.spawn(move || {
                for _ in 0..10_000 {
                    let mut both = handle.lock().unwrap();
                    both[0] += 1;
                    assert_eq!(both[0], both[1] + 1);
                    both[1] += 1;
                }
            });
        }
    });
    assert_eq!(*other.lock().unwrap(), [30_000; 2]);
}

/// Has a copy die at a step of taking and freeing a lock, of which another thread holds it at first and others want it at last.
fn die_with_mutex(label: &'static str, is_told: bool) {
    let mutex = SharedMutex::new(0_u32).unwrap();
    let is_taken = SharedAtomicBool::new(false).unwrap();
    let held = mutex.lock().unwrap();
    let child = copy(|| {
        end_at(label);
        let guard = mutex.lock();
        is_taken.store(true, Ordering::Relaxed);
        until("another wants the lock", || mutex.state().word(0).load(Ordering::Relaxed) > word::HOLDER);
        drop(guard);
    });
    let has_ended =
        || crate::sys::procfs::started(child.as_raw().unsigned_abs()).is_ok_and(|start| start.is_none());
    until("the copy waits", || has_ended() || mutex.state().word(0).load(Ordering::Relaxed) > word::HOLDER);
    drop(held);
    until("the copy has the lock", || has_ended() || is_taken.load(Ordering::Relaxed));
    let told = mutex.lock_timeout(LONG).unwrap_or_else(|| panic!("{label}: the lock is never free")).is_err();
    assert_eq!(told, is_told, "{label}");
    assert!(mutex.lock_timeout(LONG).unwrap().is_ok(), "{label}: the second one is not told");
    was_killed(child);
    is_clean(&mutex);
}

/// Checks that no process but this one has an entry.
fn is_clean(handle: &impl Handle) {
    handle.state().recover_those(|_| true);
    let entries = crate::segment::Entry::all().filter(|entry| handle.state().is_live(*entry)).count();
    assert_eq!(entries, 1);
}

#[test]
fn a_process_that_dies_at_any_step_of_a_mutex_keeps_nobody_waiting() {
    for label in
        ["attach: entered", "lock: wanted", "lock: announced", "lock: woken", "unlock: freed", "unlock: woke"]
    {
        die_with_mutex(label, false);
    }
    for label in ["lock: taken", "unlock: wanted"] {
        die_with_mutex(label, true);
    }
}
