//! Locks that live as long as an open file, wherever its descriptors are: in processes, or in messages on their way.
//!
//! `channel` holds its ends with them while they are in messages. The kernel releases a lock when nobody can receive its descriptor any more.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};

fn byte(number: u8, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: number.into(),
        l_len: 1,
        l_pid: 0,
    }
}

/// Opens a file anew and locks this byte of it, beside others who do the same. Returns the descriptor that has the lock.
///
/// # Errors
///
/// It cannot be opened or locked.
pub(crate) fn lock_shared(file: BorrowedFd<'_>, number: u8) -> io::Result<OwnedFd> {
    let opened = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    fcntl(&opened, FcntlArg::F_OFD_SETLK(&byte(number, libc::F_RDLCK)))?;
    Ok(opened.into())
}

/// Returns whether anybody has locked this byte. If the kernel does not say, nobody has.
pub(crate) fn is_locked(file: BorrowedFd<'_>, number: u8) -> bool {
    let mut found = byte(number, libc::F_WRLCK);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut found));
    asked.is_ok() && found.l_type != libc::F_UNLCK as libc::c_short
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::memory;

    #[test]
    fn a_lock_lives_as_long_as_a_duplicate_of_its_descriptor() {
        let file = memory::create(c"lock", 4096).unwrap();
        let locked = lock_shared(file.as_fd(), 1).unwrap();
        let other = lock_shared(file.as_fd(), 1).unwrap();
        let again = locked.try_clone().unwrap();
        drop((locked, other));
        assert!(is_locked(file.as_fd(), 1) && !is_locked(file.as_fd(), 0));
        drop(again);
        assert!(!is_locked(file.as_fd(), 1));
    }
}
