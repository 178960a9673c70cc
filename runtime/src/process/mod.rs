//! Defines [`Process`], which runs one function in its own process.
//!
//! A process is a worker that serves one task and has no pool. All processes of a host have one driver (`engine.rs`), which reads from
//! them, whether or not a thread waits for them, and reaps them when they end.

mod builder;
mod child;
mod engine;
mod in_process;
mod set;
mod slot;

use std::{
    fmt,
    future::Future,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use serde::de::DeserializeOwned;

pub use builder::ProcessBuilder;

use child::OwnedProcess;
use in_process::FunctionThread;

use crate::{
    error::{Error, Exit, Result, TaskError, TaskErrorKind, TaskLocation},
    handle::Handle,
    task::IntoTask,
};

/// A process that runs one function, like `multiprocessing.Process` in Python.
///
/// The process starts immediately, runs the function and exits. Before it exits, its output is flushed and exit handlers run, for
/// at most two seconds. Threads that the function left running end with the process. Dropping a `Process` kills it, and
/// [`detach`](Self::detach) lets it continue. No process outlives its parent, however the parent ends.
///
/// The result is read as soon as it is available, by a thread that waits for a process, or else by one thread for all processes. It
/// may have any size, is stored until [`join`](Self::join) returns it, and does not block the process. `Process` is also a
/// [`Future`] with the same output as `join`, for any executor.
///
/// Within the function, [`is_worker`](crate::is_worker) returns `true`, [`worker_index`](crate::worker_index) returns `None`, and
/// a `parallel!` that names no pool runs in that process. The function may create pools and processes. They end with its process.
///
/// With `PROCESSION_IN_PROCESS=1`, the function runs on a thread of this process. [`id`](Self::id) then returns this process's
/// pid, [`terminate`](Self::terminate) and [`kill`](Self::kill) return errors, and the thread of a dropped `Process` continues.
///
/// # Examples
///
/// ```
/// use procession::{Process, delayed, worker};
///
/// #[worker]
/// fn greet(name: &str) -> (String, u32) {
///     (format!("hello, {name}"), std::process::id())
/// }
///
/// let mut process = Process::spawn(delayed!(greet("bob")))?;
/// let id = process.id();
/// assert_eq!(process.join()?, ("hello, bob".to_owned(), id));
/// assert!(!process.is_alive());
/// assert_eq!(process.exit_status().and_then(|exit| exit.code()), Some(0));
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use = "dropping a process kills it: join it, or detach it"]
pub struct Process<T> {
    name: Arc<str>,
    function: &'static str,
    id: u32,
    handle: Handle<T>,
    /// The result has been returned.
    taken: bool,
    backend: Backend,
}

enum Backend {
    Child(OwnedProcess),
    /// With `PROCESSION_IN_PROCESS=1`.
    InProcess(Arc<FunctionThread>),
}

impl<T: DeserializeOwned + 'static> Process<T> {
    /// Spawns a process for the function with default settings.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`ProcessBuilder::spawn`].
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn spawn(task: impl IntoTask<T>) -> Result<Self> {
        Process::builder().spawn(task)
    }

    /// Waits for the process to end and returns the result of the function.
    ///
    /// # Errors
    ///
    /// Returns an error if the function panicked ([`is_panic`](TaskError::is_panic)), if the process ended early, for example
    /// because of [`terminate`](Self::terminate) ([`is_crash`](TaskError::is_crash)), or if it could not be started
    /// ([`is_lost`](TaskError::is_lost)). The result is returned once. A second call returns an error
    /// ([`is_lost`](TaskError::is_lost)).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// // The result was taken.
    /// assert!(process.join().is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join(&mut self) -> Result<T, TaskError> {
        // No deadline is that late, so there is always a result.
        self.join_timeout(Duration::MAX).unwrap_or_else(|| Err(self.lost("it is not at its end")))
    }

    /// Waits for the process to end for at most `timeout`. Returns `None` if it has not ended by then.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`join`](Self::join).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn wait_for_ever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(wait_for_ever()))?;
    /// assert!(process.join_timeout(Duration::from_millis(10)).is_none());
    /// process.terminate()?;
    /// let error = process.join().unwrap_err();
    /// assert!(error.is_crash() && error.to_string().contains("SIGTERM"), "{error}");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, TaskError>> {
        if self.taken {
            return Some(Err(self.lost_result()));
        }
        let result = self.handle.join_timeout(timeout);
        self.taken = result.is_some();
        result
    }
}

