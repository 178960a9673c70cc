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
use crate::{
    segment::Entry,
    sync::{step, steps::end_at},
    sys::procfs::started,
};

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
            // It ends in any case, also if it panics while another thread of the original holds std's lock.
            nix::unistd::alarm::set(60);
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

/// Has a copy of this process die at a step of taking something and giving it back. `held` is what others have of it at first, and `is_wanted`
/// tells whether one waits for it. Returns when the copy has taken it or has died.
fn die_at<'a, H: Handle, G>(
    label: &'static str,
    handle: &'a H,
    held: impl Sized,
    take: impl FnOnce(&'a H) -> G,
    is_wanted: impl Fn(u32) -> bool,
) -> Pid {
    let is_taken = SharedAtomicBool::new(false).unwrap();
    let is_wanted = || is_wanted(handle.state().word(0).load(Ordering::Relaxed));
    let child = copy(|| {
        end_at(label);
        let taken = take(handle);
        is_taken.store(true, Ordering::Relaxed);
        until("another wants it", is_wanted);
        drop(taken);
    });
    let has_ended = || started(child.as_raw().unsigned_abs()).is_ok_and(|start| start.is_none());
    let has_taken = || has_ended() || is_taken.load(Ordering::Relaxed);
    until("the copy waits", || has_taken() || is_wanted());
    drop(held);
    until("the copy has it", has_taken);
    child
}

/// Checks that no process but this one has an entry.
fn is_clean(handle: &impl Handle) {
    handle.state().recover_those(|_| true);
    assert_eq!(Entry::all().filter(|entry| handle.state().is_live(*entry)).count(), 1);
}

#[test]
fn a_process_that_dies_at_any_step_of_a_mutex_keeps_nobody_waiting() {
    let silent = [
        "attach: entered",
        "lock: wanted",
        "lock: announced",
        "lock: woken",
        "unlock: freed",
        "unlock: woke",
    ];
    let told = ["lock: taken", "unlock: wanted"];
    for label in silent.into_iter().chain(told) {
        let mutex = SharedMutex::new(0_u32).unwrap();
        let held = mutex.lock().unwrap();
        let child = die_at(label, &mutex, held, SharedMutex::lock, |word| word > word::HOLDER);
        let first = mutex.lock_timeout(LONG).unwrap_or_else(|| panic!("{label}: the lock is never free"));
        assert_eq!(first.is_err(), told.contains(&label), "{label}");
        drop(first);
        assert!(mutex.try_lock().unwrap().is_ok(), "{label}: the second one is not told");
        was_killed(child);
        is_clean(&mutex);
    }
}

#[test]
fn a_process_that_dies_at_any_step_of_reading_or_writing_keeps_nobody_waiting() {
    let is_wanted = |word| word & word::HOLDER != 0;
    for label in ["attach: entered", "read: counted", "read: uncounted"] {
        let lock = SharedRwLock::new(0_u32).unwrap();
        let child = die_at(label, &lock, (), SharedRwLock::read, is_wanted);
        assert!(lock.write_timeout(LONG).expect(label).is_ok());
        was_killed(child);
        is_clean(&lock);
    }
    let silent = ["lock: wanted", "lock: announced", "lock: woken", "unlock: freed"];
    let told = ["lock: taken", "unlock: wanted"];
    for label in silent.into_iter().chain(told) {
        let lock = SharedRwLock::new(0_u32).unwrap();
        let held = lock.write().unwrap();
        let child = die_at(label, &lock, held, SharedRwLock::write, |word| word > word::HOLDER);
        let first = lock.read_timeout(LONG).expect(label);
        assert_eq!(first.is_err(), told.contains(&label), "{label}");
        drop(first);
        assert!(lock.write_timeout(LONG).expect(label).is_ok(), "{label}: the second one is not told");
        was_killed(child);
        is_clean(&lock);
    }
}

