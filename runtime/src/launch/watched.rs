//! Has a poller report what happens at a worker: at its connection, to its process, and in its output.
//!
//! The owner of the poller wraps its launcher in a [`PolledLauncher`]. What the worker is asked afterwards does not need the poller.

use std::{
    io,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use super::{Launch, LaunchError, LaunchRequest, Launched, Launcher};
use crate::sys::poll::Poller;

/// The number of the last bits of a poller's key, which say what of a worker the key is about.
pub(crate) const KIND_BITS: u32 = 2;
/// The end of the worker's process. Without these bits the key is about its connection.
pub(crate) const PROCESS: u64 = 1;
/// The worker's stdout or stderr.
pub(crate) const OUTPUT: u64 = 2;

/// A launcher whose workers are reported by a poller.
#[derive(Debug)]
pub(crate) struct PolledLauncher<L> {
    launcher: L,
    poller: Arc<Poller>,
}

impl<L: Deref<Target = dyn Launcher>> PolledLauncher<L> {
    pub(crate) fn new(launcher: L, poller: Arc<Poller>) -> Self {
        Self { launcher, poller }
    }
}

impl<L: Deref<Target = dyn Launcher> + Send + Sync> Launcher for PolledLauncher<L> {
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let mut launch = self.launcher.launch(request)?;
        if let Launch::Ready(launched) = &mut launch {
            launched.watch(&self.poller, request.key)?;
        }
        Ok(launch)
    }

    fn want(&self, workers: usize) {
        self.launcher.want(workers);
    }

    fn oom_kills(&self) -> Option<u64> {
        self.launcher.oom_kills()
    }
}

/// The poller that reports what happens at a worker, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    by: Option<(Arc<Poller>, u64)>,
    /// Whether the connection is polled for room to write.
    writable: bool,
}

impl Watched {
    /// Sets whether room to write is reported, in addition to arrivals.
    pub(crate) fn set_writable(&mut self, connection: Option<BorrowedFd<'_>>, writable: bool) {
        if std::mem::replace(&mut self.writable, writable) != writable
            && let (Some((poller, key)), Some(connection)) = (&self.by, connection)
        {
            let _ = poller.set_writable(connection, *key, writable);
        }
    }

    /// Has nothing more reported about this descriptor.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        if let Some((poller, _)) = &self.by {
            poller.remove(fd);
        }
    }
}

impl Launched {
    fn watch(&mut self, poller: &Arc<Poller>, key: u64) -> io::Result<()> {
        if let Some(connection) = self.receiver.poll_fd() {
            poller.add(connection, key)?;
        }
        if let Some(held) = self.peer.held() {
            poller.add(held.as_fd(), key | PROCESS)?;
        }
        let ends = self.streams.iter().flat_map(|streams| &streams.ends);
        for output in ends.filter_map(|end| end.source.poll_fd()) {
            poller.add(output, key | OUTPUT)?;
        }
        self.watched.by = Some((poller.clone(), key));
        Ok(())
    }

    /// Has no more arrivals reported.
    pub(crate) fn stop_reading(&self) {
        if let Some(connection) = self.receiver.poll_fd() {
            self.watched.remove(connection);
        }
    }

    /// Has nothing more reported about the connection and the process.
    pub(crate) fn unwatch(&self) {
        self.stop_reading();
        if let Some(held) = self.peer.held() {
            self.watched.remove(held.as_fd());
        }
    }
}
