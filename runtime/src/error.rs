//! The public error types and their words.
//!
//! [`TaskError`] is what one task comes to; [`Error`] is what everything else returns; [`RemoteError`] is the error that
//! functions return when they want to use `?` on errors of any kind. [`Exit`] is how a process ended.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    captured::Captured,
    escape::{Escaped, Lines},
    id::WorkerId,
    panic::RemotePanic,
    terminal::aside,
};

/// The result type of this crate's operations, except for single tasks, which return [`TaskError`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a process ended: with an exit code, or by a signal. A signal is displayed by name, such as `SIGSEGV`.
///
/// # Examples
///
/// ```
/// use procession::{Pool, delayed, worker};
///
/// #[worker]
/// fn crash() {
///     std::process::abort();
/// }
///
/// let pool = Pool::new(1)?;
/// let error = pool.submit(delayed!(crash())).join().unwrap_err();
/// let exit = error.exit().expect("it crashed");
/// assert_eq!(exit.to_string(), "SIGABRT");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exit(ExitKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ExitKind {
    Code(i32),
    Signal(i32),
}

impl Exit {
    pub(crate) fn from_code(code: i32) -> Self {
        Self(ExitKind::Code(code))
    }

    pub(crate) fn from_signal(signal: i32) -> Self {
        Self(ExitKind::Signal(signal))
    }

    /// Returns the exit code, or `None` if a signal ended the process.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn leave() {
    ///     std::process::exit(3);
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(leave())).join().unwrap_err();
    /// assert_eq!(error.exit().and_then(|exit| exit.code()), Some(3));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self.0 {
            ExitKind::Code(code) => Some(code),
            ExitKind::Signal(_) => None,
        }
    }

    /// Returns the number of the signal that ended the process, or `None` if it exited.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn crash() {
    ///     std::process::abort();
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(crash())).join().unwrap_err();
    /// assert_eq!(error.exit().and_then(|exit| exit.signal()), Some(6));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.0 {
            ExitKind::Code(_) => None,
            ExitKind::Signal(signal) => Some(signal),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ExitKind::Code(code) => write!(f, "exit code {code}"),
            ExitKind::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(known) => f.write_str(known.as_str()),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// The failure of one task.
///
/// The kind of failure is available through predicates ([`is_panic`](Self::is_panic), [`is_crash`](Self::is_crash) and so on),
/// and its details through accessors ([`function`](Self::function), [`attempts`](Self::attempts) and so on). Displayed, it is one
/// paragraph that names the function, the worker and the cause.
///
/// When displayed, text that originates in a worker has its control characters escaped (`\u{1b}`) and all lines after the first
/// indented, so that it cannot affect a terminal or be mistaken for a message of this process. The accessors return the text
/// unchanged.
///
/// # Examples
///
/// ```
/// use procession::{delayed, worker};
///
/// #[worker]
/// fn divide(a: u32, b: u32) -> u32 {
///     a / b
/// }
///
/// let error = delayed!(divide(1, 0)).call().unwrap_err();
/// assert!(error.is_panic() && !error.is_crash());
/// assert!(error.to_string().contains("attempt to divide by zero"));
/// ```
pub struct TaskError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: TaskErrorKind,
    function: &'static str,
    place: Place,
    /// The name of the pool, if it was given one, or of the process for one function.
    pool: Option<Arc<str>>,
    /// What the task had written, where the pool keeps that.
    output: Option<Arc<Captured>>,
}

/// Where a task was and what is known of its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its index in the call that it belongs to.
    pub(crate) index: Option<usize>,
    /// How often it was started.
    pub(crate) attempts: u32,
    /// Who ran it last: the worker's place in the pool and its process.
    pub(crate) worker: Option<(WorkerId, u32)>,
}

/// Why a task that ran gave no result: the words of whoever ran it. Crosses processes.
///
/// As small as can be: a result that is no fault is moved with the room for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault(Box<FaultKind>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FaultKind {
    /// The function panicked.
    Panic(RemotePanic),
    /// A value did not encode or decode, in these words.
    Codec(String),
}

impl Fault {
    #[cold]
    pub(crate) fn panic(panic: RemotePanic) -> Self {
        Self(Box::new(FaultKind::Panic(panic)))
    }

    #[cold]
    pub(crate) fn codec(words: String) -> Self {
        Self(Box::new(FaultKind::Codec(words)))
    }

