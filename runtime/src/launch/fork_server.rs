//! Workers that a template forks: a process with one thread, made once, which has loaded what they share.
//!
//! The template is this executable, executed again, or a copy of this process. It is made when the first worker is asked for, and again
//! after its end; a copy of this process is made once, when the pool is built, for later there is more than one thread.
#![expect(unsafe_code, reason = "fork")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    Launch, LaunchError, LaunchRequest, Launched, Launcher, Outputs, Variable, WorkerProcess,
    local::{Connection, UNTOLD, execute_self, exit, next_depth, random_token},
    missing::{check_executable, check_holding},
};
use crate::{
    error::Exit,
    marker::{Marker, Role, SOCKET_FD},
    protocol::{FORK_REQUEST, Preamble, Prepared, REPORT_BYTES, Report, Setup},
    sys::{
        fd::{Failed, file_of, read_append, set_nonblocking, stream_pair},
        held::{Held, REFUSED_GRACE, say_left},
        limits::{explained, is_shortage},
        pass::{recv_with_fds, send_with_fd, send_with_fds},
        poll::{Poller, Timer, is_readable, wait_readable},
        process::{Child, Fork, flush_streams, fork},
        quiesce::{Quiet, quiet},
    },
};

/// What a copy of this process does to become a template: its end of the connection, how deep it is, its environment.
pub(super) type BecomeTemplate = unsafe fn(OwnedFd, u32, &[Variable]) -> !;

/// A thread that was joined is gone from the list of threads a moment later.
const THREADS_LINGER: Duration = Duration::from_secs(1);
/// A template that waits for requests forks at once; only a stopped machine makes it slower.
const FORK_TIMEOUT: Duration = Duration::from_secs(5);
/// The next worker is made so long after the last was taken, which has its first task by then.
const REFILL_AFTER: Duration = Duration::from_micros(100);
/// A template tells of a worker's end at once.
const REPORT_TIMEOUT: Duration = Duration::from_millis(100);
/// A process that was killed ends soon.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of consecutive templates that may end before they fork a worker.
const MOST_BARREN: u32 = 5;
/// What a template may say of itself.
const MOST_WORDS_BYTES: usize = 1 << 20;

/// What the launcher's own poller reports: the template's connection, its process, the time it has.
const CONTROL: u64 = 0;
const PROCESS: u64 = 1;
const TIMER: u64 = 2;

/// Has a template fork workers.
#[derive(Debug)]
pub(crate) struct ForkLauncher {
    depth: u32,
    env: Vec<Variable>,
    outputs: Outputs,
    setup: Setup,
    start_timeout: Duration,
    /// The template is a copy of this process, and cannot be made again.
    is_copy: bool,
    poller: Poller,
    timer: Timer,
    /// Templates in a row that have ended before they forked a worker that they were asked for.
    barren: AtomicU32,
    state: Mutex<State>,
}

/// Where the template is.
#[derive(Debug)]
enum State {
    /// There is none.
    Absent,
    /// It loads what workers share; these bytes are what it has said.
    Preparing(Template, Vec<u8>),
    Ready(Stock),
    /// It has failed, which nobody has been told yet.
    Failed(String),
    /// It has failed and cannot be made again.
    Gone(String),
}

/// A template that is ready, and the next worker, which has been ordered ahead of its time: to make a process takes longer than all
/// that follows, and so it is done before anybody waits.
///
/// Dropped in this order: there is a template to reap the worker that nobody has asked for.
#[derive(Debug)]
struct Stock {
    next: Option<Order>,
    template: Template,
    /// Where workers' output goes.
    outputs: Outputs,
}

/// A worker that the template was asked for, until it is received: it waits for its hello. Dropped, it ends.
#[derive(Debug)]
struct Order(Option<Made>);

/// The connection to such a worker, and the socket on which the template tells of its life.
#[derive(Debug)]
struct Made {
    connection: Connection,
    status: OwnedFd,
}

/// The template's process, killed and reaped when this is dropped.
#[derive(Debug)]
struct Template {
    control: OwnedFd,
    child: Child,
}

impl ForkLauncher {
    /// Workers come from a template that is this executable, executed again.
    ///
    /// # Errors
    ///
    /// This process cannot be executed again, in words for people.
    pub(crate) fn server(
        setup: Setup,
        env: Vec<Variable>,
        outputs: Outputs,
        start_timeout: Duration,
    ) -> Result<Self, String> {
        check_executable()?;
        Self::new(setup, env, outputs, start_timeout, false)
    }

