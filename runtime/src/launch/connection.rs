//! The connection of a host and a new worker: the socket, the shared memory, the pipes of its output, and the preamble.
//!
//! Both the local launcher and the template's host side use it. It creates no process and reads no message.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use super::{
    Launched, Outputs, Watched,
    output::{Pipes, Streams},
    peer::{LocalPeer, LocalProcess},
};
use crate::{
    protocol::Preamble,
    sys::{fd::stream_pair, identified::Identified, pass::send_with_fds},
    transport::{HostEnd, offer},
};

/// The host's ends of what it shares with one worker.
pub(super) struct WorkerConnection {
    socket: Arc<Identified>,
    end: HostEnd,
    token: u64,
    pipes: Pipes,
}

impl WorkerConnection {
    /// Creates the connection and sends the preamble. Also returns the worker's end of the socket.
    pub(super) fn new(token: u64, outputs: Outputs) -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = stream_pair()?;
        Ok((Self::share(socket, token, outputs)?, theirs))
    }

    /// Creates the memory and the pipes, and sends the preamble to the other end of the socket. The process at that end may have ended
    /// already.
    pub(super) fn share(socket: OwnedFd, token: u64, outputs: Outputs) -> io::Result<Self> {
        let socket = Arc::new(Identified::new(socket));
        let end = offer(socket.clone())?;
        let pipes = outputs.open()?;
        let preamble = Preamble { token, rings: end.rings, targets: outputs.targets() };
        let fds: Vec<_> = end.segment.iter().map(AsFd::as_fd).chain(pipes.theirs()).collect();
        match send_with_fds(socket.as_fd(), &preamble.to_bytes(), &fds) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(Self { socket, end, token, pipes }),
        }
    }

    /// Returns our end of the socket. The worker ends when this end is shut down.
    pub(super) fn socket(&self) -> &Arc<Identified> {
        &self.socket
    }

    pub(super) fn launched(self, process: LocalProcess) -> Launched {
        let HostEnd { sender, receiver, board, rings, why_not, .. } = self.end;
        let ends = self.pipes.ours;
        let streams = (!ends.is_empty()).then_some(Streams { token: self.token, ends });
        let peer = Box::new(LocalPeer { board, process });
        let watched = Watched::default();
        Launched { peer, sender, receiver, is_quiet: rings, why_slow: why_not, streams, watched }
    }
}

impl fmt::Debug for WorkerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConnection").finish_non_exhaustive()
    }
}

/// Returns a number that other processes cannot guess. std seeds its hashers with random numbers from the kernel.
pub(super) fn random_token() -> u64 {
    RandomState::new().build_hasher().finish()
}
