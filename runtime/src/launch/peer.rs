//! Defines what a worker can be asked, wherever it runs.
//!
//! [`Peer`] is the interface. The supervisor and the scheduler learn about a worker's process, and act on it, only through it.
//! [`LocalPeer`] implements it for a process on this machine, by the board that it shares with the host and the pidfd that holds it.

use super::{exit::exit, forked::ForkedProcess};
use crate::{
    error::Exit,
    marker::DESCRIPTORS_CLOSED,
    sys::{
        child::Child,
        held::Held,
        procfs::{peak_rss_bytes, resident_bytes},
    },
    transport::{Board, Cause},
};

/// A worker whose process has not been reaped. By default nothing is known about its tasks, and its process is asked and signalled by
/// what holds it.
///
/// Tasks are named by their sequence numbers (see [`before`](crate::id::before)).
pub(crate) trait Peer: Send {
    /// Returns the number of the process on the machine that it runs on.
    fn pid(&self) -> u32;

    /// Returns what holds the process, if it runs on this machine. Its descriptor is readable when the process has ended.
    fn held(&self) -> Option<&Held> {
        None
    }

    /// Returns the last task that has begun, if that is known.
    fn begun(&self) -> Option<u32> {
        None
    }

    /// Returns whether tasks that have not begun can be recalled. Then [`begun`](Self::begun) is known as soon as the process has
    /// ended. Otherwise the host sends one task at a time.
    fn can_recall(&self) -> bool {
        false
    }

    /// Recalls all tasks before `next` that have not begun. Returns the last task that has begun, or `None` if the answer comes
    /// later, as a [`Notice::Recalled`](crate::protocol::Notice::Recalled) between the worker's replies. Only called if tasks can be
    /// recalled. Each recall is answered, in order.
    fn recall(&self, _next: u32) -> Option<u32> {
        None
    }

    /// Returns whether task `seq`, which was not recalled, is known never to begin.
    fn bars(&self, _seq: u32) -> bool {
        false
    }

    /// Asks task `seq` to end. Returns `false` if the only message that the worker notices while it runs a task is the end of its
    /// connection.
    fn tell_to_end(&self, _seq: u32) -> bool {
        false
    }

    /// Asks the process to end, with SIGTERM. If it has ended, that is reported.
    fn terminate(&self) {
        if let Some(held) = self.held() {
            let _ = held.terminate();
        }
    }

    /// Kills the process and its group.
    fn kill(&self) {
        if let Some(held) = self.held() {
            held.kill();
        }
    }

    /// Returns whether the system has refused to kill the process.
    fn is_refused(&self) -> bool {
        self.held().is_some_and(Held::is_refused)
    }

    /// Returns the resident memory of the process, if it can be read.
    fn resident_bytes(&self) -> Option<u64> {
        ask(self, resident_bytes)
    }

    /// Returns the most resident memory that the process has had, if it can be read.
    fn peak_rss_bytes(&self) -> Option<u64> {
        ask(self, peak_rss_bytes)
    }

    /// Reaps the process if it has ended. Returns how it ended, or why that is not known.
    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>>;

    /// Returns why the process ended in this way, if it has told.
    fn cause(&self, _exit: Result<Exit, &'static str>) -> Option<Cause> {
        None
    }

    /// Gives up a process that cannot be ended, and prints a message about it.
    fn give_up(&mut self);
}

/// Returns what `read` finds out by the pid of a process, unless the pid may have belonged to another process by then.
fn ask<R>(peer: &(impl Peer + ?Sized), read: impl FnOnce(u32) -> Option<R>) -> Option<R> {
    let held = peer.held()?;
    read(peer.pid()).filter(|_| held.has_its_number())
}

/// A worker on this machine.
pub(super) struct LocalPeer {
    /// The page shared with the worker, if memory can be shared.
    pub(super) board: Option<Board>,
    pub(super) process: LocalProcess,
}

/// The process of a worker on this machine.
pub(super) enum LocalProcess {
    Child(Child),
    /// The child of a template.
    Forked(ForkedProcess),
}

impl Peer for LocalPeer {
    fn pid(&self) -> u32 {
        match &self.process {
            LocalProcess::Child(child) => child.pid(),
            LocalProcess::Forked(forked) => forked.pid,
        }
    }

    fn held(&self) -> Option<&Held> {
        match &self.process {
            LocalProcess::Child(child) => Some(child.held()),
            LocalProcess::Forked(forked) => Some(&forked.held),
        }
    }

    fn begun(&self) -> Option<u32> {
        self.board.as_ref().map(|board| board.claim().begun())
    }

    fn can_recall(&self) -> bool {
        self.board.is_some()
    }

    fn recall(&self, next: u32) -> Option<u32> {
        self.board.as_ref().map(|board| board.claim().take_back(next))
    }

    fn bars(&self, seq: u32) -> bool {
        self.board.as_ref().is_some_and(|board| board.claim().bars(seq))
    }

    fn tell_to_end(&self, seq: u32) -> bool {
        self.board.as_ref().inspect(|board| board.tell_to_end(seq)).is_some()
    }

    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        match &mut self.process {
            LocalProcess::Child(child) => child.try_reap().map(exit),
            LocalProcess::Forked(forked) => forked.try_reap(),
        }
    }

    fn cause(&self, exit: Result<Exit, &'static str>) -> Option<Cause> {
        match &self.board {
            Some(board) => board.cause(),
            None => exit
                .is_ok_and(|exit| exit.code() == Some(DESCRIPTORS_CLOSED))
                .then_some(Cause::DescriptorsClosed),
        }
    }

    fn give_up(&mut self) {
        match &mut self.process {
            LocalProcess::Child(child) => child.give_up(),
            LocalProcess::Forked(forked) => forked.give_up(),
        }
    }
}
