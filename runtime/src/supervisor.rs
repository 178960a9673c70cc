//! One worker's life. Serves the pool, which asks it to start, run, give back, drain and kill, and reads from it what happened.
//!
//! ```text
//!            launch            Ready              send                
//!  Vacant ─────────▶ Starting ───────▶ Idle ◀──────────────▶ Busy     
//!    ▲                  │               │    last result      │       
//!    │                  │         drain │                     │       
//!    │                  │               ▼                     │       
//!    │                  │           Draining                  │       
//!    │                  │ connection    │ connection          │ connection
//!    │                  │ ends          │ ends                │ ends, or kill
//!    │                  ▼               ▼                     ▼       
//!    └────────────────────────────── Lost (its process is waited for, killed after a grace, and reaped)
//! ```
//!
//! Idle and Busy are one variant here: a worker is busy when tasks are in flight.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use crate::{
    claim::{before, has_begun},
    error::{Exit, Fault},
    id::{FunctionId, WorkerId},
    launch::{LaunchRequest, Launched, Launcher},
    panic::RemotePanic,
    protocol::{Batch, Hello, LogRecord, Malformed, Ready, Refused, Reply, RunBuilder, VERSION},
    registry,
    sys::fd::Poller,
    transport::{Cause, Received},
};

/// A worker whose connection has ended has so long to end by itself.
const END_GRACE: Duration = Duration::from_secs(2);

/// A worker that may hold replies back and has been silent for so long is looked at; then after twice as long, and so on.
const LOOK_AFTER: Duration = Duration::from_millis(1);
/// The longest pause between two looks.
const MOST_LOOK_AFTER: Duration = Duration::from_secs(1);

/// Arguments beyond this many bytes travel in a frame of their own, from where they lie.
pub(crate) const LARGE_ARGS_BYTES: usize = 32 << 10;

/// A task as a supervisor needs it: what to send. `T` is the pool's own record of it.
pub(crate) trait Sendable {
    fn task(&self) -> u64;
    fn function(&self) -> FunctionId;
    fn args(&self) -> &[u8];
}

/// One worker's place in a pool, and who fills it.
pub(crate) struct Supervisor<T> {
    id: WorkerId,
    /// Counts the processes that have had this place, so that an event of an earlier one is not taken for this one's.
    generation: u32,
    state: State<T>,
    /// Reused from request to request.
    scratch: Vec<u8>,
}

enum State<T> {
    Vacant,
    Starting { link: Link, deadline: Instant },
    Live { link: Link, in_flight: VecDeque<(u32, T)> },
    Draining { link: Link, deadline: Instant },
    Lost { link: Link, in_flight: VecDeque<(u32, T)>, deadline: Instant, was: Phase, reason: Option<String> },
}

/// What a worker was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Serving,
    Draining,
}

/// A process and the connection to it.
struct Link {
    launched: Launched,
    ledger: Ledger,
    /// Polled for room to write.
    writing: bool,
    killed: bool,
}

/// What is known of a worker's requests and replies.
struct Ledger {
    next_seq: u32,
    /// Results that have come.
    results: u64,
    /// The task of this number panics; the process may not live to say more.
    panic: Option<(u32, RemotePanic)>,
    /// It has an outbox.
    has_outbox: bool,
    /// When to look at what it holds back, if it stays silent.
    look_at: Option<Instant>,
    /// How long after the last look that is.
    look_after: Duration,
}

/// What a worker had to say.
#[must_use]
pub(crate) enum Step<'a, T> {
    /// It has shaken hands and is idle.
    Started,
    /// A task gave a result.
    Done { task: T, nanos: u64, result: Cow<'a, [u8]> },
    /// A task gave none.
    Failed { task: T, nanos: u64, fault: Fault },
    /// A record of its logger.
    Log(LogRecord),
}

/// What is known of a worker that has ended. Its place is vacant again.
#[must_use]
pub(crate) struct Obituary<T> {
    pub(crate) pid: u32,
    pub(crate) was: Phase,
    pub(crate) exit: Option<Exit>,
    pub(crate) cause: Option<&'static str>,
    /// Why it would not serve, in its own words or ours.
    pub(crate) reason: Option<String>,
    /// What it said of the panic during which it ended.
    pub(crate) panic: Option<RemotePanic>,
    /// The host killed it.
    pub(crate) killed: bool,
    /// The task that it was running.
    pub(crate) running: Vec<T>,
    /// Tasks that it had not begun.
    pub(crate) waiting: Vec<T>,
    /// Tasks of which nobody knows whether it began them.
    pub(crate) unknown: Vec<T>,
    /// It had given at least one result.
    pub(crate) was_useful: bool,
}

