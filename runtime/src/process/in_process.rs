//! Runs the function of a process on a thread of this process, for `PROCESSION_IN_PROCESS=1`.
//!
//! A [`Process`](super::Process) uses it instead of a child. A thread cannot be ended from outside, so `terminate` and `kill` are
//! errors.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, OnceLock},
    time::Instant,
};

use crate::{
    call::in_process,
    error::{Error, Exit, Result},
    handle::{Completer, Drive, Wakes},
    sys::{poll::Bell, thread},
    task::EncodedCall,
};

/// The exit code of a process whose function panicked.
const FAILED: i32 = 101;

/// A function that runs on a thread of this process.
#[derive(Debug)]
pub(super) struct FunctionThread {
    exit: OnceLock<Exit>,
    /// Rung when the function has ended, and never silenced.
    end: Bell,
}

impl FunctionThread {
    /// Runs the call on a thread with this name.
    pub(super) fn spawn(
        name: &str,
        call: EncodedCall,
        seed: u64,
        completer: Arc<Completer>,
    ) -> io::Result<Arc<Self>> {
        let here = Arc::new(Self { exit: OnceLock::new(), end: Bell::new()? });
        let its_own = here.clone();
        thread::named(name).spawn(move || its_own.run(call, seed, &completer))?;
        Ok(here)
    }

    fn run(self: Arc<Self>, call: EncodedCall, seed: u64, completer: &Completer) {
        let outcome = in_process::InProcess::default().run(&call, None, seed);
        // What was lent to it is back before its end is seen, and its descriptors are closed.
        drop(call);
        #[cfg(feature = "tokio")]
        crate::executor::leave();
        let code = if outcome.is_ok() { 0 } else { FAILED };
        let _ = self.exit.set(Exit::from_code(code));
        self.end.ring();
        // The descriptor is closed with the `Process`, even if this thread takes a while to end.
        drop(self);
        let mut wakes = Wakes::default();
        completer.complete(outcome, &mut wakes);
        wakes.wake_all();
    }

    pub(super) fn ended(&self) -> Option<Exit> {
        self.exit.get().copied()
    }

    /// Returns an error, because a thread cannot be ended from outside.
    ///
    /// # Errors
    ///
    /// Always, unless the function has ended.
    pub(super) fn unstoppable(&self, name: &str) -> Result<()> {
        match self.ended() {
            Some(_) => Ok(()),
            None => Err(Error::config(format!(
                "process `{name}` cannot be ended: under PROCESSION_IN_PROCESS=1 it is a thread of this process"
            ))),
        }
    }
}

impl Drive for FunctionThread {
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool {
        // The waiting thread is unparked at the end.
        while !ready() {
            match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(Some(left)) => std::thread::park_timeout(left),
                Some(None) => return false,
            }
        }
        true
    }
}

impl AsFd for FunctionThread {
    /// Becomes readable when the function has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}
