//! Futexes: waiting until a word shared between processes changes, and waking the waiter.
//!
//! The transport uses it for its rings. The words are never private to one process, and a waiter always rechecks its condition.
#![expect(unsafe_code, reason = "system calls that nix does not wrap")]

use std::{io, ptr, time::Duration};

use nix::{errno::Errno, libc};

use crate::sync::AtomicU32;

/// Waits until this word is woken, as long as it has the expected value. Returns early for a signal, and sometimes without a
/// reason. Returns `false` when the time is up.
///
/// # Errors
///
/// The system call is refused.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX).into(),
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // Not FUTEX_PRIVATE_FLAG: the waker may be another process.
    // SAFETY: `word` is a valid, aligned word that outlives the call, and the kernel only reads it, atomically; `timeout` is null or
    // points to a timespec that outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_futex, address(word), libc::FUTEX_WAIT, expected, timeout) };
    if done == 0 {
        return Ok(true);
    }
    match Errno::last() {
        // The word has another value, or a signal arrived.
        Errno::EAGAIN | Errno::EINTR => Ok(true),
        Errno::ETIMEDOUT => Ok(false),
        error => Err(error.into()),
    }
}

/// Wakes one waiter of this word, in any process.
///
/// # Errors
///
/// The system call is refused.
pub(crate) fn wake(word: &AtomicU32) -> io::Result<()> {
    wake_some(word, 1)
}

/// Wakes all waiters of this word, in all processes.
///
/// # Errors
///
/// The system call is refused.
pub(crate) fn wake_all(word: &AtomicU32) -> io::Result<()> {
    wake_some(word, i32::MAX)
}

fn wake_some(word: &AtomicU32, most: i32) -> io::Result<()> {
    // SAFETY: the kernel uses the address of the word, which is valid, as a name and reads nothing of it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, address(word), libc::FUTEX_WAKE, most) };
    if woken < 0 { Err(Errno::last().into()) } else { Ok(()) }
}

/// Returns whether this process may make these calls. A system call filter may refuse them.
pub(crate) fn is_available() -> bool {
    let word = AtomicU32::new(0);
    wake(&word).is_ok() && wait(&word, 1, Some(Duration::ZERO)).is_ok()
}

fn address(word: &AtomicU32) -> *const u32 {
    ptr::from_ref(word).cast()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn a_sleeper_is_woken() {
        assert!(is_available());
        let word = Arc::new(AtomicU32::new(1));
        let sleeper = {
            let word = word.clone();
            thread::spawn(move || {
                while word.load(Ordering::Acquire) == 1 {
                    assert!(wait(&word, 1, Some(Duration::from_secs(20))).unwrap(), "no thread wakes it");
                }
            })
        };
        word.store(0, Ordering::Release);
        wake(&word).unwrap();
        sleeper.join().unwrap();
    }

    #[test]
    fn waiting_ends_with_the_time_and_with_another_value() {
        let word = AtomicU32::new(1);
        assert!(!wait(&word, 1, Some(Duration::from_millis(1))).unwrap());
        assert!(wait(&word, 2, None).unwrap());
    }
}
