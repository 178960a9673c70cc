//! [`Output`]: where workers' stdout and stderr go.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    protocol::Sink,
    sys::fd::{pipe, set_nonblocking},
    transcript::{StreamEnd, StreamName},
};

/// Where what a worker writes to stdout, or to stderr, goes: what `println!` and C's `printf` write, and what processes that it starts
/// inherit.
///
/// What the preload of a pool writes goes where this process's output goes, unless that is to be `Null`. A pool without processes
/// writes where its process does.
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
    /// Where this process's goes.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// To this process's `log` logger: each line becomes a record, `Info` from stdout and `Warn` from stderr, with the function's module
    /// as its target and the fields `worker`, `pid`, `task` and `stream`. Lines of a stream come in their order, and those of a task
    /// before its result; a last line without an end comes when the task has ended. Control characters are escaped. If the task fails,
    /// [`TaskError::stderr_tail`](crate::TaskError::stderr_tail) has its last lines, too.
    Log,
    /// Kept until the task has its outcome, and handed back with it: the last 64 KiB of each stream.
    ///
    /// [`Handle::join_captured`](crate::Handle::join_captured) gives it, and a [`TaskError`](crate::TaskError) has it. Whoever takes an
    /// outcome otherwise (`join`, `map`, `imap`, `parallel!`, ...) has it printed, by `print!` and `eprint!` on its own thread, with
    /// control characters other than tabs and ends of lines escaped: what each task has written stands together, however many run at once, and a test harness shows it with the test that has called.
    /// What is written outside of tasks, by an initializer, or in an attempt that crashed and was made again, is printed by whichever
    /// thread sees to the pool.
    Capture,
}

/// Where both of a worker's streams go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// The pipes of one worker: the ends that the host reads, and those to pass on, in the same order.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) ours: Vec<StreamEnd>,
    theirs: Vec<OwnedFd>,
}

impl Outputs {
    /// What the worker is told.
    pub(super) fn sinks(self) -> [Sink; 2] {
        [self.stdout, self.stderr].map(|output| match output {
            Output::Inherit => Sink::Inherit,
            Output::Null => Sink::Null,
            Output::Log | Output::Capture => Sink::Host,
        })
    }

    /// What a template is told: nobody reads what it writes.
    pub(super) fn without_host(self) -> [Sink; 2] {
        self.sinks().map(|sink| if sink == Sink::Host { Sink::Inherit } else { sink })
    }

    pub(super) fn open(self) -> io::Result<Pipes> {
        let mut pipes = Pipes::default();
        for (name, output) in [(StreamName::Stdout, self.stdout), (StreamName::Stderr, self.stderr)] {
            if let Output::Log | Output::Capture = output {
                let (ours, theirs) = pipe()?;
                set_nonblocking(ours.as_fd())?;
                pipes.ours.push(StreamEnd { name, pipe: ours, by_line: output == Output::Log });
                pipes.theirs.push(theirs);
            }
        }
        Ok(pipes)
    }
}

impl Pipes {
    /// What to pass on.
    pub(super) fn theirs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.theirs.iter().map(OwnedFd::as_fd)
    }
}
