//! The child process behind a [`Process`](super::Process): starts it, signals it, and kills it when it is dropped.
//!
//! The watch (`watcher.rs`) reads from the process and reaps it. Nothing here waits for the process except its drop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    slot::{End, Order, ProcessSlot, Sole},
    watcher::{FORKED, MOST_NUMBER, User, Watch, launcher_of},
};
use crate::{
    error::{Error, Exit, Result},
    handle::Drive,
    id::WorkerId,
    launch::StartMethod,
    protocol::EncodedTasks,
    registry,
    supervisor::state::Supervisor,
    sys::{held::Held, identified::CLOSED, poll::wait_readable},
};

/// A process that has an owner. It is killed and reaped when this is dropped, unless it was detached.
pub(super) struct Child {
    pid: u32,
    /// Taken only to be leaked, in a copy of this process.
    held: Option<Held>,
    end: End,
    is_detached: bool,
    user: User,
}

impl Child {
    /// Starts a process.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn launch(order: Order) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % MOST_NUMBER;
        let failed = |error| Error::system(format!("process `{}` cannot be started", order.name), error);
        // Made before the watching thread exists, because only a process with one thread can be copied.
        let copy = (order.method == StartMethod::Fork).then(|| launcher_of(&order)).transpose()?;
        let user = User::new()?;
        let watch = user.watch();
        let launcher = match copy {
            Some(copy) => copy,
            None => watch.launcher(&order)?,
        };
        let mut supervisor = Supervisor::new(WorkerId(number));
        watch.launch(&mut supervisor, &launcher, &order).map_err(|error| failed(io::Error::other(error)))?;
        let peer = supervisor.peer().expect("it was launched just now");
        let pid = peer.pid();
        let held = peer.held().expect("it runs on this machine").try_clone();
        let held = Some(held.map_err(failed)?);
        let end = End::default();
        let function = registry::find(order.function).map_or("", |entry| entry.name);
        let deadline = supervisor.deadline();
        let place = ProcessSlot {
            supervisor,
            sole: Some(Sole {
                number: order.number,
                seed: order.seed,
                function,
                records: EncodedTasks::of(order.function, order.args),
            }),
            name: order.name,
            function,
            is_late: false,
            outcome: None,
            wrote: None,
            completer: order.completer,
            end: end.clone(),
            memory_limit: order.surroundings.memory,
            oom_kills: launcher.oom_kills(),
            launcher,
        };
        // A copied process is fast and may have shaken hands before the poller was set up.
        let has_spoken = place.supervisor.has_arrivals();
        let Some(mut desk) = watch.lock() else {
            return Err(Error::config(FORKED));
        };
        desk.places.insert(number, Arc::new(Mutex::new(place)));
        if has_spoken {
            desk.unread.insert(number);
        }
        if has_spoken || desk.alarm.is_none_or(|alarm| deadline.is_some_and(|deadline| deadline < alarm)) {
            watch.ring();
        }
        drop(desk);
        Ok(Self { pid, held, end, is_detached: false, user })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid
    }

    /// Returns what the handle uses to wait. It keeps nothing open.
    pub(super) fn exchange(&self) -> Weak<dyn Drive> {
        Arc::<Watch>::downgrade(self.user.watch())
    }

    fn held(&self) -> &Held {
        self.held.as_ref().expect("it is taken when this is dropped")
    }

    /// Returns whether the process has ended, and how, if that is known. It agrees with the descriptor from the moment at which
    /// that reports the end.
    pub(super) fn ended(&self) -> Option<Option<Exit>> {
        let watch = self.user.watch();
        let is_settled = self.end.get().is_some() || !watch.is_of_this_process() || !watch.is_whole();
        if !is_settled && wait_readable(self.as_fd(), Duration::ZERO).unwrap_or(false) {
            watch.wait_for(&self.end);
        }
        self.end.get().copied()
    }

    /// Returns whether this process started it, and is not a copy of the one that did.
    pub(super) fn is_own(&self) -> bool {
        self.user.watch().is_of_this_process()
    }

    pub(super) fn terminate(&self) -> io::Result<()> {
        if self.user.watch().is_whole() { self.held().terminate() } else { Err(io::Error::other(CLOSED)) }
    }

    pub(super) fn kill(&self) {
        if self.user.watch().is_whole() {
            self.held().kill();
        }
    }

    pub(super) fn detach(mut self) {
        self.is_detached = true;
    }
}

impl AsFd for Child {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held().as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let watch = self.user.watch();
        if !watch.is_of_this_process() {
            // The process belongs to the process that this one is a copy of, and the descriptor's number means something else here.
            return std::mem::forget(self.held.take());
        }
        if !watch.is_whole() {
            // The number means something else here, too. The process ends by itself, because its connection has ended.
            return std::mem::forget(self.held.take());
        }
        if !self.is_detached && self.end.get().is_none() {
            self.kill();
            watch.wait_for(&self.end);
        }
    }
}
