//! Workers on this machine: the same executable, re-executed by posix_spawn, whose cost does not depend on this process's memory.

use std::{
    ffi::{CString, OsString},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    sync::Arc,
};

use super::{LaunchRequest, Launched, Launcher, WorkerProcess};
use crate::{
    error::Exit,
    marker::{DEPTH, MARKER, MOST_DEPTH, Marker, SOCKET_FD},
    protocol::Preamble,
    sys::{
        fd::{send_with_fd, stream_pair},
        process::{Child, Ended, is_in_main_program, is_privileged, spawn},
    },
    transport::{HostEnd, offer},
};

/// The inode that this process runs, even if the file was replaced or deleted since.
const SELF_EXE: &std::ffi::CStr = c"/proc/self/exe";

/// Starts workers by executing this executable again.
#[derive(Debug)]
pub(crate) struct LocalLauncher {
    depth: u32,
}

impl LocalLauncher {
    /// # Errors
    ///
    /// This process cannot be started again as a worker, in words for people.
    pub(crate) fn new() -> Result<Self, String> {
        if is_privileged() {
            return Err("this program runs with more rights than its user (setuid or file capabilities), and starts no workers: \
                        drop the rights and execute it again"
                .to_owned());
        }
        if !is_in_main_program((LocalLauncher::new as fn() -> Result<Self, String> as *const ()).addr()) {
            return Err("procession runs in a shared library that another program has loaded, which cannot be executed again as a \
                        worker: use Pool::in_process(), or call from an executable of your own"
                .to_owned());
        }
        let depth = std::env::var(DEPTH).ok().and_then(|depth| depth.parse().ok()).unwrap_or(0);
        if depth >= MOST_DEPTH {
            return Err(format!(
                "this process is {depth} workers deep, and {MOST_DEPTH} is the limit: does the program start itself from its own \
                 workers?"
            ));
        }
        Ok(Self { depth })
    }
}

impl Launcher for LocalLauncher {
    fn launch(&self, request: &LaunchRequest<'_>) -> io::Result<Launched> {
        let (ours, theirs) = stream_pair()?;
        let ours = Arc::new(ours);
        let HostEnd { sender, receiver, board, segment, rings } = offer(ours.clone())?;
        let marker = Marker { fd: SOCKET_FD, token: random_token(), depth: self.depth + 1 };
        let preamble = Preamble { token: marker.token, rings };
        send_with_fd(ours.as_fd(), &preamble.to_bytes(), segment.as_ref().map(OwnedFd::as_fd))?;
        let args: Vec<CString> =
            std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
        let child = spawn(SELF_EXE, &args, &environment(request.env, marker), theirs.as_fd(), SOCKET_FD)
            .map_err(|error| {
                io::Error::new(error.kind(), format!("/proc/self/exe cannot be executed: {error}"))
            })?;
        Ok(Launched { sender, receiver, board, is_quiet: rings, process: Box::new(LocalProcess(child)) })
    }
}

/// This process's environment, with the pool's variables and the marker on top.
fn environment(extra: &[(OsString, OsString)], marker: Marker) -> Vec<CString> {
    let own = std::env::vars_os()
        .filter(|(name, _)| name != MARKER && name != DEPTH && !extra.iter().any(|(other, _)| other == name));
    let extra = extra.iter().map(|(name, value)| (name.clone(), value.clone()));
    let marker = [(OsString::from(MARKER), OsString::from(marker.to_string()))];
    own.chain(extra)
        .chain(marker)
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            CString::new(entry).ok()
        })
        .collect()
}

/// A number that others do not guess: std keys its hashers from the kernel's random numbers.
fn random_token() -> u64 {
    RandomState::new().build_hasher().finish()
}

struct LocalProcess(Child);

impl WorkerProcess for LocalProcess {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn kill(&self) {
        self.0.kill();
    }

    fn try_reap(&mut self) -> Option<Option<Exit>> {
        Some(match self.0.try_reap()? {
            Ended::Code(code) => Some(Exit::from_code(code)),
            Ended::Signal(signal) => Some(Exit::from_signal(signal)),
            Ended::Unknown => None,
        })
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
