//! Finds out what this process lacks to execute itself as a worker, and names it. The system reports only an error number.
//!
//! The launchers ask when a pool is built and when a start has failed. Nothing here starts a process.

use std::{
    fs,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    sys::statvfs::{FsFlags, statvfs},
};

use crate::sys::{
    env::{is_in_main_program, is_privileged},
    fd::errno_of,
    limits::is_shortage,
    process::{check_group, check_pidfd},
};

/// The inode that this process runs, even if the file has been replaced or deleted since.
const SELF_EXE: &str = "/proc/self/exe";

/// The advice for a system on which no process can be started.
const IN_PROCESS: &str = "use Pool::in_process(), or set PROCESSION_IN_PROCESS=1";

/// Checks that this program can be executed again.
///
/// # Errors
///
/// It cannot. The error is a message for the user.
pub(super) fn check_executable() -> Result<(), String> {
    if is_privileged() {
        return Err("this program runs with more privileges than its user (setuid or file capabilities) and therefore \
                    starts no workers: drop the privileges and execute it again"
            .to_owned());
    }
    if !is_in_main_program(own_code()) {
        return Err(
            "procession runs in a shared library that another program has loaded, which cannot be executed \
                    again as a worker: use Pool::in_process(), or call from an executable of your own"
                .to_owned(),
        );
    }
    check_holding()?;
    // What this process executes stays as it is.
    static IS_SELF: OnceLock<()> = OnceLock::new();
    if IS_SELF.get().is_none() {
        check_self_exe()?;
        let _ = IS_SELF.set(());
    }
    Ok(())
}

/// Returns an address in the code of this library.
fn own_code() -> usize {
    (own_code as fn() -> usize as *const ()).addr()
}

/// Explains why this program was not executed, by checking everything that this requires.
pub(super) fn why_not_executed(error: &io::Error) -> String {
    let missing = check_holding()
        .and_then(|()| check_self_exe())
        .and_then(|()| check_stdin())
        .and_then(|()| check_process_group())
        .and_then(|()| check_permission(error));
    missing.err().unwrap_or_else(|| format!("{SELF_EXE} cannot be executed: {error}"))
}

/// Checks that a process can be held by a descriptor. Without one it cannot be signalled safely.
pub(super) fn check_holding() -> Result<(), String> {
    match check_pidfd() {
        Err((call, error)) if !is_shortage(&error) => {
            let why = if is_under_valgrind() {
                "the valgrind under which this program runs does not know it"
            } else {
                "this needs Linux 5.4 or later, and a sandbox (seccomp) that allows it"
            };
            Err(format!("no worker can be tracked by a pidfd ({call}: {error}): {why}; {IN_PROCESS}"))
        }
        _ => Ok(()),
    }
}

/// Valgrind makes each program load one of its own libraries.
fn is_under_valgrind() -> bool {
    std::env::var_os("LD_PRELOAD")
        .is_some_and(|libraries| libraries.as_bytes().windows(9).any(|name| name == b"vgpreload"))
}

/// Checks that `/proc/self/exe` is this program.
fn check_self_exe() -> Result<(), String> {
    let file = match File::open(SELF_EXE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !Path::new("/proc/self").exists() => {
            return Err(format!(
                "/proc is not mounted, and this program cannot be executed again without it: mount it; {IN_PROCESS}"
            ));
        }
        // It may be possible to execute it even so.
        Err(_) => return Ok(()),
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some((inode, program)) = file_at(&maps, own_code()) else { return Ok(()) };
    if inode == 0 || file.metadata().is_ok_and(|exe| exe.ino() == inode) {
        return Ok(());
    }
    let exe = fs::read_link(SELF_EXE).unwrap_or_default();
    Err(format!(
        "{program} was started through {}, a loader or an emulator, so {SELF_EXE} is that and not this program: \
         execute {program} itself; \
         {IN_PROCESS}",
        exe.display()
    ))
}

/// Returns the inode and the name of the file that is mapped at an address, from /proc/self/maps.
fn file_at(maps: &str, address: usize) -> Option<(u64, &str)> {
    maps.lines().find_map(|line| {
        let mut fields = line.splitn(6, ' ');
        let (begin, end) = fields.next()?.split_once('-')?;
        let range = usize::from_str_radix(begin, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let inode = fields.nth(3)?.parse().ok()?;
        range.contains(&address).then(|| (inode, fields.next().unwrap_or_default().trim()))
    })
}

/// Checks that `/dev/null` can be opened, because a worker reads its stdin from it.
fn check_stdin() -> Result<(), String> {
    match File::open("/dev/null") {
        Err(error) if !is_shortage(&error) => {
            Err(format!("/dev/null, the stdin of workers, cannot be opened: {error}"))
        }
        _ => Ok(()),
    }
}

/// Checks that a worker can lead a process group. Processes that it starts are ended with the group.
fn check_process_group() -> Result<(), String> {
    check_group().map_err(|error| {
        format!("no worker can have a process group of its own (setpgid: {error}): does a sandbox (seccomp) refuse it?")
    })
}

fn check_permission(error: &io::Error) -> Result<(), String> {
    let program = fs::read_link(SELF_EXE).unwrap_or_default();
    let shown = program.display();
    let again = |why: &str| Err(format!("{shown} cannot be executed again ({error}): {why}"));
    match errno_of(error).map(Errno::from_raw) {
        Some(Errno::EACCES)
            if statvfs(SELF_EXE).is_ok_and(|system| system.flags().contains(FsFlags::ST_NOEXEC)) =>
        {
            Err(format!("{shown} cannot be executed again: its file system is now mounted noexec"))
        }
        Some(Errno::EACCES) => {
            Err(format!("{shown} may not be executed again ({error}): have its permissions changed?"))
        }
        Some(Errno::ENOENT) => again(
            "the loader that it names (its ELF interpreter) does not exist: has the root directory changed (chroot)?",
        ),
        Some(Errno::E2BIG) => again("its arguments and the environment are larger than the system allows"),
        Some(Errno::ETXTBSY) => again("it is open for writing"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_at_an_address_is_found_in_the_maps() {
        let maps = "55d0-55d9 r-xp 00000000 fe:01 42                         /a b\n7f00-7f10 rw-p 00000000 00:00 0 \n";
        assert_eq!(file_at(maps, 0x55d0), Some((42, "/a b")));
        assert_eq!(file_at(maps, 0x55d9), None);
        assert_eq!(file_at(maps, 0x7f01), Some((0, "")));
    }

    #[test]
    fn a_process_that_can_be_executed_again_lacks_nothing() {
        assert_eq!(check_executable(), Ok(()));
        assert_eq!(check_stdin(), Ok(()));
        assert_eq!(check_process_group(), Ok(()));
    }

    #[test]
    fn an_error_of_the_system_is_explained() {
        let words = |errno: Errno| why_not_executed(&errno.into());
        for (errno, meaning) in [
            (Errno::E2BIG, "the environment are larger"),
            (Errno::ENOENT, "ELF interpreter"),
            (Errno::ETXTBSY, "open for writing"),
            (Errno::EACCES, "may not be executed again"),
            (Errno::EIO, "/proc/self/exe cannot be executed: "),
        ] {
            assert!(words(errno).contains(meaning), "{}", words(errno));
        }
    }
}
