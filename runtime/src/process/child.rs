//! The child process behind a [`Process`](super::Process): starts it, signals it, and kills it when it is dropped.
//!
//! The driver reads from the process and reaps it. Nothing here waits for the process except its drop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    engine::{self, FORKED, launcher_of},
    set::ProcessSet,
    slot::{ExitCell, ProcessConfig, ProcessSlot},
};
use crate::{
    batch::Batch,
    driver::background::Engine,
    error::{Error, Exit, Result},
    handle::Drive,
    id::WorkerId,
    launch::StartMethod,
    supervisor::state::Supervisor,
    sys::{held::Held, identified::CLOSED, poll::wait_readable},
};

/// The numbers of processes are below this, because supervisors derive keys from them.
const MOST_NUMBER: u64 = 1 << 30;

/// A process that has an owner. It is killed and reaped when this is dropped, unless it was detached.
pub(super) struct OwnedProcess {
    pid: u32,
    /// Taken only to be leaked, in a copy of this process.
    held: Option<Held>,
    /// Its number in the engine.
    number: u32,
    end: ExitCell,
    is_detached: bool,
    engine: Arc<Engine<ProcessSet>>,
}

impl OwnedProcess {
    /// Starts a process.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn launch(config: ProcessConfig) -> Result<Self> {
        // Made before the background thread exists, because only a process with one thread can be copied.
        let copy =
            (config.spawn.start_method == StartMethod::Fork).then(|| launcher_of(&config)).transpose()?;
        let engine = engine::current()?;
        let number = (config.task.number % MOST_NUMBER) as u32;
        let mut supervisor = Supervisor::new(WorkerId(number));
        let launcher = engine::launch(&engine.driver, &mut supervisor, copy, &config)?;
        let peer = supervisor.peer().expect("it was launched just now");
        let pid = peer.pid();
        let held = peer.held().expect("it runs on this machine").try_clone();
        let held = Some(held.map_err(|error| config.not_started(error))?);
        let end = ExitCell::default();
        let completer = config.task.to.clone();
        let task = Batch::from(config.task);
        let slot = ProcessSlot {
            supervisor,
            function: task.function(),
            task: Some(task),
            seed: config.seed,
            name: config.name,
            is_late: false,
            outcome: None,
            wrote: None,
            completer,
            end: end.clone(),
            memory_limit: config.spawn.setup.memory_limit,
            oom_kills: launcher.oom_kills(),
            launcher,
            engine: None,
        };
        engine.driver.with(|set, _| set.add(number, slot)).ok_or_else(|| Error::config(FORKED))?;
        Ok(Self { pid, held, number, end, is_detached: false, engine })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid
    }

    /// Returns what the handle uses to wait. It keeps nothing open.
    pub(super) fn exchange(&self) -> Weak<dyn Drive> {
        self.engine.exchange()
    }

    /// Waits until the process has been reaped.
    fn wait(&self) {
        self.engine.driver.wait_while(|set| set.contains(self.number));
    }

    /// Returns whether the process can be signalled: this process has started it, and other code has not closed its descriptors.
    fn is_held(&self) -> bool {
        self.is_own() && self.engine.driver.is_whole()
    }

    fn held(&self) -> &Held {
        self.held.as_ref().expect("it is taken when this is dropped")
    }

    /// Returns whether the process has ended, and how, if that is known. It agrees with the descriptor from the moment at which
    /// that reports the end.
    pub(super) fn ended(&self) -> Option<Option<Exit>> {
        let is_open = self.end.get().is_none() && self.is_held();
        if is_open && wait_readable(self.as_fd(), Duration::ZERO).unwrap_or(false) {
            self.wait();
        }
        self.end.get().copied()
    }

    /// Returns whether this process started it, and is not a copy of the one that did.
    pub(super) fn is_own(&self) -> bool {
        self.engine.driver.is_own()
    }

    pub(super) fn terminate(&self) -> io::Result<()> {
        if self.is_held() { self.held().terminate() } else { Err(io::Error::other(CLOSED)) }
    }

    pub(super) fn kill(&self) {
        if self.is_held() {
            self.held().kill();
        }
    }

    pub(super) fn detach(mut self) {
        self.is_detached = true;
    }
}

impl AsFd for OwnedProcess {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held().as_fd()
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        if !self.is_held() {
            // The descriptor's number means something else here. In a copy of this process the child is the original's. If other
            // code has closed the descriptors, the child ends by itself, because its connection has ended.
            return std::mem::forget(self.held.take());
        }
        if self.is_detached {
            self.engine.driver.with(|set, _| set.keep(self.number, self.engine.clone()));
        } else if self.end.get().is_none() {
            self.kill();
            self.wait();
        }
    }
}
