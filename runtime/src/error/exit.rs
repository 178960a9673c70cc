//! Defines [`Exit`], which describes how a process ended.

use std::fmt;

/// The end of a process: an exit code, or a signal. A signal is displayed by name, such as `SIGSEGV`.
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