impl<T: Sendable> Supervisor<T> {
    pub(crate) fn new(id: WorkerId) -> Self {
        Self { id, generation: 0, state: State::Vacant, scratch: Vec::new() }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.link().map(|link| link.launched.process.pid())
    }

    pub(crate) fn is_vacant(&self) -> bool {
        matches!(self.state, State::Vacant)
    }

    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
    }

    /// Ready for tasks, whether or not it has some.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(&self.state, State::Live { in_flight, .. } if in_flight.is_empty())
    }

    /// Tasks that were sent and have given nothing yet, the oldest first.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &T> {
        let queue = match &self.state {
            State::Live { in_flight, .. } | State::Lost { in_flight, .. } => Some(in_flight),
            _ => None,
        };
        queue.into_iter().flatten().map(|(_, task)| task)
    }

    /// As [`in_flight`](Self::in_flight), to note things on them.
    pub(crate) fn in_flight_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let queue = match &mut self.state {
            State::Live { in_flight, .. } | State::Lost { in_flight, .. } => Some(in_flight),
            _ => None,
        };
        queue.into_iter().flatten().map(|(_, task)| task)
    }

    /// How many tasks are in flight.
    pub(crate) fn in_flight_len(&self) -> usize {
        match &self.state {
            State::Live { in_flight, .. } | State::Lost { in_flight, .. } => in_flight.len(),
            _ => 0,
        }
    }

    /// The newest task in flight, if there is one.
    pub(crate) fn newest(&self) -> Option<&T> {
        match &self.state {
            State::Live { in_flight, .. } => in_flight.back().map(|(_, task)| task),
            _ => None,
        }
    }

    /// As [`newest`](Self::newest), to note something on it.
    pub(crate) fn newest_mut(&mut self) -> Option<&mut T> {
        match &mut self.state {
            State::Live { in_flight, .. } => in_flight.back_mut().map(|(_, task)| task),
            _ => None,
        }
    }

    /// The key under which the poller reports this worker's connection; its process has the next one.
    fn key(&self) -> u64 {
        (u64::from(self.generation) << 32) | (u64::from(self.id.0) << 1)
    }

    /// The event is about the process that has this place now.
    pub(crate) fn owns(&self, key: u64) -> bool {
        !self.is_vacant() && key & !1 == self.key()
    }

    /// Vacant → Starting.
    pub(crate) fn launch(
        &mut self,
        launcher: &dyn Launcher,
        request: &LaunchRequest<'_>,
        hello: &Hello,
        poller: &Poller,
        deadline: Instant,
    ) -> io::Result<()> {
        debug_assert!(self.is_vacant(), "only a vacant place is filled");
        let mut launched = launcher.launch(request)?;
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        poller.add(launched.receiver.poll_fd(), self.key())?;
        poller.add(launched.process.poll_fd(), self.key() | 1)?;
        // If it has died already, its end is about to be reported.
        let _ = launched.sender.send(&hello.encode(), Cow::Borrowed(&[]));
        let has_outbox = launched.board.is_some();
        let ledger = Ledger {
            next_seq: 1,
            results: 0,
            panic: None,
            has_outbox,
            look_at: None,
            look_after: LOOK_AFTER,
        };
        let link = Link { launched, ledger, writing: false, killed: false };
        self.state = State::Starting { link, deadline };
        Ok(())
    }

    /// Sends tasks, in order. Idle or Busy → Busy. What cannot be sent any more, for the worker has gone, is sorted out at its end.
    pub(crate) fn run(&mut self, tasks: Vec<T>, log_level: u8, poller: &Poller) {
        let key = self.key();
        let State::Live { link, in_flight } = &mut self.state else {
            unreachable!("only a live worker is given tasks")
        };
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let mut request =
                RunBuilder::new(std::mem::take(&mut self.scratch), log_level, link.ledger.next_seq);
            let mut large = false;
            while let Some(task) = tasks.next_if(|_| !large) {
                large = task.args().len() >= LARGE_ARGS_BYTES;
                if large {
                    request.add_head(task.task(), task.function(), task.args().len());
                } else {
                    request.add(task.task(), task.function(), task.args());
                }
                in_flight.push_back((link.ledger.next_seq, task));
                link.ledger.next_seq = link.ledger.next_seq.wrapping_add(1);
            }
            let head = request.finish();
            // Large arguments go from where they lie.
            let body = in_flight.back().filter(|_| large).map_or(&[][..], |(_, task)| task.args());
            if let Err(error) = link.launched.sender.send(&head, Cow::Borrowed(body))
                && error.kind() != io::ErrorKind::BrokenPipe
                && error.kind() != io::ErrorKind::ConnectionReset
            {
                // Part of a frame may have gone: nothing that follows would be understood.
                link.launched.process.kill();
            }
            self.scratch = head;
        }
        if link.ledger.look_at.is_none() {
            link.ledger.look_later(in_flight.len(), Instant::now());
        }
        link.poll_for_room(key, poller);
    }

    /// Takes back every task that has not begun, the oldest first.
    pub(crate) fn take_back(&mut self) -> Vec<T> {
        let State::Live { link, in_flight } = &mut self.state else { return Vec::new() };
        let Some(board) = &link.launched.board else { return Vec::new() };
        let begun = board.claim().take_back(link.ledger.next_seq);
        // The word is the worker's to write, too: one that makes no sense takes nothing back, and the worker will run them.
        let kept = in_flight.iter().take_while(|(seq, _)| has_begun(*seq, begun)).count();
        in_flight.drain(kept..).map(|(_, task)| task).collect()
    }

    /// The worker is asked to leave once it is idle. Idle → Draining.
    pub(crate) fn drain(&mut self, now: Instant) {
        debug_assert!(self.is_idle(), "only an idle worker is drained");
        if let State::Live { mut link, .. } = std::mem::replace(&mut self.state, State::Vacant) {
            link.launched.sender.close();
            self.state = State::Draining { link, deadline: now + END_GRACE };
        }
    }

    /// Ends the process, whatever it does. Its obituary follows.
    pub(crate) fn kill(&mut self) {
        if let Some(link) = self.link_mut() {
            link.killed = true;
            link.launched.process.kill();
        }
    }

    /// Ends a worker that is of no use: it is killed, and takes no more tasks. Any live state → Lost.
    pub(crate) fn dismiss(&mut self, now: Instant, poller: &Poller) {
        self.kill();
        self.lose(now, None);
        if let Some(link) = self.link_mut() {
            poller.remove(link.launched.receiver.poll_fd());
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting { deadline, .. }
            | State::Draining { deadline, .. }
            | State::Lost { deadline, .. } => Some(*deadline),
            State::Live { link, .. } => link.ledger.look_at,
            State::Vacant => None,
        }
    }

    /// A worker that is late to start, to leave or to end is killed.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        if self.is_live() || self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.is_starting() {
            self.lose(now, Some("it did not shake hands in time".to_owned()));
        }
        if let State::Draining { deadline, .. } | State::Lost { deadline, .. } = &mut self.state {
            *deadline = now + END_GRACE;
        }
        if let Some(link) = self.link_mut() {
            link.launched.process.kill();
        }
    }

    /// Sends more of what is queued, when there is room.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        let key = self.key();
        if let State::Live { link, .. } = &mut self.state
            && link.writing
        {
            let _ = link.launched.sender.flush();
            link.poll_for_room(key, poller);
        }
    }

    /// Reads what the worker has to say and hands it to `on`, until there is no more or `on` breaks.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        poller: &Poller,
        mut on: impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) {
        /// Why the reading ends for good.
        enum End {
            Closed,
            Failed(String),
            Refused(String),
            Nonsense,
        }
        // Copied first and looked at last: a record that was sent before a reply was laid there is read before it.
        let held_back = self.copy_held_back(now);
        if let Some(link) = self.link_mut() {
            link.launched.receiver.begin();
        }
        let end = loop {
            let is_starting = self.is_starting();
            let (link, in_flight) = match &mut self.state {
                State::Vacant | State::Lost { .. } => return,
                State::Starting { link, .. } | State::Draining { link, .. } => (link, None),
                State::Live { link, in_flight } => (link, Some(in_flight)),
            };
            let frame = match link.launched.receiver.recv() {
                Ok(Received::Frame(frame)) => frame,
                Ok(Received::Nothing) => match (held_back, in_flight) {
                    (Some(replies), Some(in_flight)) => {
                        link.ledger.look_again(in_flight.len(), now);
                        match link.ledger.settle_all(in_flight, replies, now, &mut on) {
                            Ok(()) => return,
                            Err(Malformed) => break End::Nonsense,
                        }
                    }
                    _ => return,
                },
                Ok(Received::Closed) => break End::Closed,
                Err(error) => break End::Failed(error.to_string()),
            };
            let Ok(reply) = Reply::decode(frame) else { break End::Nonsense };
            let flow = match (reply, in_flight) {
                (Reply::Log(record), _) => on(Step::Log(record)),
                (Reply::Panic { seq, panic }, Some(_)) => {
                    link.ledger.panic = Some((seq, panic));
                    continue;
                }
                (reply @ (Reply::Done { .. } | Reply::Fault { .. }), Some(in_flight)) => {
                    match link.ledger.settle(in_flight, reply, now, &mut on) {
                        Ok(flow) => flow,
                        Err(Malformed) => break End::Nonsense,
                    }
                }
                (Reply::Batch(replies), Some(in_flight)) => {
                    match link.ledger.settle_all(in_flight, replies, now, &mut on) {
                        Ok(()) => continue,
                        Err(Malformed) => break End::Nonsense,
                    }
                }
                (Reply::Ready(Ready { version, build_id, .. }), None) if is_starting => {
                    if version != VERSION || build_id != registry::build_id() {
                        break End::Refused(format!(
                            "it is build {build_id:016x} and this program is {:016x}",
                            registry::build_id()
                        ));
                    }
                    if let State::Starting { link, .. } = std::mem::replace(&mut self.state, State::Vacant) {
                        self.state = State::Live { link, in_flight: VecDeque::new() };
                    }
                    on(Step::Started)
                }
                (Reply::Refused(Refused { reason }), None) => break End::Refused(reason),
                _ => break End::Nonsense,
            };
            if flow.is_break() {
                return;
            }
        };
        match end {
            End::Closed => self.lose(now, None),
            End::Failed(words) | End::Refused(words) => self.lose(now, Some(words)),
            End::Nonsense => {
                self.lose(now, Some("it sent what is no message of ours".to_owned()));
                self.kill();
            }
        }
        // An end of file would be reported again and again; the process's end is what is waited for now.
        if let Some(link) = self.link_mut() {
            poller.remove(link.launched.receiver.poll_fd());
        }
    }

    /// What the worker has made and not sent, if it has been silent for so long that a look is due.
    fn copy_held_back(&self, now: Instant) -> Option<Batch> {
        let link = self.link()?;
        if link.ledger.look_at.is_none_or(|at| at > now) {
            return None;
        }
        let board = link.launched.board.as_ref()?;
        // Emptied under the look: then its replies are on their way.
        Some(Batch::new(board.outbox().copy().unwrap_or_default()))
    }

    /// Has the next [`read`](Self::read) look at what the worker holds back.
    pub(crate) fn look_now(&mut self, now: Instant) {
        if let Some(link) = self.link_mut() {
            link.ledger.look_at = link.ledger.has_outbox.then_some(now);
        }
    }

    /// A look at what the worker holds back is due.
    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        self.link().and_then(|link| link.ledger.look_at).is_some_and(|at| at <= now) && self.is_live()
    }

    /// Collects the process if it has ended; then the place is vacant, and this is what is known.
    ///
    /// What it sent before its end must have been read; what it had not sent yet goes to `on`.
    pub(crate) fn reap(
        &mut self,
        now: Instant,
        poller: &Poller,
        mut on: impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Option<Obituary<T>> {
        let exit = self.link_mut()?.launched.process.try_reap()?;
        self.lose(now, None);
        let State::Lost { mut link, mut in_flight, was, reason, .. } =
            std::mem::replace(&mut self.state, State::Vacant)
        else {
            unreachable!("`lose` has just made it so")
        };
        poller.remove(link.launched.receiver.poll_fd());
        poller.remove(link.launched.process.poll_fd());
        if let Some(bytes) = link.launched.board.as_ref().and_then(|board| board.outbox().copy()) {
            // What makes no sense was not written by a worker of ours, and says nothing.
            let _ = link.ledger.settle_all(&mut in_flight, Batch::new(bytes), now, &mut on);
        }
        let oldest = in_flight.front().map(|(seq, _)| *seq);
        let mut obituary = Obituary {
            pid: link.launched.process.pid(),
            was,
            exit,
            cause: None,
            reason,
            panic: link.ledger.panic.filter(|(seq, _)| oldest == Some(*seq)).map(|(_, panic)| panic),
            killed: link.killed,
            running: Vec::new(),
            waiting: Vec::new(),
            unknown: Vec::new(),
            was_useful: link.ledger.results > 0,
        };
        match &link.launched.board {
            Some(board) => {
                obituary.cause = board.cause().map(|Cause::StackOverflow| "stack overflow");
                let begun = board.claim().begun();
                // A result is out, or in the outbox, before the next task begins, so one task at most has begun and given nothing.
                // Anything else was not written by a worker of ours, and says nothing.
                let sound = in_flight.get(1).is_none_or(|(second, _)| !has_begun(*second, begun))
                    && !has_begun(link.ledger.next_seq, begun);
                for (seq, task) in in_flight {
                    if !sound {
                        obituary.unknown.push(task);
                    } else if has_begun(seq, begun) {
                        obituary.running.push(task);
                    } else {
                        obituary.waiting.push(task);
                    }
                }
            }
            None => obituary.unknown.extend(in_flight.into_iter().map(|(_, task)| task)),
        }
        Some(obituary)
    }

    /// Any live state → Lost: the connection has ended, the process is about to.
    fn lose(&mut self, now: Instant, why: Option<String>) {
        let deadline = now + END_GRACE;
        self.state = match std::mem::replace(&mut self.state, State::Vacant) {
            State::Starting { link, .. } => {
                State::Lost { link, in_flight: VecDeque::new(), deadline, was: Phase::Starting, reason: why }
            }
            State::Live { link, in_flight } => {
                State::Lost { link, in_flight, deadline, was: Phase::Serving, reason: why }
            }
            State::Draining { link, .. } => {
                State::Lost { link, in_flight: VecDeque::new(), deadline, was: Phase::Draining, reason: why }
            }
            as_it_was @ (State::Lost { .. } | State::Vacant) => as_it_was,
        };
    }

    fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Vacant => None,
            State::Starting { link, .. }
            | State::Live { link, .. }
            | State::Draining { link, .. }
            | State::Lost { link, .. } => Some(link),
        }
    }

    fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Vacant => None,
            State::Starting { link, .. }
            | State::Live { link, .. }
            | State::Draining { link, .. }
            | State::Lost { link, .. } => Some(link),
        }
    }
}