#[test]
fn a_process_that_dies_at_any_step_of_a_semaphore_takes_no_permit_with_it() {
    let of_taking = ["attach: entered", "acquire: announced", "acquire: woken", "acquire: taken"];
    for label in of_taking.into_iter().chain(["release: given back", "release: counted", "release: woke"]) {
        let semaphore = SharedSemaphore::new(1).unwrap();
        let held = semaphore.acquire();
        let child = die_at(label, &semaphore, held, SharedSemaphore::acquire, |word| word & 0xffff != 0);
        drop(semaphore.acquire_timeout(LONG).expect(label));
        was_killed(child);
        is_clean(&semaphore);
        assert_eq!(semaphore.available_permits(), 1);
    }
}

#[test]
fn a_process_that_dies_at_a_barrier_breaks_it() {
    let barrier = SharedBarrier::new(3).unwrap();
    let child = die_at("barrier: arrived", &barrier, (), |barrier| barrier.clone().wait(), |_| false);
    assert!(barrier.wait().is_err());
    was_killed(child);
    is_clean(&barrier);
}

#[test]
fn what_a_process_holds_that_drops_its_handles_is_given_back() {
    let mutex = SharedMutex::new(0_u32).unwrap();
    for label in [None, Some("recovery: begun"), Some("recovery: repaired")] {
        let child = copy(|| {
            let handle = another(&mutex);
            std::mem::forget(handle.lock());
            label.into_iter().for_each(end_at);
            drop(handle);
        });
        let ended = waitpid(child, None).unwrap();
        assert_eq!(matches!(ended, WaitStatus::Signaled(..)), label.is_some());
        assert!(mutex.lock_timeout(LONG).unwrap().is_err(), "{label:?}");
        is_clean(&mutex);
    }
}

/// Has a copy die while it holds something, and another one at a step of the repair.
fn die_repairing<'a, H: Handle, G>(label: &'static str, handle: &'a H, take: impl FnOnce(&'a H) -> G) {
    let holder = copy(|| {
        end_at("the end");
        let _taken = take(handle);
        step("the end");
    });
    was_killed(holder);
    let repairer = copy(|| {
        end_at(label);
        handle.state().recover(holder.as_raw().unsigned_abs());
    });
    was_killed(repairer);
}

#[test]
fn a_repair_that_died_with_its_process_is_done_by_another() {
    for label in ["recovery: begun", "recovery: repaired"] {
        let mutex = SharedMutex::new(0_u32).unwrap();
        die_repairing(label, &mutex, SharedMutex::lock);
        assert!(mutex.lock_timeout(LONG).expect(label).is_err());
        is_clean(&mutex);
        assert!(mutex.lock().is_ok());
    }
    for label in ["recovery: begun", "recovery: readers are gone", "recovery: repaired"] {
        let lock = SharedRwLock::new(0_u32).unwrap();
        die_repairing(label, &lock, SharedRwLock::read);
        assert!(lock.write_timeout(LONG).expect(label).is_ok());
        is_clean(&lock);
    }
    for label in ["recovery: begun", "recovery: a permit is given back", "recovery: repaired"] {
        let semaphore = SharedSemaphore::new(3).unwrap();
        die_repairing(label, &semaphore, |semaphore| {
            [semaphore.acquire(), semaphore.acquire()].map(std::mem::forget)
        });
        let permits = [(); 3].map(|()| semaphore.acquire_timeout(LONG).expect(label));
        drop(permits);
        is_clean(&semaphore);
    }
    for label in ["recovery: begun", "recovery: the barrier is broken", "recovery: repaired"] {
        let barrier = SharedBarrier::new(2).unwrap();
        die_repairing(label, &barrier, Clone::clone);
        assert!(barrier.wait().is_err(), "{label}");
        is_clean(&barrier);
    }
}

#[test]
fn a_process_that_dies_waiting_for_a_condition_wakes_the_others() {
    let (mutex, condvar) = (SharedMutex::new(0_u32).unwrap(), SharedCondvar::new().unwrap());
    let child = copy(|| {
        let mut waits = mutex.lock().unwrap();
        *waits = 1;
        let _ = condvar.wait(waits);
    });
    until("the copy waits", || *mutex.lock().unwrap() == 1);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| drop(condvar.wait(mutex.lock().unwrap()).unwrap()));
        until("both wait", || condvar.state().word(1).load(Ordering::Relaxed) == 1);
        nix::sys::signal::kill(child, Signal::SIGKILL).unwrap();
        other.join().unwrap();
    });
    was_killed(child);
}