    pub(crate) fn into_kind(self) -> FaultKind {
        *self.0
    }
}

impl From<Fault> for TaskErrorKind {
    fn from(fault: Fault) -> Self {
        match fault.into_kind() {
            FaultKind::Panic(panic) => Self::Panic { panic, exit: None },
            FaultKind::Codec(message) => Self::Codec { message },
        }
    }
}

/// Who is at fault, and how.
#[derive(Clone, Debug)]
pub(crate) enum TaskErrorKind {
    /// The function panicked; under `panic = "abort"` the worker ended, too.
    Panic { panic: RemotePanic, exit: Option<Exit> },
    /// The worker ended while it ran the task: how, or why that is not known.
    Crash { exit: Result<Exit, &'static str>, cause: Option<Cow<'static, str>> },
    /// The task ran past its deadline.
    Timeout { limit: Duration },
    /// Someone took the task back, or the pool ended.
    Cancelled { why: &'static str },
    /// The task went past its worker's memory limit.
    OutOfMemory { exit: Option<Exit>, why: Box<str> },
    /// A value did not encode or decode.
    Codec { message: String },
    /// The outcome of the task is unknown.
    Lost { message: String },
    /// No worker could be started: why, and what the last that was tried came to, if it came to its initializer.
    NotStarted { why: String, cause: Option<Box<TaskErrorKind>> },
}

impl TaskErrorKind {
    /// What a task comes to that cannot run at all.
    pub(crate) fn lost(error: &Error) -> Self {
        Self::Lost { message: error.to_string() }
    }

    /// What a task came to, or in place of it the initializer of its worker.
    fn blamed(&self) -> &Self {
        match self {
            Self::NotStarted { cause: Some(cause), .. } => cause,
            kind => kind,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Panic { .. } => "panicked",
            Self::Crash { .. } => "crashed",
            Self::Timeout { .. } => "timed out",
            Self::Cancelled { .. } => "was cancelled",
            Self::OutOfMemory { .. } => "ran out of memory",
            Self::Codec { .. } => "failed to cross",
            Self::Lost { .. } | Self::NotStarted { .. } => "was lost",
        }
    }

    /// What it means that an initializer came to this, or a finalizer: its name and this follow each other.
    pub(crate) fn of(&self, name: &str) -> String {
        format!("{name} {}: {self}", self.verb())
    }
}

impl fmt::Display for TaskErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic { panic, .. } => write!(f, "{panic}"),
            Self::Crash { exit: Ok(exit), cause: Some(cause) } => write!(f, "{} ({exit})", Lines(cause)),
            Self::Crash { exit: Err(_), cause: Some(cause) } => write!(f, "{}", Lines(cause)),
            Self::Crash { exit: Ok(exit), cause: None } if exit.signal().is_some() => {
                write!(f, "killed by {exit}")
            }
            Self::Crash { exit: Ok(exit), cause: None } => write!(f, "the process left with {exit}"),
            Self::Crash { exit: Err(why), cause: None } => write!(f, "the process disappeared: {why}"),
            Self::Cancelled { why } => f.write_str(why),
            Self::Codec { message } | Self::Lost { message } => write!(f, "{}", Lines(message)),
            Self::Timeout { limit } => write!(f, "it ran for longer than its limit of {limit:?}"),
            Self::OutOfMemory { exit: Some(exit), why } => write!(f, "{} ({exit})", Lines(why)),
            Self::OutOfMemory { exit: None, why } => write!(f, "{}", Lines(why)),
            Self::NotStarted { why, .. } => write!(f, "no worker could be started: {}", Lines(why)),
        }
    }
}

impl TaskError {
    pub(crate) fn new(function: &'static str, kind: TaskErrorKind, place: Place) -> Self {
        Self(Box::new(Inner { kind, function, place, pool: None, output: None }))
    }

    pub(crate) fn kind(&self) -> &TaskErrorKind {
        &self.0.kind
    }

    pub(crate) fn in_pool(mut self, name: Option<&Arc<str>>) -> Self {
        self.0.pool = name.cloned();
        self
    }

    pub(crate) fn with_output(mut self, output: Option<Arc<Captured>>) -> Self {
        self.0.output = output;
        self
    }

