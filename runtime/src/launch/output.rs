//! Defines [`Output`], which selects where the stdout and stderr of workers go, and [`OutputSource`], which the host reads them from.
//! Creates the pipes of workers on this machine.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
};

use crate::{
    protocol::StreamTarget,
    sys::{
        fd::{pending_bytes, pipe, read_some, set_nonblocking},
        identified::Identified,
    },
};

/// The destination of the stdout or stderr of a worker.
///
/// This applies to everything that is written to the stream: by `println!`, by C's `printf`, and by processes that inherit it.
/// The output of a pool's preload goes where this process's output goes, unless the setting is `Null`. A pool without processes
/// writes to the streams of its own process.
///
/// # Examples
///
/// ```
/// use procession::{Output, Pool, delayed, worker};
///
/// #[worker]
/// fn greet(name: &str) -> usize {
///     println!("good morning, {name}");
///     name.len()
/// }
///
/// let pool = Pool::builder().jobs(1).stdout(Output::Capture).build()?;
/// let (result, wrote) = pool.submit(delayed!(greet("Ada"))).join_captured();
/// assert_eq!(result?, 3);
/// assert_eq!(wrote.stdout(), "good morning, Ada\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// Goes where this process's stream goes.
    #[default]
    Inherit,
    /// Is discarded.
    Null,
    /// Goes to this process's `log` logger. Each line becomes a record.
    ///
    /// Records from stdout have the level `Info`, those from stderr `Warn`. Their target is the module of the function, and they
    /// have the fields `worker`, `pid`, `task` and `stream`. Lines of one stream stay in order and arrive before the task's
    /// result. A last line without a line break arrives when the task has ended. Control characters are escaped. If the task
    /// fails, [`TaskError::stderr_tail`](crate::TaskError::stderr_tail) has its last lines, too.
    Log,
    /// Is kept and returned with the outcome of the task: the last 64 KiB of each stream.
    ///
    /// [`Handle::join_captured`](crate::Handle::join_captured) returns it, and a [`TaskError`](crate::TaskError) contains it. All
    /// other ways to receive the outcome (`join`, `map`, `imap`, `parallel!` and so on) print it with `print!` and `eprint!` on
    /// the receiving thread, with control characters escaped except for tabs and line breaks. The output of each task therefore
    /// stays together, and a test harness shows it with the test that made the call. Output that belongs to no task, or to an
    /// attempt that crashed and was retried, is printed by one of the threads that drive the pool.
    Capture,
}

/// The destinations of both of a worker's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// The host's ends of a worker's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The token that is part of the mark at the end of each task's output.
    pub(crate) token: u64,
    pub(crate) ends: Vec<StreamEnd>,
}

/// The pipes of one worker: the ends that the host reads, and the ends to pass on, in the same order.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) ours: Vec<StreamEnd>,
    theirs: Vec<Identified>,
}

impl Outputs {
    /// Returns the destinations that the worker uses.
    pub(super) fn targets(self) -> [StreamTarget; 2] {
        [self.stdout, self.stderr].map(|output| match output {
            Output::Inherit => StreamTarget::Inherit,
            Output::Null => StreamTarget::Null,
            Output::Log | Output::Capture => StreamTarget::Host,
        })
    }

    /// Returns the destinations that a template uses. The host does not read its output.
    pub(super) fn without_host(self) -> [StreamTarget; 2] {
        self.targets().map(|target| if target == StreamTarget::Host { StreamTarget::Inherit } else { target })
    }

    pub(super) fn open(self) -> io::Result<Pipes> {
        let mut pipes = Pipes::default();
        for (name, by_line) in self.read_by_host() {
            let (ours, theirs) = pipe()?;
            set_nonblocking(ours.as_fd())?;
            pipes.ours.push(StreamEnd { name, source: Box::new(Identified::new(ours)), by_line });
            pipes.theirs.push(Identified::new(theirs));
        }
        Ok(pipes)
    }

    /// Returns the streams that the host reads, and whether each line of them is forwarded by itself.
    pub(super) fn read_by_host(self) -> impl Iterator<Item = (StreamName, bool)> {
        [(StreamName::Stdout, self.stdout), (StreamName::Stderr, self.stderr)].into_iter().filter_map(
            |(name, output)| match output {
                Output::Log => Some((name, true)),
                Output::Capture => Some((name, false)),
                Output::Inherit | Output::Null => None,
            },
        )
    }
}

impl Pipes {
    /// Returns the ends to pass on.
    pub(super) fn theirs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.theirs.iter().map(AsFd::as_fd)
    }
}

/// A standard stream of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

/// The host's end of one of a worker's streams.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    pub(crate) name: StreamName,
    pub(crate) source: Box<dyn OutputSource>,
    /// Each line is forwarded by itself.
    pub(crate) by_line: bool,
}

/// The source from which the host reads one of a worker's streams.
pub(crate) trait OutputSource: fmt::Debug + Send {
    /// Returns how many bytes can be read without waiting, or a large number if that is not known.
    fn pending_bytes(&self) -> usize;

    /// Reads once, at most `most` bytes, and appends them. Returns their number, which is 0 at the end, or `None` if there is nothing
    /// to read yet. The vector has room for them.
    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>>;

    /// Returns the descriptor to poll for reading, if there is one.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A pipe that does not block.
impl OutputSource for Identified {
    fn pending_bytes(&self) -> usize {
        pending_bytes(self.as_fd())
    }

    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
        read_some(self.as_fd(), target, most)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl StreamName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
