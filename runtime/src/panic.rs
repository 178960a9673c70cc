//! Defines [`RemotePanic`]: the message, location and backtrace of a panic, as values that can be sent to another process.
//!
//! The panic hook of `dispatch` captures the panics of tasks, in workers and in the calling process.

use std::{any::Any, backtrace::Backtrace, ffi::OsStr, fmt, panic::PanicHookInfo};

use serde::{Deserialize, Serialize};

use crate::escape::{Escaped, Lines};

/// A panic in a task, as the worker saw it. Returned by [`TaskError::panic`](crate::TaskError::panic).
///
/// # Examples
///
/// ```
/// use procession::{delayed, worker};
///
/// #[worker]
/// fn third(v: Vec<u32>) -> u32 {
///     v[2]
/// }
///
/// let error = delayed!(third(vec![1])).call().unwrap_err();
/// let panic = error.panic().expect("the function panicked");
/// assert_eq!(panic.message(), "index out of bounds: the len is 1 but the index is 2");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePanic {
    message: String,
    file: String,
    line: u32,
    column: u32,
    backtrace: String,
}

impl RemotePanic {
    /// Captures a panic in a panic hook.
    pub(crate) fn from_hook(info: &PanicHookInfo<'_>) -> Self {
        let location = info.location();
        Self {
            message: message_of(info.payload()),
            file: location.map(|l| l.file().to_owned()).unwrap_or_default(),
            line: location.map_or(0, std::panic::Location::line),
            column: location.map_or(0, std::panic::Location::column),
            backtrace: capture(Style::asked()),
        }
    }

    /// Captures what is known of a panic that no hook saw because a function replaced the hook: its payload.
    pub(crate) fn from_payload(payload: &(dyn Any + Send)) -> Self {
        Self {
            message: message_of(payload),
            file: String::new(),
            line: 0,
            column: 0,
            backtrace: String::new(),
        }
    }

    /// Returns the panic message. If the payload is not a string, the message says so.
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
    /// assert!(error.panic().is_some_and(|panic| panic.message().contains("the index is 2")));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the source file, or an empty string if the function replaced the panic hook.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns the line, starting at 1, or 0 if the function replaced the panic hook.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Returns the column, starting at 1, or 0 if the function replaced the panic hook.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.column
    }

    /// Returns the backtrace as displayed by [`std::backtrace::Backtrace`], or an empty string if no backtrace was requested.
    ///
    /// The rules are those for panics in any Rust program. A backtrace is requested if `RUST_BACKTRACE` is set to anything but
    /// `0` in the worker's environment. `full` requests all details. `RUST_LIB_BACKTRACE` has no effect on panics. For the
    /// workers of one pool, [`Builder::backtrace`](crate::Builder::backtrace) takes precedence over the environment.
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
    /// let pool = Pool::builder().jobs(1).backtrace(true).build()?;
    /// let error = pool.submit(delayed!(third(vec![1]))).join().unwrap_err();
    /// assert!(error.panic().is_some_and(|panic| panic.backtrace().contains("third")));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn backtrace(&self) -> &str {
        &self.backtrace
    }

    /// Raises the panic again in this process, with the message as its payload.
    pub(crate) fn resume(self) -> ! {
        std::panic::resume_unwind(Box::new(self.message))
    }
}

impl fmt::Display for RemotePanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lines(&self.message))?;
        if !self.file.is_empty() {
            write!(f, "\n  at {}:{}:{}", Escaped(&self.file), self.line, self.column)?;
        }
        Ok(())
    }
}

/// The amount of a backtrace that is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Off,
    Short,
    Full,
}

impl Style {
    /// Reads the request from the environment, by std's rules for panics. It is read each time, because a copy of the host has its
    /// own environment.
    pub(crate) fn asked() -> Self {
        Self::of(std::env::var_os("RUST_BACKTRACE").as_deref())
    }

    fn of(value: Option<&OsStr>) -> Self {
        match value {
            None => Self::Off,
            Some(value) if value == "0" => Self::Off,
            Some(value) if value == "full" => Self::Full,
            Some(_) => Self::Short,
        }
    }
}

fn capture(style: Style) -> String {
    match style {
        Style::Off => String::new(),
        Style::Short => Backtrace::force_capture().to_string(),
        Style::Full => format!("{:#}", Backtrace::force_capture()),
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(s) = payload.downcast_ref::<&'static str>() {
        (*s).to_owned()
    } else if let Some(s) = payload.downcast_ref::<String>() {
        s.clone()
    } else {
        "a panic whose payload is not a string".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_asks_for_a_backtrace_as_for_any_panic() {
        for (value, style) in [
            (None, Style::Off),
            (Some("0"), Style::Off),
            (Some("1"), Style::Short),
            (Some("full"), Style::Full),
            (Some(""), Style::Short),
            (Some("off"), Style::Short),
            (Some("00"), Style::Short),
        ] {
            assert_eq!(Style::of(value.map(OsStr::new)), style, "{value:?}");
        }
    }

    #[test]
    fn no_backtrace_is_captured_unasked() {
        assert_eq!(capture(Style::Off), "");
        assert!(capture(Style::Short).contains("no_backtrace_is_captured_unasked"));
        assert!(capture(Style::Full).contains("no_backtrace_is_captured_unasked"));
    }
}