    /// Returns `true` if the function panicked. [`panic`](Self::panic) returns the message and the location.
    ///
    /// If [`is_lost`](Self::is_lost) is `true` as well, the initializer of the worker panicked, and the task did not run.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// assert!(error.is_panic());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0.kind.blamed(), TaskErrorKind::Panic { .. })
    }

    /// Returns `true` if the worker process ended while it ran the task: by a signal, `exit`, `abort` or a stack overflow.
    ///
    /// [`exit`](Self::exit) returns how it ended. If [`is_lost`](Self::is_lost) is `true` as well, the process ended in its
    /// initializer, and the task did not run.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn crash() {
    ///     std::process::abort();
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(crash())).join().unwrap_err();
    /// assert!(error.is_crash() && !error.is_panic());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_crash(&self) -> bool {
        matches!(self.0.kind.blamed(), TaskErrorKind::Crash { .. })
    }

    /// Returns `true` if the task exceeded its deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn wait_for_ever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).task_timeout(std::time::Duration::from_millis(50)).build()?;
    /// assert!(pool.submit(delayed!(wait_for_ever())).join().unwrap_err().is_timeout());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind.blamed(), TaskErrorKind::Timeout { .. })
    }

    /// Returns `true` if the task was cancelled, or its pool ended before the task did.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn wait_for_ever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let handle = pool.submit(delayed!(wait_for_ever()));
    /// handle.cancel();
    /// assert!(handle.join().unwrap_err().is_cancelled());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.kind.blamed(), TaskErrorKind::Cancelled { .. })
    }

    /// Returns `true` if the task exceeded the [`memory_limit`](crate::Builder::memory_limit) of its worker, or the kernel killed
    /// the worker because memory was exhausted.
    ///
    /// [`exit`](Self::exit) returns how the worker ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn hoard(bytes: usize) -> u8 {
    ///     vec![1u8; bytes][bytes / 2]
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).memory_limit(128 << 20).build()?;
    /// assert!(pool.submit(delayed!(hoard(1 << 30))).join().unwrap_err().is_out_of_memory());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self.0.kind.blamed(), TaskErrorKind::OutOfMemory { .. })
    }

    /// Returns `true` if an argument or the result could not be encoded or decoded.
    #[must_use]
    pub fn is_codec(&self) -> bool {
        matches!(self.0.kind.blamed(), TaskErrorKind::Codec { .. })
    }

    /// Returns `true` if no worker could be started for the task, or if it is unknown whether the task ran.
    ///
    /// If no worker could be started because the initializer failed, the other predicates and accessors, such as
    /// [`is_panic`](Self::is_panic) and [`exit`](Self::exit), describe the failure of the initializer. Such an error can be both
    /// lost and a panic.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.0.kind, TaskErrorKind::Lost { .. } | TaskErrorKind::NotStarted { .. })
            || matches!(self.0.kind.blamed(), TaskErrorKind::Lost { .. })
    }

    /// Returns the full path of the function, as in `census::entropy`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// assert!(error.function().ends_with("third"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn function(&self) -> &str {
        self.0.function
    }

    /// Returns the position of the task in its call, starting at 0, or `None` for a task that was submitted individually.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.map([vec![0; 3], vec![]].map(|numbers| delayed!(third(numbers)))).unwrap_err();
    /// assert_eq!(error.as_task_error().and_then(|error| error.task_index()), Some(1));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn task_index(&self) -> Option<usize> {
        self.0.place.index
    }

    /// Returns how many times the task was started. This is 0 if it never started, and greater than 1 after retries.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// assert_eq!(error.attempts(), 1);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.place.attempts
    }

    /// Returns the pid of the process that last ran the task. The process may have ended, and its pid may be in use by another
    /// process.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// assert_ne!(error.worker_pid(), Some(std::process::id()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn worker_pid(&self) -> Option<u32> {
        self.0.place.worker.map(|(_, pid)| pid)
    }

    /// Returns the panic, if the function panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// let panic = error.panic().expect("it panicked");
    /// assert!(panic.message().contains("the len is 1 but the index is 2"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn panic(&self) -> Option<&RemotePanic> {
        match self.0.kind.blamed() {
            TaskErrorKind::Panic { panic, .. } => Some(panic),
            _ => None,
        }
    }

    /// Returns how the worker ended, if it ended while it ran the task, or in its initializer if [`is_lost`](Self::is_lost) is
    /// `true`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn crash() {
    ///     std::process::abort();
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.submit(delayed!(crash())).join().unwrap_err();
    /// assert!(error.exit().is_some_and(|exit| exit.code().is_none()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match self.0.kind.blamed() {
            TaskErrorKind::Panic { exit, .. } | TaskErrorKind::OutOfMemory { exit, .. } => *exit,
            TaskErrorKind::Crash { exit, .. } => exit.ok(),
            _ => None,
        }
    }

    /// Returns the last 64 KiB that the task wrote to stderr, if any.
    ///
    /// Output is recorded if the pool's [`Output`](crate::Output) for stderr is `Capture` or `Log`. Otherwise this returns
    /// `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn crash() {
    ///     eprintln!("the disk is on fire");
    ///     std::process::abort()
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).stderr(Output::Capture).build()?;
    /// let error = pool.submit(delayed!(crash())).join().unwrap_err();
    /// assert!(error.stderr_tail().is_some_and(|words| words.contains("the disk is on fire")));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn stderr_tail(&self) -> Option<&str> {
        self.0.output.as_ref().map(|output| output.stderr()).filter(|words| !words.is_empty())
    }

    /// Returns the last 64 KiB that the task wrote to stdout, under the same conditions as [`stderr_tail`](Self::stderr_tail).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Output, Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn last_words() {
    ///     println!("so far");
    ///     std::process::abort();
    /// }
    ///
    /// let pool = Pool::builder().jobs(1).stdout(Output::Capture).build()?;
    /// let error = pool.submit(delayed!(last_words())).join().unwrap_err();
    /// assert_eq!(error.stdout_tail(), Some("so far\n"));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn stdout_tail(&self) -> Option<&str> {
        self.0.output.as_ref().map(|output| output.stdout()).filter(|words| !words.is_empty())
    }

    /// Raises the worker's panic in this process, with the same message as its payload.
    ///
    /// # Panics
    ///
    /// Always panics. If the error is not a panic, the message is the displayed error.
    #[expect(
        clippy::print_stderr,
        reason = "the panic hook does not run again, and a panic that says nothing helps nobody"
    )]
    pub fn resume_panic(self) -> ! {
        let words = self.to_string();
        match self.0.kind.blamed() {
            TaskErrorKind::Panic { panic, .. } => {
                aside(|| eprintln!("{words}"));
                panic.clone().resume()
            }
            _ => panic!("{words}"),
        }
    }
}

