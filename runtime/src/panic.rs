//! `RemotePanic`: what a panic said, where, and its backtrace, as values that cross processes.
//!
//! Capturing happens in the worker's panic hook (see `worker`), or around a call made in this process (see `dispatch`).

use std::{any::Any, fmt, panic::PanicHookInfo};

use serde::{Deserialize, Serialize};

use crate::escape::{Escaped, Lines};

/// A panic that happened while a task ran, as the worker saw it.
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
    /// Takes down a panic from within a panic hook.
    pub(crate) fn from_hook(info: &PanicHookInfo<'_>) -> Self {
        let location = info.location();
        Self {
            message: message_of(info.payload()),
            file: location.map(|l| l.file().to_owned()).unwrap_or_default(),
            line: location.map_or(0, std::panic::Location::line),
            column: location.map_or(0, std::panic::Location::column),
            backtrace: std::backtrace::Backtrace::capture().to_string(),
        }
    }

    /// What is left when no hook saw the panic (a function replaced the hook): the payload alone.
    pub(crate) fn from_payload(payload: &(dyn Any + Send)) -> Self {
        Self {
            message: message_of(payload),
            file: String::new(),
            line: 0,
            column: 0,
            backtrace: String::new(),
        }
    }

    /// The panic's message; for a payload that is not a string, words that say so.
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

    /// The source file, as the compiler named it; empty if the function had replaced the panic hook.
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
    /// assert!(error.panic().is_some_and(|panic| panic.file().ends_with(".rs")));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1; 0 if the function had replaced the panic hook.
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
    /// assert!(error.panic().is_some_and(|panic| panic.line() > 0));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column, from 1; 0 if the function had replaced the panic hook.
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
    /// assert!(error.panic().is_some_and(|panic| panic.column() > 0));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn column(&self) -> u32 {
        self.column
    }

    /// The backtrace in the words of [`std::backtrace::Backtrace`], which `RUST_BACKTRACE` turns on and off.
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
    /// println!("{}", error.panic().map_or("", |panic| panic.backtrace()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn backtrace(&self) -> &str {
        &self.backtrace
    }

    /// Raises the panic again, here, with the message as its payload.
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

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(s) = payload.downcast_ref::<&'static str>() {
        (*s).to_owned()
    } else if let Some(s) = payload.downcast_ref::<String>() {
        s.clone()
    } else {
        "a panic whose payload is not a string".to_owned()
    }
}