impl Ledger {
    /// Gives the outcome of one reply, `Done` or `Fault`, to `on`.
    ///
    /// Replies come in the order of the requests: one is about the oldest task, or has been seen already, in the outbox.
    fn settle<T>(
        &mut self,
        in_flight: &mut VecDeque<(u32, T)>,
        reply: Reply<'_>,
        now: Instant,
        on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Malformed> {
        let (Reply::Done { seq, .. } | Reply::Fault { seq, .. }) = reply else { return Err(Malformed) };
        let oldest = in_flight.front().map_or(self.next_seq, |(oldest, _)| *oldest);
        if before(seq, oldest) {
            return Ok(ControlFlow::Continue(()));
        }
        if seq != oldest {
            return Err(Malformed);
        }
        let (_, task) = in_flight.pop_front().ok_or(Malformed)?;
        self.results += 1;
        self.panic = None;
        self.look_later(in_flight.len(), now);
        Ok(on(match reply {
            Reply::Done { nanos, result, .. } => Step::Done { task, nanos, result },
            Reply::Fault { nanos, fault, .. } => Step::Failed { task, nanos, fault },
            _ => unreachable!("the pattern above"),
        }))
    }

    /// As [`settle`](Self::settle), for several, whatever `on` says.
    fn settle_all<T>(
        &mut self,
        in_flight: &mut VecDeque<(u32, T)>,
        mut replies: Batch,
        now: Instant,
        on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Result<(), Malformed> {
        while let Some(reply) = replies.next()? {
            let _ = self.settle(in_flight, reply, now, on)?;
        }
        Ok(())
    }

    /// A worker that has one task more than it runs may hold a reply back: if it stays silent, it is looked at.
    fn look_later(&mut self, in_flight: usize, now: Instant) {
        self.look_after = LOOK_AFTER;
        self.look_at = (in_flight > 1 && self.has_outbox).then(|| now + LOOK_AFTER);
    }

    /// It was looked at, and had nothing: it may have been between making a reply and laying it out.
    fn look_again(&mut self, in_flight: usize, now: Instant) {
        self.look_after = (self.look_after * 2).min(MOST_LOOK_AFTER);
        self.look_at = (in_flight > 1 && self.has_outbox).then(|| now + self.look_after);
    }
}

impl Link {
    fn poll_for_room(&mut self, key: u64, poller: &Poller) {
        let writing = self.launched.sender.queued_bytes() > 0;
        if writing != self.writing {
            self.writing = writing;
            let _ = poller.set_writable(self.launched.receiver.poll_fd(), key, writing);
        }
    }
}

impl<T> std::fmt::Debug for Supervisor<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