    /// Workers come from a template that is a copy of this process, which is made now.
    ///
    /// # Errors
    ///
    /// This process has threads besides this one and our own, or cannot be copied, in words for people.
    pub(crate) fn copy(
        setup: Setup,
        env: Vec<Variable>,
        outputs: Outputs,
        start_timeout: Duration,
        become_template: BecomeTemplate,
    ) -> Result<Self, String> {
        check_holding()?;
        let launcher = Self::new(setup, env, outputs, start_timeout, true)?;
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
                    // Its lock is the host's: this process makes its own.
                    std::mem::forget(quiet);
                    // SAFETY: this is that copy, in which nothing but `theirs` is used again: the call does not return.
                    unsafe { become_template(theirs, launcher.depth, &launcher.env) }
                }
            }
        });
        let template = made.map_err(|error| format!("this process cannot be copied: {error}"))?;
        let prepared = launcher.prepare(&mut launcher.lock(), template);
        prepared.map_err(|error| format!("the template of workers cannot be watched: {error}"))?;
        Ok(launcher)
    }

    fn new(
        setup: Setup,
        env: Vec<Variable>,
        outputs: Outputs,
        start_timeout: Duration,
        is_copy: bool,
    ) -> Result<Self, String> {
        let failed = |error| format!("a template cannot be watched: {error}");
        let (poller, timer) = (Poller::new().map_err(failed)?, Timer::new().map_err(failed)?);
        poller.add(timer.as_fd(), TIMER).map_err(failed)?;
        let state = Mutex::new(State::Absent);
        Ok(Self {
            depth: next_depth()?,
            env,
            outputs,
            setup,
            start_timeout,
            is_copy,
            poller,
            timer,
            barren: AtomicU32::new(0),
            state,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a template's connection, and puts into it what it is to do: our end, its end, and the token.
    fn connect(&self) -> io::Result<(OwnedFd, OwnedFd, u64)> {
        let (ours, theirs) = stream_pair()?;
        let token = random_token();
        let setup = file_of(c"procession-setup", &self.setup.to_bytes())?;
        send_with_fd(
            ours.as_fd(),
            &Preamble { token, rings: false, sinks: self.outputs.without_host() }.to_bytes(),
            Some(setup.as_fd()),
        )?;
        set_nonblocking(ours.as_fd())?;
        Ok((ours, theirs, token))
    }

    fn execute(&self) -> Result<Template, LaunchError> {
        let (control, theirs, token) = self.connect()?;
        let marker = Marker { role: Role::Template, fd: SOCKET_FD, token, depth: self.depth };
        let child = execute_self(&self.env, marker, theirs.as_fd())?;
        Ok(Template { control, child })
    }

    /// Absent → Preparing.
    fn prepare(&self, state: &mut State, template: Template) -> io::Result<()> {
        self.poller.add(template.control.as_fd(), CONTROL)?;
        self.poller.add(template.child.as_fd(), PROCESS)?;
        self.timer.set(self.start_timeout);
        *state = State::Preparing(template, Vec::new());
        Ok(())
    }

    /// Sees how the template is. Preparing → Ready, or any → Absent, Failed or Gone.
    fn look(&self, state: &mut State) {
        match std::mem::replace(state, State::Absent) {
            State::Preparing(template, mut said) => match template.listen(&mut said) {
                Ok(Some(Prepared::Ready)) => {
                    self.timer.unset();
                    *state = State::Ready(Stock { next: None, template, outputs: self.outputs });
                }
                Ok(Some(Prepared::Failed(words))) => self.lose(state, template, Some(words)),
                Ok(None) if is_readable(self.timer.as_fd()) => {
                    let words = format!("its template was not ready within {:?}", self.start_timeout);
                    self.lose(state, template, Some(words));
                }
                Ok(None) => *state = State::Preparing(template, said),
                Err(words) => self.lose(state, template, words),
            },
            State::Ready(stock) if stock.template.has_ended() => {
                let Stock { next, template, .. } = stock;
                drop(next);
                self.lose(state, template, None);
                // It had done its work so far; the next worker's is another's.
                if let State::Failed(_) = state {
                    *state = State::Absent;
                }
            }
            State::Ready(mut stock) => {
                if is_readable(self.timer.as_fd()) {
                    self.timer.unset();
                    stock.order();
                }
                *state = State::Ready(stock);
            }
            as_it_was => *state = as_it_was,
        }
    }

    /// The template is of no use any more, for this reason or because it has ended by itself.
    fn lose(&self, state: &mut State, mut template: Template, words: Option<String>) {
        self.timer.unset();
        self.poller.remove(template.control.as_fd());
        self.poller.remove(template.child.as_fd());
        let words = words.unwrap_or_else(|| {
            let _ = wait_readable(template.child.as_fd(), REPORT_TIMEOUT);
            let how = template.child.try_reap().map_or_else(String::new, |ended| match exit(ended) {
                Ok(exit) => format!(" with {exit}"),
                Err(why) => format!("; its exit status is unknown: {why}"),
            });
            let at = self.setup.preload.as_ref().map_or("", |_| ", which runs the preload,");
            format!("the template that workers are forked from{at} ended{how}")
        });
        *state = if self.is_copy {
            State::Gone(format!("{words}; under StartMethod::Fork it cannot be made again"))
        } else {
            State::Failed(words)
        };
    }
}

impl Stock {
    /// The next worker.
    fn take(&mut self) -> io::Result<Launched> {
        let waiting = self.next.take().and_then(|mut order| order.receive().ok());
        // It may have been killed while it waited.
        let launched = match waiting.filter(|launched| !is_readable(launched.process.held().as_fd())) {
            Some(launched) => launched,
            None => Order::new(&self.template, self.outputs)?.receive().inspect_err(|error| {
                if error.kind() == io::ErrorKind::TimedOut {
                    self.template.child.held().kill();
                }
            })?,
        };
        Ok(launched)
    }

    /// Has the worker made that is taken next.
    fn order(&mut self) {
        if self.next.is_none() {
            self.next = Order::new(&self.template, self.outputs).ok();
        }
    }
}

impl Order {
    fn new(template: &Template, outputs: Outputs) -> io::Result<Self> {
        let (connection, theirs) = Connection::new(random_token(), outputs)?;
        let (status, told) = stream_pair()?;
        send_with_fds(template.control.as_fd(), &[FORK_REQUEST], [theirs.as_fd(), told.as_fd()]).map_err(
            |error| match error.kind() {
                // No shortage of processes.
                io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it reads no requests"),
                _ => error,
            },
        )?;
        Ok(Self(Some(Made { connection, status })))
    }

    /// The worker, once the template has made it: at once, or a moment later.
    fn receive(&mut self) -> io::Result<Launched> {
        let Made { connection, status } = self.0.take().ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = [0; REPORT_BYTES];
        if !wait_readable(status.as_fd(), FORK_TIMEOUT)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
        }
        let pidfd = recv_with_fds::<1>(status.as_fd(), &mut bytes)?.pop();
        match (Report::from_bytes(bytes), pidfd) {
            (Some(Report::Forked(pid)), Some(pidfd)) => {
                let mut held = Held::new(pidfd);
                held.ends_with(connection.socket());
                let process = ForkedProcess { pid, held, status, reaped: false };
                Ok(connection.launched(Box::new(process)))
            }
            (Some(Report::NotForked(errno)), _) => Err(refused_template(errno)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if self.0.is_some() {
            drop(self.receive());
        }
    }
}

/// Sees to it that this thread is the only one that runs; our own may sleep meanwhile.
///
/// # Errors
///
/// There are others, in words for people.
fn alone() -> Result<Quiet, String> {
    quiet(THREADS_LINGER).map_err(|count| match count {
        Ok(n) => format!(
            "StartMethod::Fork copies a process with one thread only, and this one has {n}: build the pool before any other thread \
             starts, or use StartMethod::ForkServer"
        ),
        Err(error) => format!("the threads of this process cannot be counted (/proc/self/task): {error}"),
    })
}

/// Names the limit behind a shortage, and elsewhere the system call that is refused: that processes can be held was seen before.
fn refused_fork(error: io::Error) -> io::Error {
    if is_shortage(&error) {
        return explained(error);
    }
    io::Error::new(error.kind(), format!("fork (the system call clone): {error}"))
}

/// Names the system call that failed in the template. Processes can be held, as was seen before, so that only want of descriptors is from there.
fn refused_template(errno: i32) -> io::Error {
    let call = if matches!(errno, nix::libc::EMFILE | nix::libc::ENFILE) { "pidfd_open" } else { "clone" };
    Failed::from_raw(call, errno).into()
}

/// No worker has come of the template: it cannot be asked for one, or cannot make it.
fn not_forked(error: &io::Error) -> LaunchError {
    match LaunchError::new("the template of workers cannot fork one", error) {
        LaunchError::Refused(words) => LaunchError::Failed(words),
        shortage => shortage,
    }
}

impl Launcher for ForkLauncher {
    fn launch(&self, _request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let mut state = self.lock();
        self.look(&mut state);
        if let State::Ready(stock) = &mut *state {
            let outcome = stock.take();
            self.timer.set(REFILL_AFTER);
            match outcome {
                Ok(launched) => {
                    self.barren.store(0, Ordering::Relaxed);
                    return Ok(Launch::Ready(launched));
                }
                Err(error) => {
                    // It may have been the template's end that failed.
                    self.look(&mut state);
                    let is_there = matches!(*state, State::Ready(_) | State::Gone(_));
                    if is_there || self.barren.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_BARREN {
                        self.barren.store(0, Ordering::Relaxed);
                        return Err(not_forked(&error));
                    }
                }
            }
        }
        match &mut *state {
            State::Absent => {
                self.prepare(&mut state, self.execute()?)?;
                Ok(Launch::NotYet)
            }
            State::Preparing(..) | State::Ready(_) => Ok(Launch::NotYet),
            State::Gone(words) => Err(LaunchError::Refused(words.clone())),
            State::Failed(words) => {
                let error = LaunchError::Failed(words.clone());
                *state = State::Absent;
                Err(error)
            }
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.poller.as_fd())
    }

    fn tend(&self) {
        self.look(&mut self.lock());
    }
}

impl Template {
    /// What the template has said, if it has said it all; the error is why nothing more will come, if it is not the process's end.
    fn listen(&self, said: &mut Vec<u8>) -> Result<Option<Prepared>, Option<String>> {
        let ended = self.has_exited();
        loop {
            said.reserve(4096);
            match read_append(self.control.as_fd(), said, 4096) {
                Ok(0) => return Prepared::from_bytes(said).map_err(Some)?.map(Some).ok_or(None),
                Ok(_) if said.len() < MOST_WORDS_BYTES => {}
                Ok(_) => return Err(Some("its template sent what is no message of ours".to_owned())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Prepared::from_bytes(said).map_err(Some)?.map(Some).ok_or(None);
                }
                Err(error) => return Err(Some(format!("its template cannot be heard: {error}"))),
            }
        }
        match Prepared::from_bytes(said).map_err(Some)? {
            None if ended => Err(None),
            prepared => Ok(prepared),
        }
    }

    fn has_exited(&self) -> bool {
        is_readable(self.child.as_fd())
    }

    /// It waits for requests and says nothing: what can be read is its end.
    fn has_ended(&self) -> bool {
        self.has_exited() || is_readable(self.control.as_fd())
    }
}

/// A worker that a template has forked.
struct ForkedProcess {
    pid: u32,
    held: Held,
    /// Where the template tells of its end.
    status: OwnedFd,
    reaped: bool,
}

impl WorkerProcess for ForkedProcess {
    fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has started in its group ends with it: the template sees to that before it reaps it.
    fn held(&self) -> &Held {
        &self.held
    }

    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        if !is_readable(self.held.as_fd()) {
            return None;
        }
        // The template has seen the same just now.
        if !wait_readable(self.status.as_fd(), REPORT_TIMEOUT).unwrap_or(true) {
            return None;
        }
        let mut bytes = [0; REPORT_BYTES];
        let report = recv_with_fds::<1>(self.status.as_fd(), &mut bytes);
        self.reaped = true;
        Some(match report.ok().and_then(|_| Report::from_bytes(bytes)) {
            Some(Report::Exited(code)) => Ok(Exit::from_code(code)),
            Some(Report::Signaled(signal)) => Ok(Exit::from_signal(signal)),
            Some(Report::Vanished) => Err("other code in its template collected its exit status"),
            Some(Report::Untold) => Err(UNTOLD),
            _ => {
                Err("the template that it was forked from ended before it, and would have told how it ended")
            }
        })
    }

    fn give_up(&mut self) {
        self.reaped = true;
        say_left(self.pid);
    }
}

impl Drop for ForkedProcess {
    /// Waits until it is reaped, as far as that can be seen.
    fn drop(&mut self) {
        if !self.reaped && self.held.is_own() {
            self.held.kill();
            let timeout = if self.held.is_refused() { REFUSED_GRACE } else { END_TIMEOUT };
            if !wait_readable(self.held.as_fd(), timeout).unwrap_or(true) && self.held.is_refused() {
                return self.give_up();
            }
            let _ = wait_readable(self.status.as_fd(), REPORT_TIMEOUT);
        }
    }
}