impl<T> Process<T> {
    /// Returns the pid of the process.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn own_id() -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(own_id()))?;
    /// let id = process.id();
    /// assert_eq!(process.join()?, id);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the name of the process: the one given to [`ProcessBuilder::name`], or the name of the function and a number, as
    /// in `serve-3`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let process = Process::builder().name("squares").spawn(delayed!(square(7)))?;
    /// assert_eq!(process.name(), "squares");
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the process is still running.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(square(7)))?;
    /// process.join()?;
    /// assert!(!process.is_alive());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match &self.backend {
            Backend::Child(child) => child.ended().is_none(),
            Backend::InProcess(here) => here.ended().is_none(),
        }
    }

    /// Returns how the process ended, or `None` while it runs.
    ///
    /// The exit code is 0 if the function returned, even if it returned an `Err`. It is 101 if the function panicked, as for any
    /// Rust program, and otherwise the argument of `exit`. The status is also `None` if it cannot be known, because other code in
    /// this process collected it, or because the template that the process was forked from was killed.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(square(7)))?;
    /// process.join()?;
    /// assert_eq!(process.exit_status().and_then(|exit| exit.code()), Some(0));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn exit_status(&self) -> Option<Exit> {
        match &self.backend {
            Backend::Child(child) => child.ended().flatten(),
            Backend::InProcess(here) => here.ended(),
        }
    }

    /// Sends SIGTERM to the process. Does nothing if the process has ended.
    ///
    /// A process that handles or ignores SIGTERM continues. Use [`kill`](Self::kill) to end it.
    ///
    /// # Errors
    ///
    /// Returns an error if the signal could not be sent, or if the function runs in this process.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn wait_for_ever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(wait_for_ever()))?;
    /// process.terminate()?;
    /// assert!(process.join().unwrap_err().is_crash());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn terminate(&self) -> Result<()> {
        match &self.backend {
            Backend::Child(child) if !child.is_own() => Err(self.not_own()),
            Backend::Child(child) => child.terminate().map_err(|error| {
                Error::system(format!("process `{}` cannot be signalled", self.name), error)
            }),
            Backend::InProcess(here) => here.unstoppable(&self.name),
        }
    }

    /// Kills the process and its process group with SIGKILL. Does nothing if the process has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the function runs in this process.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn wait_for_ever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let mut process = Process::spawn(delayed!(wait_for_ever()))?;
    /// process.kill()?;
    /// let error = process.join().unwrap_err();
    /// assert!(error.exit().is_some_and(|exit| exit.to_string() == "SIGKILL"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn kill(&self) -> Result<()> {
        match &self.backend {
            Backend::Child(child) if !child.is_own() => Err(self.not_own()),
            Backend::Child(child) => {
                child.kill();
                Ok(())
            }
            Backend::InProcess(here) => here.unstoppable(&self.name),
        }
    }

    /// Lets the process run until it ends by itself or this process ends. It is then reaped automatically.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn tidy_up(folder: &str) { /* takes a while */ }
    ///
    /// Process::spawn(delayed!(tidy_up("/tmp/some")))?.detach();
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn detach(self) {
        if let Backend::Child(child) = self.backend {
            child.detach();
        }
    }

    fn not_own(&self) -> Error {
        Error::config(format!(
            "process `{}` was started by the process that this one was forked from, and only that process can end it",
            self.name
        ))
    }

    fn lost_result(&self) -> TaskError {
        self.lost("its result was already taken")
    }

    fn lost(&self, words: &str) -> TaskError {
        let kind = TaskErrorKind::Lost { message: words.to_owned() };
        TaskError::new(self.function, kind, TaskLocation::default()).in_pool(Some(&self.name))
    }
}

impl Process<()> {
    /// Returns a builder with default settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Process, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let mut process = Process::builder().name("squares").nice(5).spawn(delayed!(square(7)))?;
    /// assert_eq!(process.join()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::new()
    }
}

impl<T: DeserializeOwned + 'static> Future for Process<T> {
    type Output = Result<T, TaskError>;

    /// Like [`join`](Self::join). A process that was polled is killed when it is dropped, like any other.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.taken {
            return Poll::Ready(Err(self.lost_result()));
        }
        let polled = Pin::new(&mut self.handle).poll(context);
        self.taken = polled.is_ready();
        polled
    }
}

/// Becomes readable when the process has ended.
impl<T> AsFd for Process<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.backend {
            Backend::Child(child) => child.as_fd(),
            Backend::InProcess(here) => here.as_fd(),
        }
    }
}

impl<T> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("function", &self.function)
            .field("id", &self.id)
            .field("is_alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}
