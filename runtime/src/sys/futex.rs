//! Futexes: waiting until a word shared between processes changes, and waking the waiter.
//!
//! The transport uses it for its rings. The words are never private to one process, and a waiter always rechecks its condition.
#![expect(unsafe_code, reason = "system calls that nix does not wrap")]

use std::{io, ptr, time::Duration};

use nix::{errno::Errno, libc};
#[cfg(feature = "futures")]
use nix::{sys::time::TimeSpec, time::ClockId};

use crate::sync::AtomicU32;

/// Waits until this word is woken, as long as it has the expected value. Returns early for a signal, and sometimes without a
/// reason. Returns `false` when the time is up.
///
/// # Errors
///
/// The system call is refused.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> io::Result<bool> {
    wait_at(word, expected, timeout)
}

fn wait_at(word: *const AtomicU32, expected: u32, timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX).into(),
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // Not FUTEX_PRIVATE_FLAG: the waker may be another process.
    // SAFETY: the kernel checks the address of the word, and reads at most it, atomically; `timeout` is null or points to a timespec that
    // outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, expected, timeout) };
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

/// Waits until one of these words is woken, as long as all have the expected value, or until the time is up. Returns early sometimes.
///
/// If the system cannot wait for all of them (Linux before 5.16, or more than 128), returns after a millisecond. The words may be unmapped
/// by other threads.
#[cfg(feature = "futures")]
pub(crate) fn wait_any(words: &[*const AtomicU32], expected: u32, timeout: Duration) {
    const MOST_AT_ONCE: usize = 128;
    let nap = timeout.min(Duration::from_millis(1));
    let outcome = match words {
        [word] => wait_at(*word, expected, Some(timeout)).map(drop),
        _ if words.len() > MOST_AT_ONCE => wait_first(&words[..MOST_AT_ONCE], expected, nap),
        _ => wait_first(words, expected, timeout)
            .or_else(|_| words.last().map_or(Ok(()), |word| wait_at(*word, expected, Some(nap)).map(drop))),
    };
    if outcome.is_err() {
        std::thread::sleep(nap);
    }
}

/// Waits until the first of at most 128 words is woken.
///
/// # Errors
///
/// The system call is refused.
#[cfg(feature = "futures")]
fn wait_first(words: &[*const AtomicU32], expected: u32, timeout: Duration) -> io::Result<()> {
    const SIZE_U32: u32 = 2;
    /// `struct futex_waitv` of the kernel.
    #[repr(C)]
    struct Waiter {
        value: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }
    let waiter = |word: &*const AtomicU32| Waiter {
        value: expected.into(),
        address: word.addr() as u64,
        flags: SIZE_U32,
        reserved: 0,
    };
    let waiters: Vec<Waiter> = words.iter().map(waiter).collect();
    let deadline = ClockId::CLOCK_MONOTONIC.now()? + TimeSpec::from(timeout);
    let deadline: &libc::timespec = deadline.as_ref();
    // SAFETY: the array has this many waiters, each with an address that the kernel checks, and reads at most; the deadline is a
    // timespec that outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            ptr::from_ref(deadline),
            libc::CLOCK_MONOTONIC,
        )
    };
    if done >= 0 {
        return Ok(());
    }
    match Errno::last() {
        // A word was unmapped.
        Errno::EFAULT => Ok(()),
        Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT => Ok(()),
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

/// Wakes all waiters of the word at this address, if it was not unmapped.
#[cfg(feature = "futures")]
pub(crate) fn wake_all_at(word: *const AtomicU32) {
    let _ = wake_some(word, i32::MAX);
}

fn wake_some(word: *const AtomicU32, most: i32) -> io::Result<()> {
    // SAFETY: the kernel checks the address of the word, uses it as a name, and reads nothing there.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, most) };
    if woken < 0 { Err(Errno::last().into()) } else { Ok(()) }
}

/// Returns whether this process may make these calls. A system call filter may refuse them.
pub(crate) fn is_available() -> bool {
    let word = AtomicU32::new(0);
    wake(&word).is_ok() && wait(&word, 1, Some(Duration::ZERO)).is_ok()
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

    #[cfg(feature = "futures")]
    #[test]
    fn a_sleeper_is_woken_by_each_of_its_words() {
        let words: Vec<AtomicU32> = (0..128).map(|_| AtomicU32::new(1)).collect();
        let addresses: Vec<*const AtomicU32> = words.iter().map(ptr::from_ref).collect();
        // One more than the kernel waits for is looked at now and then.
        let some_more = [&addresses[..], &[ptr::from_ref(&words[0])]].concat();
        for addresses in [&addresses[..1], &addresses[..2], &addresses, &some_more] {
            wait_any(addresses, 1, Duration::from_millis(1));
            let word = &words[addresses.len().min(words.len()) - 1];
            thread::scope(|scope| {
                let waker = scope.spawn(|| {
                    word.store(0, Ordering::Release);
                    wake(word).unwrap();
                });
                while word.load(Ordering::Acquire) == 1 {
                    wait_any(addresses, 1, Duration::from_secs(20));
                }
                waker.join().unwrap();
            });
            word.store(1, Ordering::Relaxed);
        }
        // A word that was unmapped is no word that has changed, and does no harm.
        wait_any(&[addresses[0], ptr::without_provenance(8)], 1, Duration::from_secs(20));
        wake_all_at(ptr::without_provenance(8));
    }
}