impl Clone for TaskError {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, function, place, pool, output: _ } = &*self.0;
        let function = Escaped(function);
        match place.index {
            Some(index) => write!(f, "task {index} of `{function}` ")?,
            None => write!(f, "a task of `{function}` ")?,
        }
        f.write_str(kind.verb())?;
        let who =
            |f: &mut fmt::Formatter<'_>, (worker, pid): (WorkerId, u32)| match pool.as_ref().map(Escaped) {
                Some(process) if worker == WorkerId::ALONE => write!(f, "process `{process}` (pid {pid})"),
                Some(pool) => write!(f, "worker {worker} of `{pool}` (pid {pid})"),
                None => write!(f, "worker {worker} (pid {pid})"),
            };
        let after = |f: &mut fmt::Formatter<'_>| match place.attempts {
            0 | 1 => Ok(()),
            attempts => write!(f, " after {attempts} attempts"),
        };
        if let (TaskErrorKind::Crash { exit: Err(why), cause: None }, Some(worker)) = (kind, place.worker) {
            after(f)?;
            f.write_str(": ")?;
            who(f, worker)?;
            return write!(f, " disappeared: {why}");
        }
        if let Some(worker) = place.worker {
            f.write_str(" in ")?;
            who(f, worker)?;
        }
        after(f)?;
        write!(f, ": {kind}")
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskError")
            .field("function", &self.0.function)
            .field("kind", &self.0.kind)
            .field("place", &self.0.place)
            .finish()
    }
}

impl std::error::Error for TaskError {}

/// The error of everything except a single task: the failure of a task within a call, an invalid request, or a failed system
/// call.
pub struct Error(Box<ErrorKind>);

#[derive(Debug)]
enum ErrorKind {
    Task(TaskError),
    Remote(RemoteError),
    /// What the caller asked for cannot be.
    Config(String),
    /// A system call failed, in the course of what is said.
    System(String, std::io::Error),
}

