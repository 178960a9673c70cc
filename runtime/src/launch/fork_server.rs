//! Starts workers by having a template fork them.
//!
//! A template is a process with one thread that has already loaded what its workers share. It is either this program, executed
//! again, or a copy of this process. The first kind is made when the first worker is requested, and again after it has ended. A
//! copy of this process is made once, when the pool is built, because the process has more threads later.
//!
//! [`ForkLauncher`] decides when a template is made, tended and given up. `template.rs` talks to it, and `forked.rs` holds its
//! workers.
#![expect(unsafe_code, reason = "fork")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    Launch, LaunchError, LaunchRequest, Launcher, ResolvedOptions, Variable,
    connection::random_token,
    executable::{execute_self, next_depth},
    exit::{CLOSED_WITHIN, exit},
    forked::REPORT_TIMEOUT,
    missing::{check_executable, check_holding},
    template::{Stock, Template, TemplateState},
};
use crate::{
    error::Exit,
    id::FunctionId,
    marker::{DESCRIPTORS_CLOSED, Marker, Role, SOCKET_FD},
    protocol::{Preamble, Preload, Prepared, Setup},
    registry,
    sync::ignore_poison,
    sys::{
        exit::flush_streams,
        fd::{file_of, set_nonblocking, stream_pair},
        identified::Identified,
        limits::{explained, is_shortage},
        pass::send_with_fds,
        poll::{Poller, Timer, is_readable, wait_readable},
        process::{Fork, fork},
        quiesce::{Quiet, quiet},
    },
};

/// The function that a copy of this process calls to become a template. Its arguments are its end of the connection, its depth and its
/// environment.
pub(super) type BecomeTemplate = unsafe fn(OwnedFd, u32, &[Variable]) -> !;

/// A thread stays in the list of threads for a moment after it was joined.
const THREAD_EXIT_TIME: Duration = Duration::from_secs(1);
/// The delay between taking a worker and ordering the next one. The worker that was taken has its first task by then.
const REFILL_AFTER: Duration = Duration::from_micros(100);
/// The number of consecutive templates that may end before they fork a worker.
const MOST_BARREN: u32 = 5;
/// The keys of the launcher's own poller: the template's connection, its process, and the timer.
const CONTROL: u64 = 0;
const PROCESS: u64 = 1;
const TIMER: u64 = 2;

/// Starts workers by having a template fork them.
#[derive(Debug)]
pub(crate) struct ForkLauncher {
    depth: u32,
    setup: Setup,
    options: ResolvedOptions,
    /// The template is a copy of this process and cannot be made again.
    is_copy: bool,
    poller: Poller,
    timer: Timer,
    /// The number of consecutive templates that ended before they forked a worker that was requested.
    barren: AtomicU32,
    state: Mutex<TemplateState>,
}

impl ForkLauncher {
    /// Creates a launcher whose template is this program, executed again.
    ///
    /// # Errors
    ///
    /// This program cannot be executed again. The error is a message for the user.
    pub(crate) fn server(setup: Setup, options: ResolvedOptions) -> Result<Self, String> {
        check_executable()?;
        Self::new(setup, options, false)
    }

    /// Creates a launcher whose template is a copy of this process, and makes the copy now.
    ///
    /// # Errors
    ///
    /// This process has threads other than this one and our own, or it cannot be copied. The error is a message for the user.
    pub(crate) fn copy(
        setup: Setup,
        options: ResolvedOptions,
        become_template: BecomeTemplate,
    ) -> Result<Self, String> {
        check_holding()?;
        let launcher = Self::new(setup, options, true)?;
        let quiet = alone()?;
        let made = launcher.connect().and_then(|(control, theirs, _)| {
            flush_streams();
            // SAFETY: `quiet` says that no other thread exists but some of ours, which rest and have nothing locked.
            match unsafe { fork() }.map_err(refused_fork)? {
                Fork::Parent(child) => {
                    drop(quiet);
                    Ok(Template { control, child })
                }
                Fork::Child => {
                    // The lock belongs to the host. This process makes its own.
                    std::mem::forget(quiet);
                    // SAFETY: this is that copy, in which nothing but `theirs` is used again: the call does not return.
                    unsafe { become_template(theirs, launcher.depth, &launcher.options.env) }
                }
            }
        });
        let template = made.map_err(|error| format!("this process cannot be copied: {error}"))?;
        let prepared = launcher.prepare(&mut launcher.lock(), template);
        prepared.map_err(|error| format!("the template of workers cannot be watched: {error}"))?;
        Ok(launcher)
    }

