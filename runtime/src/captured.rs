//! What a task wrote to stdout and stderr, where its pool keeps that.

use std::fmt;

/// What a task wrote to stdout and stderr, in a pool whose [`Output`](crate::Output) is `Capture` or `Log`: of each the last 64 KiB.
///
/// It is what println! and C's printf wrote in the task, and what processes that it started wrote. Bytes that are no UTF-8 are
/// replaced. [`Handle::join_captured`](crate::Handle::join_captured) gives it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    pub(crate) stdout: Text,
    pub(crate) stderr: Text,
}

/// What came by one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) words: String,
    /// So many bytes came before these words, and are not kept.
    pub(crate) lost_bytes: u64,
    /// Nobody has shown it yet.
    pub(crate) to_show: bool,
}

impl Captured {
    /// What came by stdout, or the end of it.
    #[must_use]
    pub fn stdout(&self) -> &str {
        &self.stdout.words
    }

    /// What came by stderr, or the end of it.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.stderr.words
    }

    /// The task wrote more than is kept: the beginning is missing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.stdout.lost_bytes > 0 || self.stderr.lost_bytes > 0
    }

    /// Prints what nobody has shown, in one piece, as if this thread had written it: a test harness counts it among its test's own.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "they are what test harnesses capture")]
    pub(crate) fn show(&self) {
        let Self { stdout, stderr } = self;
        if stdout.to_show {
            print!("{}{}", stdout.lost(), stdout.words);
        }
        if stderr.to_show {
            eprint!("{}{}", stderr.lost(), stderr.words);
        }
    }
}

impl Text {
    /// What stands for the bytes that are missing.
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
