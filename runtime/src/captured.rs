//! Defines [`Captured`], the output of a task, for pools that keep it.
//!
//! `supervisor` collects it, and it is shown on the thread that receives the outcome.

use std::fmt;

use crate::{escape, terminal::aside};

/// The output of a task: the last 64 KiB that it wrote to stdout and to stderr.
///
/// Returned by [`Handle::join_captured`](crate::Handle::join_captured) for pools whose [`Output`](crate::Output) is `Capture` or
/// `Log`. It includes what C code and child processes wrote. Bytes that are not valid UTF-8 are replaced.
///
/// # Examples
///
/// ```
/// use procession::{Output, Pool, delayed, worker};
///
/// #[worker]
/// fn greet() {
///     println!("hello");
///     eprintln!("and so on");
/// }
///
/// let pool = Pool::builder().jobs(1).stdout(Output::Capture).stderr(Output::Capture).build()?;
/// let (_, captured) = pool.submit(delayed!(greet())).join_captured();
/// assert_eq!((captured.stdout(), captured.stderr()), ("hello\n", "and so on\n"));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    pub(crate) stdout: Text,
    pub(crate) stderr: Text,
}

/// The output to one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) words: String,
    /// The number of bytes before this text that were not kept.
    pub(crate) lost_bytes: u64,
    /// Whether it still has to be shown.
    pub(crate) to_show: bool,
}

impl Captured {
    /// Returns what the task wrote to stdout, or the end of it.
    #[must_use]
    pub fn stdout(&self) -> &str {
        &self.stdout.words
    }

    /// Returns what the task wrote to stderr, or the end of it.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.stderr.words
    }

    /// Returns whether the task wrote more than was kept, so that the beginning is missing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.stdout.lost_bytes > 0 || self.stderr.lost_bytes > 0
    }

    /// Prints output that was not shown yet, in one piece and without control characters, as if this thread had written it. A test
    /// harness attributes it to the current test.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "they are what test harnesses capture")]
    pub(crate) fn show(&self) {
        let Self { stdout, stderr } = self;
        if stdout.to_show {
            aside(|| print!("{}{}", stdout.lost(), escape::output(&stdout.words)));
        }
        if stderr.to_show {
            aside(|| eprint!("{}{}", stderr.lost(), escape::output(&stderr.words)));
        }
    }
}

impl Text {
    /// Returns the text that stands for the missing bytes.
    fn lost(&self) -> String {
        match self.lost_bytes {
            0 => String::new(),
            n => format!("[{n} bytes before this are not kept]\n"),
        }
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captured")
            .field("stdout", &self.stdout.words)
            .field("stderr", &self.stderr.words)
            .field("is_cut", &self.is_cut())
            .finish()
    }
}