impl Error {
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self(Box::new(ErrorKind::Config(message.into())))
    }

    pub(crate) fn system(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self(Box::new(ErrorKind::System(doing.into(), source)))
    }

    /// Returns the failure of the task, if that is the cause.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.map([delayed!(third(vec![]))]).unwrap_err();
    /// assert!(error.as_task_error().is_some_and(|error| error.is_panic()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn as_task_error(&self) -> Option<&TaskError> {
        match &*self.0 {
            ErrorKind::Task(error) => Some(error),
            _ => None,
        }
    }

    /// Converts the error into the failure of the task, if that is the cause.
    ///
    /// # Errors
    ///
    /// Returns the error itself if it has another cause.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn third(numbers: Vec<u32>) -> u32 {
    ///     numbers[2]
    /// }
    ///
    /// let pool = Pool::new(1)?;
    /// let error = pool.map([delayed!(third(vec![]))]).unwrap_err();
    /// assert!(error.into_task_error().is_ok_and(|error| error.is_panic()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn into_task_error(self) -> Result<TaskError, Self> {
        match *self.0 {
            ErrorKind::Task(error) => Ok(error),
            other => Err(Self(Box::new(other))),
        }
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Self {
        Self(Box::new(ErrorKind::Task(error)))
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        Self(Box::new(ErrorKind::Remote(error)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            ErrorKind::Task(error) => error.fmt(f),
            ErrorKind::Remote(error) => error.fmt(f),
            ErrorKind::Config(message) => write!(f, "{}", Lines(message)),
            ErrorKind::System(doing, source) => write!(f, "{}: {}", Lines(doing), Lines(source)),
        }
    }
}

/// Printed for people, for this is what `main` prints when it returns one.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.0.fmt(f);
        }
        write!(f, "{self}")?;
        if let ErrorKind::Remote(error) = &*self.0 {
            for cause in error.sources() {
                write!(f, "\n  caused by: {}", Lines(cause))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.0 {
            ErrorKind::Remote(error) => error.source.as_deref().map(|s| s as &dyn std::error::Error),
            ErrorKind::Task(_) | ErrorKind::Config(_) | ErrorKind::System(..) => None,
        }
    }
}

/// An error that can cross processes: the message of any error, and the messages of its sources.
///
/// In a function that returns `Result<T, RemoteError>`, `?` converts every error that is `Send` and `Sync`, as well as `Box<dyn
/// Error + Send + Sync>`, `anyhow::Error`, `String` and `&str`. [`RemoteError::msg`] converts all others:
/// `.map_err(RemoteError::msg)?`.
///
/// `RemoteError` does not implement [`std::error::Error`], because `?` could not convert boxed errors otherwise. `?` converts a
/// `RemoteError` to `Box<dyn Error>` and to [`Error`].
///
/// # Examples
///
/// ```
/// use procession::{RemoteError, delayed, worker};
///
/// #[worker]
/// fn parse(s: &str) -> Result<u32, RemoteError> {
///     Ok(s.trim().parse::<u32>()?)
/// }
///
/// let error = delayed!(parse("x")).call().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteError {
    message: String,
    source: Option<Box<RemoteSource>>,
}

/// One error beneath a [`RemoteError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RemoteSource {
    message: String,
    source: Option<Box<RemoteSource>>,
}

/// More causes than any honest error has: a chain is cut there, for an error may name itself as its source.
const MOST_SOURCES: usize = 64;

