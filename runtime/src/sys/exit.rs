//! Ends this process, with or without its group, and writes a last message to stderr.
#![expect(unsafe_code, reason = "`_exit` and `fflush`; a borrowed number of stderr")]

use std::{io, os::fd::BorrowedFd};

use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgrp, getpid},
};

/// Flushes the output buffers of this process. A copy of the process would write the same output again.
pub(crate) fn flush_streams() {
    let _ = io::Write::flush(&mut io::stdout());
    // SAFETY: a null stream means all of C's own.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Flushes the stdout buffers of std and C.
pub(crate) fn flush_stdout() {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    let _ = io::Write::flush(&mut io::stdout());
    // SAFETY: the C library sets `stdout` before any of our code runs and does not change it.
    let stream = unsafe { stdout };
    // SAFETY: it is C's own stream, which is open for as long as the process is; one that other code has closed is no file any more,
    // which programs that close it know.
    unsafe { libc::fflush(stream) };
}

/// Ends this process immediately, without running anything.
pub(crate) fn end_now(code: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Ends this process and its process group, if the group is its own, immediately and without running anything.
pub(crate) fn end_group(code: i32) -> ! {
    if getpgrp() == getpid() {
        // 0 is our own group, which contains only this process and what it has started.
        let _ = kill(Pid::from_raw(0), Signal::SIGKILL);
    }
    end_now(code)
}

/// Writes to stderr without std's locks, for code that may run while they are held.
pub(crate) fn write_stderr(words: &str) {
    // SAFETY: descriptor 2 is borrowed for one write; if it is closed the write fails and nothing else happens.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = nix::unistd::write(stderr, words.as_bytes());
}
