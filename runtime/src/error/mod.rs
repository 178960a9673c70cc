//! The public error types and their messages.
//!
//! [`TaskError`] is the failure of one task, and [`Error`] is returned by everything else. [`RemoteError`] is for functions that
//! use `?` on errors of any kind. [`Exit`] describes how a process ended. Nothing here makes system calls.

mod exit;
mod kind;
mod remote;
mod task;

use std::fmt;

pub use exit::Exit;
pub use kind::Fault;
pub use remote::RemoteError;
pub use task::TaskError;

pub(crate) use kind::{FaultKind, TaskErrorKind, TaskLocation};

use crate::{escape::Lines, sys::limits::explained};
use remote::RemoteSource;

/// The result type of this crate's operations, except for single tasks, which return [`TaskError`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of everything except a single task: the failure of a task within a call, an invalid request, or a failed system
/// call.
///
/// # Examples
///
/// ```
/// use procession::{Error, Pool, delayed, worker};
///
/// # #[worker]
/// # fn square(n: u64) -> u64 {
/// #     n * n
/// # }
/// #
/// fn squares(jobs: i64) -> Result<Vec<u64>, Error> {
///     // An invalid setting and the failure of a task are passed on in the same way.
///     let pool = Pool::new(jobs)?;
///     pool.map((1..4).map(|n| delayed!(square(n))))
/// }
///
/// let error = squares(0).unwrap_err();
/// println!("{error}");
/// assert!(error.as_task_error().is_none(), "no task has failed");
/// # Ok::<(), Error>(())
/// ```
pub struct Error(Box<ErrorKind>);

#[derive(Debug)]
enum ErrorKind {
    Task(TaskError),
    Remote(RemoteError),
    /// The request of the caller is invalid.
    Config(String),
    /// A system call failed. The text says what it was for.
    System(String, std::io::Error),
}

impl Error {
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self(Box::new(ErrorKind::Config(message.into())))
    }

    /// Of a shortage, the limit behind it is named, too.
    pub(crate) fn system(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self(Box::new(ErrorKind::System(doing.into(), explained(source))))
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

/// Prints the message for users, because `main` prints this when it returns an error.
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

impl From<RemoteError> for Box<dyn std::error::Error> {
    fn from(error: RemoteError) -> Self {
        Box::new(RemoteSource { message: error.message, source: error.source })
    }
}

/// The reason for a cancellation that was not requested.
pub(crate) const POOL_ENDED: &str = "its pool has ended";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::remote::MOST_SOURCES, id::WorkerId, panic::RemotePanic};
    use std::sync::Arc;

    fn place(index: Option<usize>) -> TaskLocation {
        TaskLocation { index, attempts: 1, worker: Some((WorkerId(2), 4242)) }
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
            "a task of `a::f` crashed in worker 2 (pid 4242): the process exited with exit code 3"
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
        let error = TaskError::new("a::f", kind(), TaskLocation { attempts: 3, ..place(None) })
            .in_pool(Some(&Arc::from("scoring")));
        assert_eq!(
            error.to_string(),
            "a task of `a::f` crashed after 3 attempts: worker 2 of `scoring` (pid 4242) disappeared: other code \
             collected it"
        );
    }

    #[test]
    fn an_error_displays_the_reason_why_no_worker_started_and_has_its_predicates() {
        let crash = TaskErrorKind::Crash { exit: Ok(Exit::from_code(3)), cause: None };
        let why = format!("{}; given up", crash.of("the initializer `a::load`"));
        let kind = TaskErrorKind::NotStarted { why, cause: Some(Box::new(crash)) };
        let error = TaskError::new("a::f", kind, TaskLocation::default());
        assert_eq!(
            error.to_string(),
            "a task of `a::f` was lost: no worker could be started: the initializer `a::load` crashed: the process \
             exited with exit \
             code 3; given up"
        );
        assert!(error.is_crash() && error.is_lost());
        assert_eq!(error.exit().and_then(|exit| exit.code()), Some(3));
        let kind = TaskErrorKind::NotStarted { why: "there is no memory".to_owned(), cause: None };
        let error = TaskError::new("a::f", kind, TaskLocation::default());
        assert!(error.is_lost() && !error.is_crash());
    }

    #[test]
    fn the_panic_of_an_initializer_is_raised_again() {
        let panic = RemotePanic::from_payload(&"no model");
        let cause = TaskErrorKind::Panic { panic, exit: None };
        let kind = TaskErrorKind::NotStarted { why: "given up".to_owned(), cause: Some(Box::new(cause)) };
        let error = TaskError::new("a::f", kind, TaskLocation::default());
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

    /// Converts like `?`.
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