    fn new(setup: Setup, options: ResolvedOptions, is_copy: bool) -> Result<Self, String> {
        let failed = |error| format!("a template cannot be watched: {error}");
        let (poller, timer) = (Poller::new().map_err(failed)?, Timer::new().map_err(failed)?);
        poller.add(timer.as_fd(), TIMER).map_err(failed)?;
        Ok(Self {
            depth: next_depth()?,
            setup,
            options,
            is_copy,
            poller,
            timer,
            barren: AtomicU32::new(0),
            state: Mutex::new(TemplateState::Absent),
        })
    }

    fn lock(&self) -> MutexGuard<'_, TemplateState> {
        ignore_poison(self.state.lock())
    }

    /// Creates the connection of a template and sends the preamble and the setup. Returns our end, its end, and the token.
    fn connect(&self) -> io::Result<(Identified, OwnedFd, u64)> {
        let (ours, theirs) = stream_pair()?;
        let token = random_token();
        let setup = file_of(c"procession-setup", &self.setup.to_bytes())?;
        send_with_fds(
            ours.as_fd(),
            &Preamble { token, rings: false, targets: self.options.outputs.without_host() }.to_bytes(),
            &[setup.as_fd()],
        )?;
        set_nonblocking(ours.as_fd())?;
        Ok((Identified::new(ours), theirs, token))
    }

    fn execute(&self) -> Result<Template, LaunchError> {
        let (control, theirs, token) = self.connect()?;
        let marker = Marker { role: Role::Template, fd: SOCKET_FD, token, depth: self.depth };
        let child = execute_self(&self.options.env, marker, theirs.as_fd())?;
        Ok(Template { control, child })
    }

    /// Absent → Preparing.
    fn prepare(&self, state: &mut TemplateState, template: Template) -> io::Result<()> {
        self.poller.add(template.control.as_fd(), CONTROL)?;
        self.poller.add(template.child.as_fd(), PROCESS)?;
        self.timer.set(self.options.start_timeout);
        *state = TemplateState::Preparing(template, Vec::new());
        Ok(())
    }

    /// Checks the template. Preparing → Ready, or any → Absent, Failed or Gone.
    fn check(&self, state: &mut TemplateState) {
        match std::mem::replace(state, TemplateState::Absent) {
            TemplateState::Preparing(template, mut said) => match template.listen(&mut said) {
                Ok(Some(Prepared::Ready)) => {
                    self.timer.unset();
                    *state =
                        TemplateState::Ready(Stock { next: None, template, outputs: self.options.outputs });
                }
                Ok(Some(Prepared::Failed(words))) => self.lose(state, template, Some(words)),
                Ok(None) if is_readable(self.timer.as_fd()) => {
                    let timeout = self.options.start_timeout;
                    let words = format!("its template{} was not ready within {timeout:?}", self.runs());
                    self.lose(state, template, Some(words));
                }
                Ok(None) => *state = TemplateState::Preparing(template, said),
                Err(words) => self.lose(state, template, words),
            },
            TemplateState::Ready(stock) if stock.template.has_ended() => {
                let Stock { next, template, .. } = stock;
                drop(next);
                self.lose(state, template, None);
                // The template had done its work until now. The next worker comes from another one.
                if let TemplateState::Failed(_) = state {
                    *state = TemplateState::Absent;
                }
            }
            TemplateState::Ready(mut stock) => {
                if is_readable(self.timer.as_fd()) {
                    self.timer.unset();
                    stock.order();
                }
                *state = TemplateState::Ready(stock);
            }
            as_it_was => *state = as_it_was,
        }
    }

    /// Names the preload of the template, if there is one.
    fn runs(&self) -> String {
        let preload = self.setup.preload.as_ref().map(name_of);
        preload.map_or_else(String::new, |name| format!(", which runs the preload `{name}`,"))
    }

    /// Gives up a template, for the reason in `words` or because it has ended by itself.
    fn lose(&self, state: &mut TemplateState, mut template: Template, words: Option<String>) {
        self.timer.unset();
        self.poller.remove(template.control.as_fd());
        self.poller.remove(template.child.as_fd());
        let words = words.unwrap_or_else(|| {
            let _ = wait_readable(template.child.as_fd(), REPORT_TIMEOUT);
            let preload = self.setup.preload.as_ref();
            let how = match (template.child.try_reap().map(exit), preload) {
                // Without a preload nothing closes the connection of a process that goes on.
                (None, None) => String::new(),
                (None, Some(preload)) => return closed_by(preload, None),
                (Some(Ok(exit)), Some(preload)) if exit.code() == Some(DESCRIPTORS_CLOSED) => {
                    return closed_by(preload, Some(exit));
                }
                (Some(Ok(exit)), _) => format!(" with {exit}"),
                (Some(Err(why)), _) => format!("; its exit status is unknown: {why}"),
            };
            format!("the template that workers are forked from{} ended{how}", self.runs())
        });
        *state = if self.is_copy {
            TemplateState::Gone(format!("{words}; under StartMethod::Fork it cannot be replaced"))
        } else {
            TemplateState::Failed(words)
        };
    }
}