impl RemoteError {
    /// Creates an error from a message, or from another error and its sources.
    ///
    /// Accepts strings, errors of every type including those that are not `Send`, and `Box<dyn Error>`, which `?` does not
    /// convert.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{RemoteError, worker};
    ///
    /// fn load(path: &str) -> Result<String, Box<dyn std::error::Error>> {
    ///     Ok(std::fs::read_to_string(path)?)
    /// }
    ///
    /// #[worker]
    /// fn count_lines(path: &str) -> Result<usize, RemoteError> {
    ///     let text = load(path).map_err(RemoteError::msg)?;
    ///     match text.lines().count() {
    ///         0 => Err(RemoteError::msg(format!("{path} has no lines"))),
    ///         lines => Ok(lines),
    ///     }
    /// }
    ///
    /// assert_eq!(count_lines("/dev/null").unwrap_err().to_string(), "/dev/null has no lines");
    /// ```
    #[must_use]
    pub fn msg<'a>(error: impl Into<Box<dyn std::error::Error + 'a>>) -> Self {
        Self::of(&*error.into())
    }

    fn of(error: &dyn std::error::Error) -> Self {
        let messages: Vec<String> = std::iter::successors(error.source(), |s| s.source())
            .take(MOST_SOURCES)
            .map(|source| source.to_string())
            .collect();
        let source = messages
            .into_iter()
            .rev()
            .fold(None, |source, message| Some(Box::new(RemoteSource { message, source })));
        Self { message: error.to_string(), source }
    }

    /// Returns the messages of the error's sources, beginning with the direct source.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::RemoteError;
    ///
    /// let error = RemoteError::from("x".parse::<u32>().unwrap_err());
    /// assert_eq!(error.sources().count(), 0);
    /// ```
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(self.source.as_deref(), |s| s.source.as_deref()).map(|s| s.message.as_str())
    }
}

/// What `?` converts to a [`RemoteError`].
#[diagnostic::on_unimplemented(
    message = "`?` cannot convert `{Self}` to `RemoteError` by itself",
    label = "this is no error, or is not `Send` and `Sync`: write `.map_err(RemoteError::msg)?`, which takes any error"
)]
pub trait IntoRemoteError<'a>: Into<Box<dyn std::error::Error + Send + Sync + 'a>> {}

#[diagnostic::do_not_recommend]
impl<'a, E: Into<Box<dyn std::error::Error + Send + Sync + 'a>>> IntoRemoteError<'a> for E {}

// By way of std's conversion, which alone may cover errors and boxes of errors: std could make the boxes errors one day.
impl<'a, E: IntoRemoteError<'a>> From<E> for RemoteError {
    fn from(error: E) -> Self {
        Self::of(&*error.into())
    }
}

impl From<RemoteError> for Box<dyn std::error::Error> {
    fn from(error: RemoteError) -> Self {
        Box::new(RemoteSource { message: error.message, source: error.source })
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lines(&self.message))?;
        if f.alternate() {
            for source in self.sources() {
                write!(f, ": {}", Lines(source))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lines(&self.message))?;
        for source in self.sources() {
            write!(f, "\n  caused by: {}", Lines(source))?;
        }
        Ok(())
    }
}

impl fmt::Display for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lines(&self.message))
    }
}

impl std::error::Error for RemoteSource {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &dyn std::error::Error)
    }
}

