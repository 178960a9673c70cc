//! Workers on this machine: the same executable, re-executed by posix_spawn, whose cost does not depend on this process's memory.

use std::{
    ffi::{CString, OsString},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    sync::Arc,
};

use super::{
    Launch, LaunchError, LaunchRequest, Launched, Launcher, Outputs, Variable, WorkerProcess,
    missing::{check_executable, why_not_executed},
    output::Pipes,
    output::Streams,
};
use crate::{
    error::Exit,
    marker::{DEPTH, MARKER, MOST_DEPTH, Marker, Role, SOCKET_FD},
    protocol::{Preamble, Refused, Reply},
    sys::{
        fd::{errno_of, stream_pair},
        held::Held,
        pass::send_with_all,
        process::{Child, Ended, spawn},
    },
    transport::{HostEnd, Received, offer},
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
        check_executable()?;
        Ok(Self { depth: next_depth()? })
    }
}

/// How many workers deep a worker of this process is.
///
/// # Errors
///
/// Too many, in words for people.
pub(super) fn next_depth() -> Result<u32, String> {
    let depth = std::env::var(DEPTH).ok().and_then(|depth| depth.parse().ok()).unwrap_or(0);
    if depth >= MOST_DEPTH {
        return Err(format!(
            "this process is {depth} workers deep, and {MOST_DEPTH} is the limit: does the program start itself from its own \
             workers?"
        ));
    }
    Ok(depth + 1)
}

impl Launcher for LocalLauncher {
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let token = random_token();
        let (connection, theirs) = Connection::new(token, request.outputs)?;
        let marker = Marker { role: Role::Worker, fd: SOCKET_FD, token, depth: self.depth };
        let mut child = match execute_self(request.env, marker, theirs.as_fd()) {
            // It has ended, and nothing is left to hold. What it has said is.
            Err(LaunchError::Failed(words)) => {
                return Err(connection.refusal().map_or(LaunchError::Failed(words), LaunchError::Told));
            }
            executed => executed?,
        };
        child.ends_with(connection.socket());
        Ok(Launch::Ready(connection.launched(Box::new(LocalProcess(child)))))
    }
}

/// The host's ends of what it shares with one worker.
pub(super) struct Connection {
    socket: Arc<OwnedFd>,
    end: HostEnd,
    token: u64,
    pipes: Pipes,
}

impl Connection {
    /// Makes the connection, puts the preamble into it, and gives the worker's end, too.
    pub(super) fn new(token: u64, outputs: Outputs) -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = stream_pair()?;
        let socket = Arc::new(socket);
        let end = offer(socket.clone())?;
        let pipes = outputs.open()?;
        let preamble = Preamble { token, rings: end.rings, sinks: outputs.sinks() };
        let fds: Vec<_> = end.segment.iter().map(OwnedFd::as_fd).chain(pipes.theirs()).collect();
        send_with_all(socket.as_fd(), &preamble.to_bytes(), &fds)?;
        Ok((Self { socket, end, token, pipes }, theirs))
    }

    /// The socket: a worker ends when this end of it is shut down.
    pub(super) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// What the other end, which has ended, has said of why it could not be a worker.
    fn refusal(self) -> Option<Refused> {
        let mut receiver = self.end.receiver;
        receiver.begin(true);
        let Received::Frames(frames) = receiver.recv().ok()? else { return None };
        match Reply::decode(frames.split_first()?.0) {
            Ok(Reply::Refused(refused)) => Some(refused),
            _ => None,
        }
    }

    pub(super) fn launched(self, process: Box<dyn WorkerProcess>) -> Launched {
        let HostEnd { sender, receiver, board, rings, why_not, .. } = self.end;
        let ends = self.pipes.ours;
        let streams = (!ends.is_empty()).then_some(Streams { token: self.token, ends });
        Launched { sender, receiver, board, is_quiet: rings, why_slow: why_not, process, streams }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Executes this executable again, with this end of a connection.
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
                LaunchError::Failed(format!("a process ended as it started: {COLLECTED}"))
            }
            LaunchError::Refused(_) => LaunchError::Refused(why_not_executed(&error)),
            shortage => shortage,
        }
    })
}

/// An environment with the marker on top, for C.
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

/// A number that others do not guess: std keys its hashers from the kernel's random numbers.
pub(super) fn random_token() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// How a process ended, or why that is not known.
pub(super) fn exit(ended: Ended) -> Result<Exit, &'static str> {
    match ended {
        Ended::Code(code) => Ok(Exit::from_code(code)),
        Ended::Signal(signal) => Ok(Exit::from_signal(signal)),
        Ended::Unknown => Err(COLLECTED),
        Ended::Untold => Err(UNTOLD),
    }
}

/// Why nobody knows how a child of this process has ended.
const COLLECTED: &str = "other code in this process collected its exit status (SIGCHLD is ignored, or something calls `waitpid(-1)`)";

/// Why not even the kernel says it.
pub(super) const UNTOLD: &str =
    "the system does not say how it ended (waitid failed): does a sandbox (seccomp) refuse that?";

struct LocalProcess(Child);

impl WorkerProcess for LocalProcess {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn held(&self) -> &Held {
        self.0.held()
    }

    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        self.0.try_reap().map(exit)
    }

    fn give_up(&mut self) {
        self.0.give_up();
    }
}
