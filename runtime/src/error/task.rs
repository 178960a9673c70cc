//! Defines [`TaskError`], the reason why a task has no result.

use std::{fmt, sync::Arc};

use super::{
    exit::Exit,
    kind::{TaskErrorKind, TaskLocation},
};
use crate::{
    captured::Captured, escape::Escaped, id::WorkerId, panic::RemotePanic, sys::identified::CLOSED,
    terminal::aside,
};

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
#[derive(Clone)]
pub struct TaskError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: TaskErrorKind,
    function: &'static str,
    place: TaskLocation,
    /// The name of the pool, if it has one, or of the process for one function.
    pool: Option<Arc<str>>,
    /// The output of the task, if the pool keeps it.
    output: Option<Arc<Captured>>,
    /// What the task may have changed in part.
    lent: Option<Box<str>>,
}

impl TaskError {
    pub(crate) fn new(function: &'static str, kind: TaskErrorKind, place: TaskLocation) -> Self {
        Self(Box::new(Inner { kind, function, place, pool: None, output: None, lent: None }))
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

    /// Returns whether a worker may still run the task, because other code has closed the descriptors by which its end is seen.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(&self.0.kind, TaskErrorKind::Lost { message } if message == CLOSED)
    }

    /// Notes what was lent to the task.
    pub(crate) fn after_lending(mut self, names: Option<String>) -> Self {
        self.0.lent = names.filter(|_| self.0.place.attempts > 0).map(Box::from);
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
        reason = "the panic hook does not run again, and a panic without a message is of no use"
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

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, function, place, pool, output: _, lent } = &*self.0;
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
        let changed = |f: &mut fmt::Formatter<'_>| match lent {
            Some(lent) => write!(f, "\n  it may have changed some of the {lent} that it was lent"),
            None => Ok(()),
        };
        let after = |f: &mut fmt::Formatter<'_>| match place.attempts {
            0 | 1 => Ok(()),
            attempts => write!(f, " after {attempts} attempts"),
        };
        if let (TaskErrorKind::Crash { exit: Err(why), cause: None }, Some(worker)) = (kind, place.worker) {
            after(f)?;
            f.write_str(": ")?;
            who(f, worker)?;
            write!(f, " disappeared: {why}")?;
            return changed(f);
        }
        if let Some(worker) = place.worker {
            f.write_str(" in ")?;
            who(f, worker)?;
        }
        after(f)?;
        write!(f, ": {kind}")?;
        changed(f)
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