/// Returns the name of the function that is preloaded.
fn name_of(preload: &Preload) -> &'static str {
    registry::find(FunctionId(preload.function)).map_or("", |entry| entry.name)
}

/// Describes a preload that has closed the descriptors of its template.
fn closed_by(preload: &Preload, exit: Option<Exit>) -> String {
    let name = name_of(preload);
    let exit = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
    format!("the preload `{name}` failed: {CLOSED_WITHIN}{exit}")
}

/// Waits until this thread is the only one that runs. Our own threads may sleep meanwhile.
///
/// # Errors
///
/// There are other threads. The error is a message for the user.
fn alone() -> Result<Quiet, String> {
    quiet(THREAD_EXIT_TIME).map_err(|count| match count {
        Ok(n) => format!(
            "StartMethod::Fork copies a process with one thread only, and this one has {n}: build the pool before \
             any other thread \
             starts, or use StartMethod::ForkServer"
        ),
        Err(error) => format!("the threads of this process cannot be counted (/proc/self/task): {error}"),
    })
}

/// Names the limit behind a shortage, or else the system call that was refused. Holding processes was checked before, so that is
/// not the cause.
fn refused_fork(error: io::Error) -> io::Error {
    if is_shortage(&error) {
        return explained(error);
    }
    io::Error::new(error.kind(), format!("fork (the system call clone): {error}"))
}

/// Describes why no worker came from the template: it could not be asked, or it could not fork.
fn not_forked(error: &io::Error) -> LaunchError {
    match LaunchError::new("the template of workers cannot fork one", error) {
        LaunchError::Refused(words) => LaunchError::Failed(words),
        shortage => shortage,
    }
}

impl Launcher for ForkLauncher {
    fn launch(&self, _request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let mut state = self.lock();
        self.check(&mut state);
        if let TemplateState::Ready(stock) = &mut *state {
            let outcome = stock.take();
            self.timer.set(REFILL_AFTER);
            match outcome {
                Ok(launched) => {
                    self.barren.store(0, Ordering::Relaxed);
                    return Ok(Launch::Ready(launched));
                }
                Err(error) => {
                    // The template may have ended, which would explain the error.
                    self.check(&mut state);
                    let is_there = matches!(*state, TemplateState::Ready(_) | TemplateState::Gone(_));
                    if is_there || self.barren.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_BARREN {
                        self.barren.store(0, Ordering::Relaxed);
                        return Err(not_forked(&error));
                    }
                }
            }
        }
        match &mut *state {
            TemplateState::Absent => {
                self.prepare(&mut state, self.execute()?)?;
                Ok(Launch::NotYet)
            }
            TemplateState::Preparing(..) | TemplateState::Ready(_) => Ok(Launch::NotYet),
            TemplateState::Gone(words) => Err(LaunchError::Refused(words.clone())),
            TemplateState::Failed(words) => {
                let error = LaunchError::Failed(words.clone());
                *state = TemplateState::Absent;
                Err(error)
            }
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.poller.as_fd())
    }

    fn on_readable(&self) {
        self.check(&mut self.lock());
    }
}