/// Why a task was cancelled that nobody cancelled.
pub(crate) const POOL_ENDED: &str = "its pool has ended";

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: Option<usize>) -> Place {
        Place { index, attempts: 1, worker: Some((WorkerId(2), 4242)) }
    }

    #[test]
    fn a_crash_is_printed_with_its_signal_by_name() {
        let kind = TaskErrorKind::Crash { exit: Ok(Exit::from_signal(11)), cause: None };
        let error = TaskError::new("a::f", kind, place(Some(17)));
        assert_eq!(error.to_string(), "task 17 of `a::f` crashed in worker 2 (pid 4242): killed by SIGSEGV");
        assert_eq!(error.exit().and_then(|e| e.signal()), Some(11));
    }

    #[test]
    fn an_exit_is_printed_with_its_code() {
        let kind = TaskErrorKind::Crash { exit: Ok(Exit::from_code(3)), cause: None };
        let error = TaskError::new("a::f", kind, place(None));
        assert_eq!(
            error.to_string(),
            "a task of `a::f` crashed in worker 2 (pid 4242): the process left with exit code 3"
        );
    }

    #[test]
    fn a_worker_that_other_code_collected_is_named() {
        let kind = || TaskErrorKind::Crash { exit: Err("other code collected it"), cause: None };
        let error = TaskError::new("a::f", kind(), place(None));
        assert_eq!(
            error.to_string(),
            "a task of `a::f` crashed: worker 2 (pid 4242) disappeared: other code collected it"
        );
        assert!(error.is_crash() && error.exit().is_none());
        let error = TaskError::new("a::f", kind(), Place { attempts: 3, ..place(None) })
            .in_pool(Some(&Arc::from("scoring")));
        assert_eq!(
            error.to_string(),
            "a task of `a::f` crashed after 3 attempts: worker 2 of `scoring` (pid 4242) disappeared: other code collected it"
        );
    }

    #[test]
    fn what_kept_workers_from_starting_is_told_and_asked_for() {
        let crash = TaskErrorKind::Crash { exit: Ok(Exit::from_code(3)), cause: None };
        let why = format!("{}; given up", crash.of("the initializer `a::load`"));
        let kind = TaskErrorKind::NotStarted { why, cause: Some(Box::new(crash)) };
        let error = TaskError::new("a::f", kind, Place::default());
        assert_eq!(
            error.to_string(),
            "a task of `a::f` was lost: no worker could be started: the initializer `a::load` crashed: the process left with exit \
             code 3; given up"
        );
        assert!(error.is_crash() && error.is_lost());
        assert_eq!(error.exit().and_then(|exit| exit.code()), Some(3));
        let kind = TaskErrorKind::NotStarted { why: "there is no memory".to_owned(), cause: None };
        let error = TaskError::new("a::f", kind, Place::default());
        assert!(error.is_lost() && !error.is_crash());
    }

    #[test]
    fn the_panic_of_an_initializer_is_raised_again() {
        let panic = RemotePanic::from_payload(&"no model");
        let cause = TaskErrorKind::Panic { panic, exit: None };
        let kind = TaskErrorKind::NotStarted { why: "given up".to_owned(), cause: Some(Box::new(cause)) };
        let error = TaskError::new("a::f", kind, Place::default());
        assert!(error.is_panic() && error.is_lost());
        let payload = std::panic::catch_unwind(|| error.resume_panic()).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("no model"));
    }

    #[test]
    fn a_remote_error_keeps_every_source() {
        let error = RemoteError::from(Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!(format!("{error:#}"), "no number: invalid digit found in string");
        assert_eq!(error.sources().count(), 1);
    }

    #[test]
    fn an_error_that_is_its_own_source_ends() {
        #[derive(Debug)]
        struct Ouroboros;
        impl fmt::Display for Ouroboros {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("again")
            }
        }
        impl std::error::Error for Ouroboros {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&Ouroboros)
            }
        }
        assert_eq!(RemoteError::from(Ouroboros).sources().count(), MOST_SOURCES);
    }

    /// An error with a source.
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no number")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    /// What `?` makes of it.
    fn question<E>(error: E) -> RemoteError
    where
        RemoteError: From<E>,
    {
        let convert = || -> std::result::Result<(), RemoteError> { Err(error)? };
        convert().unwrap_err()
    }

    #[test]
    fn errors_of_every_kind_keep_their_sources_by_question_mark_or_by_msg() {
        let outer = || Outer("x".parse::<u8>().unwrap_err());
        let wanted = "no number: invalid digit found in string";
        let check = |error: RemoteError| assert_eq!(format!("{error:#}"), wanted);
        check(question(outer()));
        check(question(Box::<dyn std::error::Error + Send + Sync>::from(outer())));
        check(question(Box::new(outer())));
        check(question(std::sync::Arc::new(outer())));
        check(RemoteError::msg(outer()));
        let lent = outer();
        check(RemoteError::msg(&lent));
        check(RemoteError::msg(Box::<dyn std::error::Error>::from(outer())));
        check(RemoteError::msg(std::rc::Rc::new(outer()).to_string() + ": invalid digit found in string"));
        for error in [question("words"), question("words".to_owned()), RemoteError::msg("words")] {
            assert_eq!(format!("{error:#}"), "words");
        }
    }

    #[test]
    fn an_error_that_is_not_send_or_not_static_is_converted_by_msg() {
        let lock = std::sync::Mutex::new(0);
        let poisoned = std::sync::PoisonError::new(lock.lock().unwrap());
        assert!(RemoteError::msg(poisoned).to_string().starts_with("poisoned lock"));
    }

    #[test]
    fn a_remote_error_becomes_what_a_program_returns() {
        let remote = || RemoteError::from(Outer("x".parse::<u8>().unwrap_err()));
        let boxed = || -> std::result::Result<(), Box<dyn std::error::Error>> { Err(remote())? };
        assert_eq!(boxed().unwrap_err().source().unwrap().to_string(), "invalid digit found in string");
        let shared = || -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err(Error::from(remote()))?
        };
        assert_eq!(shared().unwrap_err().source().unwrap().to_string(), "invalid digit found in string");
    }
}
