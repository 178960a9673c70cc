//! Executes this program again, with the marker of a worker or template in its environment.

use std::{
    ffi::{CString, OsString},
    os::{
        fd::BorrowedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
};

use super::{LaunchError, Variable, exit::COLLECTED, missing::why_not_executed};
use crate::{
    marker::{DEPTH, MARKER, MOST_DEPTH, Marker, SOCKET_FD},
    sys::{child::Child, fd::errno_of, process::spawn},
};

/// The inode that this process runs, even if the file has been replaced or deleted since.
const SELF_EXE: &std::ffi::CStr = c"/proc/self/exe";

/// Returns the nesting depth that the workers of this process will have.
///
/// # Errors
///
/// Pools may not be nested that deeply. The error is a message for the user.
pub(super) fn next_depth() -> Result<u32, String> {
    let depth = std::env::var(DEPTH).ok().and_then(|depth| depth.parse().ok()).unwrap_or(0);
    if depth >= MOST_DEPTH {
        return Err(format!(
            "this process is {depth} workers deep, and {MOST_DEPTH} is the limit: does the program start \
             itself from its own \
             workers?"
        ));
    }
    Ok(depth + 1)
}

/// Executes this program again. The new process inherits `theirs`, its end of a connection.
pub(super) fn execute_self(
    env: &[Variable],
    marker: Marker,
    socket: BorrowedFd<'_>,
) -> Result<Child, LaunchError> {
    let args: Vec<CString> =
        std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    let doing = "no process can be started";
    spawn(SELF_EXE, &args, &environment(env, marker), socket, SOCKET_FD).map_err(|error| {
        match LaunchError::new(doing, &error) {
            LaunchError::Refused(_) if errno_of(&error) == Some(nix::libc::ECHILD) => {
                LaunchError::Failed(format!("a process ended while starting: {COLLECTED}"))
            }
            LaunchError::Refused(_) => LaunchError::Refused(why_not_executed(&error)),
            shortage => shortage,
        }
    })
}

/// Adds the marker to an environment and converts it for C.
fn environment(env: &[Variable], marker: Marker) -> Vec<CString> {
    let marker = (OsString::from(MARKER), Some(OsString::from(marker.to_string())));
    let entries = env.iter().chain([&marker]).filter_map(|(name, value)| {
        let mut entry = name.clone().into_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_ref()?.as_bytes());
        CString::new(entry).ok()
    });
    entries.collect()
}
