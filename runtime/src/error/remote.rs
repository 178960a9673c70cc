//! Defines [`RemoteError`], an error that can be sent from one process to another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::escape::Lines;

/// An error that can cross processes: the message of any error, and the messages of its sources.
///
/// In a function that returns `Result<T, RemoteError>`, `?` converts every error that is `Send` and `Sync`, as well as `Box<dyn
/// Error + Send + Sync>`, `anyhow::Error`, `String` and `&str`. [`RemoteError::msg`] converts all others:
/// `.map_err(RemoteError::msg)?`.
///
/// `RemoteError` does not implement [`std::error::Error`], because `?` could not convert boxed errors otherwise. `?` converts a
/// `RemoteError` to `Box<dyn Error>` and to [`Error`](crate::Error).
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
    pub(super) message: String,
    pub(super) source: Option<Box<RemoteSource>>,
}

/// One source of a [`RemoteError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemoteSource {
    pub(super) message: String,
    pub(super) source: Option<Box<RemoteSource>>,
}

/// The maximum number of sources. An error may name itself as its source, so a longer chain is cut.
pub(super) const MOST_SOURCES: usize = 64;

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

/// Types that `?` converts to a [`RemoteError`].
#[diagnostic::on_unimplemented(
    message = "`?` cannot convert `{Self}` to `RemoteError` by itself",
    label = "this is not an error, or it is not `Send` and `Sync`: write `.map_err(RemoteError::msg)?`, which takes any error"
)]
pub trait IntoRemoteError<'a>: Into<Box<dyn std::error::Error + Send + Sync + 'a>> {}

#[diagnostic::do_not_recommend]
impl<'a, E: Into<Box<dyn std::error::Error + Send + Sync + 'a>>> IntoRemoteError<'a> for E {}

// Uses std's conversion, because only that can cover errors as well as boxed errors: std could implement `Error` for boxes later.
impl<'a, E: IntoRemoteError<'a>> From<E> for RemoteError {
    fn from(error: E) -> Self {
        Self::of(&*error.into())
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
