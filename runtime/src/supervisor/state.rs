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
    collections::VecDeque,
    io,
    ops::ControlFlow,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::capture::{Line, Transcript};
use crate::{
    captured::Captured,
    codec::Encoded,
    error::{Exit, Fault, TaskErrorKind},
    frame::Frames,
    id::WorkerId,
    launch::{Launch, LaunchError, LaunchRequest, Launched, Launcher, output::StreamName},
    panic::RemotePanic,
    protocol::{
        Hello, LogRecord, Malformed, Note, Orders, Ready, Record, Records, Refused, Reply, Results, RunHead,
        VERSION, Wire,
    },
    registry,
    sys::{held::Held, poll::Poller, procfs::resident_bytes},
    transport::{Board, Body, Cause, Received, Room, SharedBytes, shm::claim::has_begun},
};

/// A worker whose connection has ended has so long to end by itself.
const END_GRACE: Duration = Duration::from_secs(2);

/// A task that is to end is told so first, and has so long to end by itself; then its process is asked to end.
const TELL_GRACE: Duration = Duration::from_millis(100);
/// A process that was asked to end has so long to do so; then it is killed.
const TERM_GRACE: Duration = Duration::from_millis(250);

/// The time that a task has run is counted in slices, so many for the longest that it may run. A slice counts for little more than it
/// should have taken: where it took longer, this process was stopped (Ctrl-Z), or all of the machine.
const SLICES: u32 = 16;
const LEAST_SLICE: Duration = Duration::from_millis(1);
const MOST_SLICE: Duration = Duration::from_secs(1);
/// A busy machine wakes nobody sooner than this.
const LATE: Duration = Duration::from_millis(5);

/// To look how large a process is takes a few microseconds; in this time it cannot grow by much.
const WEIGH_EVERY: Duration = Duration::from_micros(200);

/// What a worker has to bear is put off this often because it has said more than was read: more than its connection holds of records.
const MOST_PUT_OFF: u32 = 1000;

/// A worker that may have replies ready without telling and has been silent for so long is looked at; then after twice as long, and so on.
const LOOK_AFTER: Duration = Duration::from_millis(1);
/// The longest pause between two looks. A worker that has but one task is looked at so often: it would tell, if what it shares with the
/// host were whole.
const MOST_LOOK_AFTER: Duration = Duration::from_secs(1);

/// What of a worker a key is about, in its last bits.
const KIND_BITS: u32 = 2;
const KIND: u64 = (1 << KIND_BITS) - 1;
/// The end of its process.
pub(crate) const PROCESS: u64 = 1;
/// What it writes to stdout or stderr.
pub(crate) const OUTPUT: u64 = 2;

/// Tasks as a supervisor needs them: consecutive, and what to send of them.
pub(crate) trait Load: Sized {
    /// How many are left.
    fn len(&self) -> u32;
    /// The number of the first that is left; the others' follow.
    fn first_task(&self) -> u64;
    /// What to send.
    fn records(&mut self) -> &mut Records;
    /// The first `n` have their outcome.
    fn done(&mut self, n: u32);
    /// Takes the first `n` away from the others.
    fn take_first(&mut self, n: u32) -> Self;
    /// The name of the function of the task that comes after the first `n`.
    fn function_after(&self, n: u32) -> &'static str;
}

/// One worker's place in a pool, and who fills it.
pub(crate) struct Supervisor<T> {
    id: WorkerId,
    /// Counts the processes that have had this place, so that an event of an earlier one is not taken for this one's.
    generation: u32,
    state: State<T>,
    /// Bytes to it and from it, of all the processes that have had this place.
    traffic: (u64, u64),
}

enum State<T> {
    Vacant,
    Starting { link: Link, deadline: Instant },
    Live { link: Link, in_flight: InFlight<T> },
    Draining { link: Link, deadline: Instant },
    Lost { link: Link, in_flight: InFlight<T>, deadline: Instant, was: Phase, reason: Option<String> },
}

/// Tasks that were sent and have given nothing yet, the oldest first.
struct InFlight<T> {
    /// Each with the sequence number of its first task. None is empty.
    loads: VecDeque<(u32, T)>,
    tasks: usize,
    /// The newest is to end; it has begun, and all others have ended.
    stop: Option<Stop>,
}

/// A task that is to end, whatever it does.
struct Stop {
    /// What it comes to.
    kind: TaskErrorKind,
    stage: Stage,
    /// When the next stage is due.
    due: Instant,
}

/// How a task is made to end.
#[derive(Clone, Copy)]
enum Stage {
    /// It knows that it is to end.
    Told,
    /// Its process was asked to end.
    Terminated,
    /// Its process was killed.
    Killed,
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
    /// What it writes, if it comes here.
    transcript: Option<Transcript>,
    launched_at: Instant,
    ledger: Ledger,
    /// A reply that was read and is settled once what the task wrote has been given on.
    held: Option<(Vec<u8>, Vec<u8>)>,
    /// Why it would not serve on, as it says. What it said before is still to be read.
    last_words: Option<String>,
    /// It could not start, for the system is short of something.
    was_short: bool,
    /// Polled for room to write.
    writing: bool,
    /// How often something was put off, for it had not been read to the end.
    put_off: u32,
    killed: bool,
    /// It was to be ended in every way there is, and lives.
    given_up: bool,
}

/// What is known of a worker's requests and replies.
struct Ledger {
    next_seq: u32,
    /// The last task that has an outcome.
    ended_seq: u32,
    /// Results that have come.
    results: u64,
    /// Tasks that were sent and not taken back.
    given: u64,
    /// When it was last looked how large the process is.
    weighed: Option<Instant>,
    /// The task of this number panics; the process may not live to say more.
    panic: Option<(u32, RemotePanic)>,
    /// It may have replies ready without telling.
    is_quiet: bool,
    /// When to look at what it has ready, if it stays silent.
    look_at: Option<Instant>,
    /// How long after the last look that is, if there may be something ready.
    look_after: Duration,
    /// For how long the oldest task in flight is known to have run, where somebody counts.
    ran: Duration,
    /// Since when that is not counted. Without tasks: since when there are none.
    counted: Instant,
}

/// What a worker had to say.
#[must_use]
pub(crate) enum Step<'a, T> {
    /// It has shaken hands and is idle.
    Started,
    /// The first tasks of the load gave these results.
    Done { load: &'a mut T, results: Results<'a> },
    /// The first task of the load gave a result, after so many nanoseconds.
    DoneOne { load: &'a mut T, nanos: u64, result: Encoded<'a> },
    /// The first task of the load gave none.
    Failed { load: &'a mut T, nanos: u64, fault: Fault },
    /// The first task of the load, which was to end, has ended by itself after so many nanoseconds; this is what it comes to.
    Stopped { load: &'a mut T, nanos: u64, kind: TaskErrorKind },
    /// What was written by the task whose outcome is the next step.
    Wrote(Arc<Captured>),
    /// A function's words, or a line that it wrote, and the load that runs, if one does.
    Said(Record, Option<&'a T>),
    /// The first task of the load is so far, it says: a fraction of itself.
    Progress { load: &'a mut T, fraction: f64 },
    /// It tells of its time.
    Noted(Note),
}

/// What is known of a worker that has ended. Its place is vacant again.
#[must_use]
pub(crate) struct Obituary<T> {
    pub(crate) pid: u32,
    pub(crate) launched_at: Instant,
    pub(crate) was: Phase,
    /// How it ended, or why that is not known.
    pub(crate) exit: Result<Exit, &'static str>,
    pub(crate) cause: Option<Cause>,
    /// Why it would not serve, in its own words or ours.
    pub(crate) reason: Option<String>,
    /// It has said that it could not start because the system is short of something.
    pub(crate) was_short: bool,
    /// What it said of the panic during which it ended.
    pub(crate) panic: Option<RemotePanic>,
    /// The host killed it.
    pub(crate) killed: bool,
    /// The task that it was running was to end, and comes to this.
    pub(crate) stopped: Option<TaskErrorKind>,
    /// The task that it was running.
    pub(crate) running: Option<T>,
    /// What that task had written, or, if it ran none, what it wrote after the last.
    pub(crate) output: Option<Arc<Captured>>,
    /// Tasks that it had not begun.
    pub(crate) waiting: Vec<T>,
    /// Tasks of which nobody knows whether it began them.
    pub(crate) unknown: Vec<T>,
    /// It had given at least one result.
    pub(crate) was_useful: bool,
}

impl<T: Load> Supervisor<T> {
    pub(crate) fn new(id: WorkerId) -> Self {
        Self { id, generation: 0, state: State::Vacant, traffic: (0, 0) }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    /// Bytes that went to the place's processes, and that came from them, in frames.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        self.traffic
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.link().map(|link| link.launched.process.pid())
    }

    /// When its process was started, if it has one.
    pub(crate) fn launched_at(&self) -> Option<Instant> {
        self.link().map(|link| link.launched_at)
    }

    /// Its process has given at least one result.
    pub(crate) fn was_useful(&self) -> bool {
        self.link().is_some_and(|link| link.ledger.results > 0)
    }

    /// What `read` finds out by the process's number, unless that may have been another's meanwhile.
    pub(crate) fn ask<R>(&self, read: impl FnOnce(u32) -> Option<R>) -> Option<R> {
        let process = &self.link()?.launched.process;
        read(process.pid()).filter(|_| process.held().has_its_number())
    }

    /// What holds its process.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.link().map(|link| link.launched.process.held())
    }

    /// Its process cannot be ended: it is to be reaped as it is.
    pub(crate) fn is_given_up(&self) -> bool {
        self.link().is_some_and(|link| link.given_up)
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
        matches!(&self.state, State::Live { in_flight, .. } if in_flight.tasks == 0)
    }

    /// What it has not begun can be had back, and what it had begun when it died is known.
    pub(crate) fn has_board(&self) -> bool {
        self.link().is_some_and(|link| link.launched.board.is_some())
    }

    fn in_flight_or_none(&self) -> Option<&InFlight<T>> {
        match &self.state {
            State::Live { in_flight, .. } | State::Lost { in_flight, .. } => Some(in_flight),
            _ => None,
        }
    }

    /// Tasks that were sent and have given nothing yet, the oldest first.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &T> {
        self.in_flight_or_none().into_iter().flat_map(|in_flight| &in_flight.loads).map(|(_, load)| load)
    }

    /// How many tasks are in flight.
    pub(crate) fn in_flight_len(&self) -> usize {
        self.in_flight_or_none().map_or(0, |in_flight| in_flight.tasks)
    }

    /// The newest in flight, if there is one.
    pub(crate) fn newest(&self) -> Option<&T> {
        self.in_flight_or_none()?.loads.back().map(|(_, load)| load)
    }

    /// Has the newest task in flight, which has begun, end: it is told so, then its process is asked to end, then killed, each after a
    /// while. The task comes to this, even if it ends by itself. What is not begun must have been taken back.
    pub(crate) fn stop(&mut self, kind: TaskErrorKind, now: Instant) {
        if let State::Live { link, in_flight } | State::Lost { link, in_flight, .. } = &mut self.state
            && in_flight.stop.is_none()
            && let Some((seq, load)) = in_flight.loads.back()
        {
            let newest = seq.wrapping_add(load.len()).wrapping_sub(1);
            match &link.launched.board {
                Some(board) => board.tell_to_end(newest),
                // The one word that it hears while it works: that nothing more will come.
                None => link.launched.sender.close(),
            }
            in_flight.stop = Some(Stop { kind, stage: Stage::Told, due: now + TELL_GRACE });
        }
    }

    /// As [`stop`](Self::stop), at once and with whatever else is in flight.
    pub(crate) fn stop_now(&mut self, kind: TaskErrorKind, now: Instant) {
        if let State::Live { in_flight, .. } | State::Lost { in_flight, .. } = &mut self.state
            && in_flight.tasks > 0
        {
            in_flight.stop = Some(Stop { kind, stage: Stage::Killed, due: now + END_GRACE });
        }
        self.kill();
    }

    /// A task of this worker is to end; nothing is to be sent behind it.
    pub(crate) fn is_stopping(&self) -> bool {
        self.in_flight_or_none().is_some_and(|in_flight| in_flight.stop.is_some())
    }

    /// What it has said is known, as far as that can be waited for. `to_the_end`: it was read to the end just now.
    pub(crate) fn is_heard(&mut self, to_the_end: bool) -> bool {
        let Some(link) = self.link_mut() else { return true };
        link.put_off = if to_the_end { 0 } else { link.put_off.saturating_add(1) };
        to_the_end || link.put_off > MOST_PUT_OFF
    }

    /// When [`stop_further`](Self::stop_further) is due.
    pub(crate) fn stop_due(&self) -> Option<Instant> {
        self.in_flight_or_none()?.stop.as_ref().map(|stop| stop.due)
    }

    /// The task that is to end has not: does the next thing about it.
    pub(crate) fn stop_further(&mut self, now: Instant) {
        let (State::Live { link, in_flight } | State::Lost { link, in_flight, .. }) = &mut self.state else {
            return;
        };
        let Some(stop) = &mut in_flight.stop else { return };
        link.killed = true;
        let process = link.launched.process.held();
        (stop.stage, stop.due) = match stop.stage {
            Stage::Told => {
                // One that has ended is seen to have ended.
                let _ = process.terminate();
                (Stage::Terminated, now + TERM_GRACE)
            }
            Stage::Terminated | Stage::Killed => {
                process.kill();
                (Stage::Killed, now + END_GRACE)
            }
        };
    }

    /// When [`is_over`](Self::is_over) is to be asked, for a task that may run so long.
    pub(crate) fn over_due(&self, limit: Duration) -> Option<Instant> {
        let State::Live { link, in_flight } = &self.state else { return None };
        let is_counting = in_flight.tasks > 0 && in_flight.stop.is_none();
        is_counting.then(|| link.ledger.next_count(limit))
    }

    /// Whether the oldest task in flight has run for longer than it may; counts the time until now.
    pub(crate) fn is_over(&mut self, limit: Duration, now: Instant) -> bool {
        let has_begun = self.has_begun() || !self.has_board();
        let State::Live { link, in_flight } = &mut self.state else { return false };
        in_flight.tasks > 0 && in_flight.stop.is_none() && link.ledger.count(limit, has_begun, now)
    }

    /// The key under which the poller reports this worker's connection.
    fn key(&self) -> u64 {
        (u64::from(self.generation) << 32) | (u64::from(self.id.0) << KIND_BITS)
    }

    /// Of which worker's place, and of what of it, an event of this key tells.
    pub(crate) fn place_and_kind(key: u64) -> (usize, u64) {
        (((key & 0xffff_ffff) >> KIND_BITS) as usize, key & KIND)
    }

    /// The event is about the process that has this place now.
    pub(crate) fn owns(&self, key: u64) -> bool {
        !self.is_vacant() && key & !KIND == self.key()
    }

    /// Why this worker is not talked to through shared memory, if nobody has asked for that; says so once.
    pub(crate) fn why_slow(&mut self) -> Option<String> {
        self.link_mut()?.launched.why_slow.take()
    }

    /// Vacant → Starting. `false`: what workers are made from is being made, and the place is vacant still.
    pub(crate) fn launch(
        &mut self,
        launcher: &dyn Launcher,
        request: &LaunchRequest<'_>,
        hello: &Hello,
        poller: &Poller,
        now: Instant,
        deadline: Instant,
    ) -> Result<bool, LaunchError> {
        debug_assert!(self.is_vacant(), "only a vacant place is filled");
        let Launch::Ready(mut launched) = launcher.launch(request)? else { return Ok(false) };
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        poller.add(launched.receiver.poll_fd(), self.key())?;
        poller.add(launched.process.held().as_fd(), self.key() | PROCESS)?;
        let transcript = launched.streams.take().map(Transcript::new);
        for fd in transcript.iter().flat_map(Transcript::poll_fds) {
            poller.add(fd, self.key() | OUTPUT)?;
        }
        // If it has died already, its end is about to be reported.
        let _ = launched.sender.send(&[], Body::Borrowed(&hello.encode()));
        launched.sender.ring();
        // Nobody may be about to read: the poller is to tell of what it says.
        launched.receiver.park();
        let is_quiet = launched.is_quiet;
        let ledger = Ledger {
            next_seq: 1,
            ended_seq: 0,
            results: 0,
            given: 0,
            weighed: None,
            panic: None,
            is_quiet,
            look_at: None,
            look_after: LOOK_AFTER,
            ran: Duration::ZERO,
            counted: now,
        };
        let link = Link {
            launched,
            transcript,
            launched_at: now,
            ledger,
            held: None,
            last_words: None,
            was_short: false,
            writing: false,
            put_off: 0,
            killed: false,
            given_up: false,
        };
        self.state = State::Starting { link, deadline };
        Ok(true)
    }

    /// Sends tasks. Idle or Busy → Busy. What cannot be sent any more, for the worker has gone, is sorted out at its end.
    pub(crate) fn run(&mut self, mut load: T, orders: Orders) {
        let State::Live { link, in_flight } = &mut self.state else {
            unreachable!("only a live worker is given tasks")
        };
        let (first_seq, count, first_task) = (link.ledger.next_seq, load.len(), load.first_task());
        let head = RunHead { orders, first_seq, count, first_task };
        let sender = &mut link.launched.sender;
        let sent = match load.records().wire() {
            Wire::Small(records) => {
                self.traffic.0 += records.len() as u64;
                sender.send(head.to_bytes(None).as_slice(), Body::Borrowed(records))
            }
            Wire::Large(function, args) => {
                let is_bare = args.is_bare;
                let args: SharedBytes = args.clone();
                self.traffic.0 += (*args).as_ref().len() as u64;
                sender.send(head.to_bytes(Some((function, is_bare))).as_slice(), Body::Shared(&args))
            }
        };
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
            && error.kind() != io::ErrorKind::ConnectionReset
        {
            // Part of a frame may have gone: nothing that follows would be understood.
            link.launched.process.held().kill();
        }
        link.ledger.next_seq = first_seq.wrapping_add(count);
        link.ledger.given += u64::from(count);
        in_flight.tasks += count as usize;
        in_flight.loads.push_back((first_seq, load));
    }

    /// Has the worker see what it was sent.
    pub(crate) fn ring(&mut self, now: Instant, poller: &Poller) {
        let key = self.key();
        if let State::Live { link, in_flight } = &mut self.state {
            link.launched.sender.ring();
            if link.ledger.look_at.is_none() {
                // It had nothing.
                link.ledger.count_anew(now);
            }
            // It may have had one task, and have more now.
            if link.ledger.look_at.is_none_or(|at| at > now + link.ledger.look_after) {
                link.ledger.look_later(in_flight.tasks, now);
            }
            link.await_room(key, poller);
        }
    }

    /// Wakes it before there is something for it.
    pub(crate) fn rouse(&mut self) {
        if let State::Live { link, .. } = &mut self.state {
            link.launched.sender.ring();
        }
    }

    /// It has begun one at least of the tasks that are in flight.
    pub(crate) fn has_begun(&self) -> bool {
        let State::Live { link, in_flight } = &self.state else { return false };
        let oldest = in_flight.loads.front().map(|(seq, _)| *seq);
        let board = link.launched.board.as_ref();
        oldest.zip(board).is_some_and(|(seq, board)| has_begun(seq, board.claim().begun()))
    }

    /// Takes back every task that has not begun, the oldest first.
    pub(crate) fn take_back(&mut self) -> Vec<T> {
        // One that is lost may still begin what it has, until its process has ended.
        let (State::Live { link, in_flight } | State::Lost { link, in_flight, .. }) = &mut self.state else {
            return Vec::new();
        };
        let Some(board) = &link.launched.board else { return Vec::new() };
        // The word is the worker's to write, too: one that makes no sense takes nothing back, and the worker will run them.
        let begun = board.claim().take_back(link.ledger.next_seq);
        if !link.ledger.is_plausible(begun, in_flight) {
            return Vec::new();
        }
        let before = in_flight.tasks;
        let taken = in_flight.split_begun(begun);
        link.ledger.given -= (before - in_flight.tasks) as u64;
        taken
    }

    /// How many tasks it was given and has not been relieved of.
    pub(crate) fn given(&self) -> u64 {
        self.link().map_or(0, |link| link.ledger.given)
    }

    /// The last `n` tasks that it was given do not count as such.
    pub(crate) fn do_not_count(&mut self, n: u64) {
        if let Some(link) = self.link_mut() {
            link.ledger.given -= n;
        }
    }

    /// Since when it has had nothing to do, if it has not.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        match &self.state {
            State::Live { link, in_flight } if in_flight.tasks == 0 => Some(link.ledger.counted),
            _ => None,
        }
    }

    /// How much memory it has resident, in bytes; `None` if it was looked at just now, or that cannot be said.
    pub(crate) fn weigh(&mut self, now: Instant) -> Option<u64> {
        let State::Live { link, .. } = &mut self.state else { return None };
        if link.ledger.weighed.is_some_and(|at| now < at + WEIGH_EVERY) {
            return None;
        }
        link.ledger.weighed = Some(now);
        self.ask(resident_bytes)
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
            link.launched.process.held().kill();
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
            // It was refused before, and the connection's end has not ended it.
            link.given_up = link.launched.process.held().is_refused();
            link.launched.process.held().kill();
        }
    }

    /// Sends more of what is queued, when there is room.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        let key = self.key();
        if let State::Live { link, .. } = &mut self.state
            && link.launched.sender.queued_bytes() > 0
        {
            if let Err(error) = link.launched.sender.flush()
                && error.kind() == io::ErrorKind::InvalidData
            {
                link.launched.process.held().kill();
            }
            link.await_room(key, poller);
        }
    }

    /// The worker has said something that no poller tells of. One look.
    pub(crate) fn has_arrivals(&self) -> bool {
        match &self.state {
            // What a lost worker has left unread nobody will read.
            State::Vacant | State::Lost { .. } => false,
            State::Starting { link, .. } | State::Draining { link, .. } | State::Live { link, .. } => {
                link.launched.receiver.has_arrivals()
            }
        }
    }

    /// A large frame is on its way to the worker, or from it.
    pub(crate) fn is_streaming(&self) -> bool {
        let State::Live { link, .. } = &self.state else { return false };
        link.launched.sender.queued_bytes() > 0 || link.launched.receiver.is_midway()
    }

    /// There is room for some of what is queued for the worker. One look.
    pub(crate) fn has_room(&mut self) -> bool {
        match &mut self.state {
            State::Live { link, .. } => link.launched.sender.has_room(),
            _ => false,
        }
    }

    /// The poller need tell no more: somebody looks.
    pub(crate) fn unpark(&mut self) {
        if let State::Live { link, .. } = &mut self.state {
            link.launched.receiver.unpark();
        }
    }

    /// Has the poller tell of whatever the worker says from now on. `false`: it has said something already.
    pub(crate) fn park(&mut self) -> bool {
        match &mut self.state {
            State::Vacant | State::Lost { .. } => true,
            State::Starting { link, .. } | State::Draining { link, .. } | State::Live { link, .. } => {
                link.launched.receiver.park()
            }
        }
    }

    /// Reads what the worker has to say and hands it to `on`, until there is no more or `on` breaks. `readable`: the poller told of it.
    /// Returns whether there may be more that others' turn comes before.
    pub(crate) fn read(
        &mut self,
        readable: bool,
        now: Instant,
        poller: &Poller,
        on: impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> bool {
        let paused = self.hear(readable, now, poller, on);
        if paused && let Some(link) = self.link_mut() {
            // That was more than its connection holds: all that it had said when this began is known.
            link.put_off = MOST_PUT_OFF;
        }
        // What it said may have been that there is room.
        self.flush(poller);
        paused
    }

    fn hear(
        &mut self,
        readable: bool,
        now: Instant,
        poller: &Poller,
        mut on: impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> bool {
        // Before what it has said is read, to the end.
        let is_at_rest = self.is_look_due(now) && self.is_at_rest();
        if let Some(link) = self.link_mut() {
            link.launched.receiver.begin(readable);
        }
        let end = loop {
            let is_starting = self.is_starting();
            let (link, mut in_flight) = match &mut self.state {
                State::Vacant | State::Lost { .. } => return false,
                State::Starting { link, .. } | State::Draining { link, .. } => (link, None),
                State::Live { link, in_flight } => (link, Some(in_flight)),
            };
            let Link { launched, transcript, ledger, held, last_words, was_short, .. } = link;
            let Launched { receiver, board, .. } = launched;
            let received = match held.take() {
                Some((head, body)) => Ok(Received::Large { head, body }),
                None => receiver.recv(),
            };
            let frames = match received {
                Ok(Received::Frames(frames)) => frames,
                Ok(Received::Large { head, body }) => {
                    self.traffic.1 += (head.len() + body.len()) as u64;
                    if let (Some(transcript), Some(in_flight), Some(seq)) =
                        (&mut *transcript, in_flight.as_deref(), Reply::ends_large(&head))
                        && read_up_to(seq, transcript, ledger, in_flight, board.as_ref(), poller, &mut on)
                    {
                        *held = Some((head, body));
                        return false;
                    }
                    let said = match Reply::decode_large(&head, body) {
                        Ok(Reply::Said(record)) => {
                            Ok(on(Step::Said(record, in_flight.and_then(|tasks| tasks.oldest()))))
                        }
                        Ok(reply) => match in_flight {
                            Some(in_flight) => {
                                tell_output(transcript.as_mut(), &reply, &mut on);
                                ledger.settle(in_flight, reply, now, &mut on)
                            }
                            None => Err(Malformed),
                        },
                        Err(Malformed) => Err(Malformed),
                    };
                    match said {
                        Ok(ControlFlow::Continue(())) => continue,
                        Ok(ControlFlow::Break(())) => return false,
                        Err(Malformed) => break End::no_message(),
                    }
                }
                Ok(Received::Nothing) => {
                    if let Some(in_flight) = in_flight {
                        if is_at_rest && in_flight.tasks > 0 {
                            break End::Nonsense("it has left tasks without an answer".to_owned());
                        }
                        ledger.look_again(in_flight.tasks, now);
                    }
                    return false;
                }
                Ok(Received::Paused) => return true,
                Ok(Received::Closed) => break End::Closed,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::OutOfMemory) =>
                {
                    break End::Nonsense(format!("what it sent cannot be read: {error}"));
                }
                Err(error) => break End::Failed(error.to_string()),
            };
            let mut rest = frames;
            let mut flow = ControlFlow::Continue(());
            let mut end = None;
            while flow.is_continue() && end.is_none() {
                if transcript.is_none()
                    && let Some(in_flight) = in_flight.as_deref_mut()
                    && let Some(after) = ledger.settle_all(in_flight, rest, now, &mut on)
                {
                    rest = after;
                    continue;
                }
                let (reply, after) = if let Some((head, body, after)) = rest.split_brief() {
                    (Ok(Reply::from_brief(head, body)), after)
                } else if let Some((frame, after)) = rest.split_first() {
                    (Reply::decode(frame), after)
                } else {
                    break;
                };
                let Ok(reply) = reply else {
                    end = Some(End::no_message());
                    break;
                };
                if let (Some(transcript), Some(in_flight), Some(seq)) =
                    (&mut *transcript, in_flight.as_deref(), reply.ends())
                {
                    if read_up_to(seq, transcript, ledger, in_flight, board.as_ref(), poller, &mut on) {
                        flow = ControlFlow::Break(());
                        break;
                    }
                    tell_output(Some(transcript), &reply, &mut on);
                }
                rest = after;
                match (reply, in_flight.as_deref_mut()) {
                    (Reply::Note(note), _) => flow = on(Step::Noted(note)),
                    (Reply::Said(record), in_flight) => {
                        flow = on(Step::Said(record, in_flight.and_then(|tasks| tasks.oldest())));
                    }
                    (Reply::Progress { seq, fraction }, in_flight) => {
                        // A thread that a task has left behind may speak of that task, which is nothing to anybody.
                        let oldest = in_flight.and_then(|in_flight| in_flight.loads.front_mut());
                        if let Some((_, load)) = oldest.filter(|(oldest, _)| *oldest == seq) {
                            flow = on(Step::Progress { load, fraction });
                        }
                    }
                    (Reply::Refused(Refused { reason, is_short }), _) if is_starting => {
                        *was_short = is_short;
                        end = Some(End::Refused(reason))
                    }
                    (Reply::Refused(Refused { reason, .. }), _) => *last_words = Some(reason),
                    (reply, Some(in_flight)) => match ledger.settle(in_flight, reply, now, &mut on) {
                        Ok(next) => flow = next,
                        Err(Malformed) => end = Some(End::no_message()),
                    },
                    (Reply::Ready(Ready { version, build_id, .. }), None) if is_starting => {
                        end = Some(if version == VERSION && build_id == registry::build_id() {
                            End::Ready
                        } else {
                            End::Refused(format!(
                                "it is build {build_id:016x} and this program is {:016x}",
                                registry::build_id()
                            ))
                        });
                    }
                    _ => end = Some(End::no_message()),
                }
            }
            let seen = frames.as_bytes().len() - rest.as_bytes().len();
            receiver.consume(seen);
            self.traffic.1 += seen as u64;
            match end {
                Some(End::Ready) => {
                    if let State::Starting { mut link, .. } =
                        std::mem::replace(&mut self.state, State::Vacant)
                    {
                        link.ledger.count_anew(now);
                        self.state = State::Live { link, in_flight: InFlight::new() };
                    }
                    flow = on(Step::Started);
                }
                Some(end) => break end,
                None => {}
            }
            if flow.is_break() {
                return false;
            }
        };
        match end {
            End::Closed | End::Ready => self.lose(now, None),
            End::Failed(words) | End::Refused(words) => self.lose(now, Some(words)),
            End::Nonsense(words) => {
                self.lose(now, Some(words));
                self.kill();
            }
        }
        // An end of file would be reported again and again; the process's end is what is waited for now.
        if let Some(link) = self.link_mut() {
            poller.remove(link.launched.receiver.poll_fd());
        }
        false
    }

    /// Reads what the worker has written until now.
    pub(crate) fn read_output(&mut self, poller: &Poller, on: impl FnMut(Record, Option<&T>)) {
        self.with_transcript(on, |transcript, next_seq, say| {
            transcript.read(next_seq, |ended| poller.remove(ended), say);
        });
    }

    /// The worker's process has ended: reads what it has left.
    pub(crate) fn read_last_output(&mut self, poller: &Poller, on: impl FnMut(Record, Option<&T>)) {
        self.with_transcript(on, |transcript, next_seq, say| {
            transcript.end(next_seq, |ended| poller.remove(ended), say);
        });
    }

    fn with_transcript(
        &mut self,
        mut on: impl FnMut(Record, Option<&T>),
        read: impl FnOnce(&mut Transcript, u32, &mut dyn FnMut(Line)),
    ) {
        let (link, in_flight) = match &mut self.state {
            State::Vacant => return,
            State::Starting { link, .. } | State::Draining { link, .. } => (link, None),
            State::Live { link, in_flight } | State::Lost { link, in_flight, .. } => {
                (link, Some(&*in_flight))
            }
        };
        let board = link.launched.board.as_ref();
        if let Some(transcript) = &mut link.transcript {
            read(transcript, link.ledger.next_seq, &mut |line| {
                if let Some(record) = record_of(line, in_flight, board) {
                    on(Record::Log(record), in_flight.and_then(InFlight::oldest));
                }
            });
        }
    }

    /// The worker will begin nothing more of what it has, or has done with all of it.
    fn is_at_rest(&self) -> bool {
        let State::Live { link, in_flight } = &self.state else { return false };
        let Launched { sender, board, .. } = &link.launched;
        let oldest = in_flight.loads.front().map(|(seq, _)| *seq);
        let is_barred = oldest.zip(board.as_ref()).is_some_and(|(seq, board)| board.claim().bars(seq));
        is_barred || sender.is_peer_at_rest()
    }

    /// A look at what the worker has ready is due.
    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        self.link().and_then(|link| link.ledger.look_at).is_some_and(|at| at <= now) && self.is_live()
    }

    /// Collects the process if it has ended; then the place is vacant, and this is what is known.
    ///
    /// What it sent before its end must have been read.
    pub(crate) fn reap(&mut self, now: Instant, poller: &Poller) -> Option<Obituary<T>> {
        let link = self.link_mut()?;
        let exit = match link.launched.process.try_reap() {
            Some(exit) => exit,
            None if link.given_up => {
                link.launched.process.give_up();
                Err("it could not be ended, for the system refuses to signal it")
            }
            None => return None,
        };
        self.lose(now, None);
        let State::Lost { link, mut in_flight, was, reason, .. } =
            std::mem::replace(&mut self.state, State::Vacant)
        else {
            unreachable!("`lose` has just made it so")
        };
        poller.remove(link.launched.receiver.poll_fd());
        poller.remove(link.launched.process.held().as_fd());
        let oldest = in_flight.loads.front().map(|(seq, _)| *seq);
        let mut obituary = Obituary {
            pid: link.launched.process.pid(),
            launched_at: link.launched_at,
            was,
            exit,
            cause: None,
            reason: reason.or(link.last_words),
            was_short: link.was_short,
            panic: link.ledger.panic.filter(|(seq, _)| oldest == Some(*seq)).map(|(_, panic)| panic),
            killed: link.killed,
            stopped: in_flight.stop.take().map(|stop| stop.kind),
            running: None,
            output: None,
            waiting: Vec::new(),
            unknown: Vec::new(),
            was_useful: link.ledger.results > 0,
        };
        if let Some(board) = &link.launched.board {
            obituary.cause = board.cause();
            let begun = board.claim().begun();
            // A result is out before the next task begins, so one task at most has begun and given nothing. Anything else was not
            // written by a worker of ours, and says nothing.
            if oldest == Some(begun) || begun == link.ledger.ended_seq {
                obituary.waiting = in_flight.split_begun(begun);
                obituary.running = in_flight.loads.pop_front().map(|(_, load)| load);
            }
        }
        obituary.unknown = in_flight.loads.into_iter().map(|(_, load)| load).collect();
        if let Some(mut transcript) = link.transcript {
            let had_work = obituary.running.is_some() || !obituary.unknown.is_empty();
            let seq = oldest.filter(|_| had_work).unwrap_or(link.ledger.next_seq);
            obituary.output = transcript.take(seq);
        }
        Some(obituary)
    }

    /// Any live state → Lost: the connection has ended, the process is about to.
    fn lose(&mut self, now: Instant, why: Option<String>) {
        let deadline = now + END_GRACE;
        self.state = match std::mem::replace(&mut self.state, State::Vacant) {
            State::Starting { link, .. } => {
                State::Lost { link, in_flight: InFlight::new(), deadline, was: Phase::Starting, reason: why }
            }
            State::Live { link, in_flight } => {
                State::Lost { link, in_flight, deadline, was: Phase::Serving, reason: why }
            }
            State::Draining { link, .. } => {
                State::Lost { link, in_flight: InFlight::new(), deadline, was: Phase::Draining, reason: why }
            }
            as_it_was @ (State::Lost { .. } | State::Vacant) => as_it_was,
        };
    }

    /// Any → Vacant, when the numbers of this process's descriptors may be others' by now: nothing is closed and nobody signalled. Returns
    /// the process's number, and the tasks that have given nothing.
    pub(crate) fn abandon(&mut self) -> Option<(u32, impl Iterator<Item = T> + use<T>)> {
        let (link, in_flight) = match std::mem::replace(&mut self.state, State::Vacant) {
            State::Vacant => return None,
            State::Starting { link, .. } | State::Draining { link, .. } => (link, InFlight::new()),
            State::Live { link, in_flight } | State::Lost { link, in_flight, .. } => (link, in_flight),
        };
        let pid = link.launched.process.pid();
        std::mem::forget(link);
        Some((pid, in_flight.loads.into_iter().map(|(_, load)| load)))
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

impl<T> InFlight<T> {
    fn new() -> Self {
        Self { loads: VecDeque::new(), tasks: 0, stop: None }
    }
}

impl<T: Load> InFlight<T> {
    fn oldest(&self) -> Option<&T> {
        self.loads.front().map(|(_, load)| load)
    }

    /// The first `n` tasks of the oldest load have their outcome.
    fn done(&mut self, n: u32) {
        if let Some((seq, load)) = self.loads.front_mut() {
            load.done(n);
            *seq = seq.wrapping_add(n);
            self.tasks -= n as usize;
            if load.len() == 0 {
                self.loads.pop_front();
            }
            if self.tasks == 0 {
                self.stop = None;
            }
        }
    }

    /// The task that began after the one of this sequence number: its own number and its function. `None`: nothing has begun since.
    fn first_after(&self, seq: u32, board: Option<&Board>) -> Option<(u64, &'static str)> {
        let begun = board.map(|board| board.claim().begun());
        self.loads.iter().find_map(|(first, load)| {
            // Less than none where all of them come after it.
            let n = seq.wrapping_sub(*first).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            let has_begun = begun.is_none_or(|begun| has_begun(first.wrapping_add(n), begun));
            (n < load.len() && has_begun).then(|| (load.first_task() + u64::from(n), load.function_after(n)))
        })
    }

    /// Keeps what has begun and returns the rest.
    fn split_begun(&mut self, begun: u32) -> Vec<T> {
        let mut rest = Vec::new();
        for (seq, mut load) in std::mem::take(&mut self.loads) {
            // Less than none where even the first has not begun.
            let n = begun.wrapping_sub(seq).wrapping_add(1).cast_signed().max(0).cast_unsigned();
            if n >= load.len() {
                self.loads.push_back((seq, load));
                continue;
            }
            if n > 0 {
                self.loads.push_back((seq, load.take_first(n)));
            }
            self.tasks -= load.len() as usize;
            rest.push(load);
        }
        rest
    }
}

/// Reads all that task `seq`, whose reply is here, has written: it was written before the reply. Returns whether a line of it was given
/// on, which must be out before the reply is settled.
fn read_up_to<T: Load>(
    seq: u32,
    transcript: &mut Transcript,
    ledger: &Ledger,
    in_flight: &InFlight<T>,
    board: Option<&Board>,
    poller: &Poller,
    on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
) -> bool {
    let mut said = false;
    if !transcript.has_all_of(seq) {
        transcript.read(
            ledger.next_seq,
            |ended| poller.remove(ended),
            |line| {
                if let Some(record) = record_of(line, Some(in_flight), board) {
                    said = true;
                    // Whatever it answers, the other lines have been read, too.
                    let _ = on(Step::Said(Record::Log(record), in_flight.oldest()));
                }
            },
        );
    }
    said
}

/// Gives on what was written by the task whose outcome this is.
fn tell_output<T>(
    transcript: Option<&mut Transcript>,
    reply: &Reply<'_>,
    on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
) {
    if let Some(output) = transcript.zip(reply.ends()).and_then(|(transcript, seq)| transcript.take(seq)) {
        let _ = on(Step::Wrote(output));
    }
}

/// The record that a line becomes, if records of its level are wanted.
fn record_of<T: Load>(
    line: Line,
    in_flight: Option<&InFlight<T>>,
    board: Option<&Board>,
) -> Option<LogRecord> {
    let level = match line.stream {
        StreamName::Stdout => log::Level::Info,
        StreamName::Stderr => log::Level::Warn,
    };
    if level > log::max_level() {
        return None;
    }
    let author = in_flight.and_then(|in_flight| in_flight.first_after(line.after_seq, board));
    let module = author.map(|(_, function)| module_of(function));
    Some(LogRecord {
        level: level as u8,
        target: module.unwrap_or("procession").to_owned(),
        message: line.words,
        module: module.map(str::to_owned),
        file: None,
        line: None,
        task: author.map(|(task, _)| task),
        fields: vec![("stream".to_owned(), line.stream.as_str().to_owned())],
    })
}

/// The path of the module that a function is in.
fn module_of(function: &str) -> &str {
    // Of a generic one the types in angle brackets have paths, too.
    let path = function.split('<').next().unwrap_or_default().trim_end_matches("::");
    path.rsplit_once("::").map_or(path, |(module, _)| module)
}

/// Why the reading of a worker pauses or ends.
enum End {
    Ready,
    Closed,
    Failed(String),
    Refused(String),
    /// What a worker of ours does not do.
    Nonsense(String),
}

impl End {
    fn no_message() -> Self {
        Self::Nonsense("it sent what is no message of ours".to_owned())
    }
}

impl Ledger {
    /// Gives the results at the start of `frames` to `on`, if they are those of the oldest tasks; returns what follows them.
    #[inline]
    fn settle_all<'f, T: Load>(
        &mut self,
        in_flight: &mut InFlight<T>,
        frames: Frames<'f>,
        now: Instant,
        on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Option<Frames<'f>> {
        let (seq, load) = in_flight.loads.front_mut()?;
        let seq = *seq;
        // One that was to end has come to its outcome, whatever it says.
        let stopped = u32::from(in_flight.stop.is_some() && in_flight.tasks == load.len() as usize);
        let (results, after) = Results::split_from(frames, seq, load.len() - stopped);
        let n = results.len();
        if n == 0 {
            return None;
        }
        self.ended_seq = seq.wrapping_add(n).wrapping_sub(1);
        // Results end nothing: what `on` says to them does not count.
        let _ = on(Step::Done { load, results });
        in_flight.done(n);
        self.settled(n, in_flight.tasks, now);
        Some(after)
    }

    /// Notes what a reply about a task says. Replies come in the order of the requests: this one is about the oldest task.
    fn settle<T: Load>(
        &mut self,
        in_flight: &mut InFlight<T>,
        reply: Reply<'_>,
        now: Instant,
        on: &mut impl FnMut(Step<'_, T>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Malformed> {
        let (oldest, load) = in_flight.loads.front_mut().ok_or(Malformed)?;
        let oldest = *oldest;
        let stopped = if in_flight.tasks == 1 { in_flight.stop.as_ref() } else { None };
        let flow = match reply {
            Reply::Panic { seq, panic } => {
                self.panic = Some((seq, panic));
                return Ok(ControlFlow::Continue(()));
            }
            Reply::Done { seq, nanos, .. } | Reply::Fault { seq, nanos, .. }
                if seq == oldest
                    && let Some(Stop { kind, .. }) = stopped =>
            {
                on(Step::Stopped { load, nanos, kind: kind.clone() })
            }
            Reply::Done { seq, nanos, result } if seq == oldest => on(Step::DoneOne { load, nanos, result }),
            Reply::Fault { seq, nanos, fault } if seq == oldest => on(Step::Failed { load, nanos, fault }),
            _ => return Err(Malformed),
        };
        self.ended_seq = oldest;
        in_flight.done(1);
        self.settled(1, in_flight.tasks, now);
        Ok(flow)
    }

    /// A worker of ours may have begun this task last: it has an outcome, or is in flight. (What was taken back lies between the two.)
    fn is_plausible<T: Load>(&self, begun: u32, in_flight: &InFlight<T>) -> bool {
        let oldest = in_flight.loads.front().map(|(seq, _)| *seq);
        let is_in_flight =
            oldest.is_some_and(|seq| has_begun(seq, begun)) && !has_begun(self.next_seq, begun);
        begun == self.ended_seq || is_in_flight
    }

    fn settled(&mut self, n: u32, left: usize, now: Instant) {
        self.results += u64::from(n);
        self.panic = None;
        self.count_anew(now);
        self.look_later(left, now);
    }

    /// When the time that the oldest task has run is to be counted next.
    fn next_count(&self, limit: Duration) -> Instant {
        self.counted + slice(limit).min(limit.saturating_sub(self.ran)).max(LEAST_SLICE)
    }

    /// Another task is the oldest, or there is none.
    fn count_anew(&mut self, now: Instant) {
        self.ran = Duration::ZERO;
        self.counted = now;
    }

    /// Counts the time since it was last counted, if the task has begun. Returns whether it is up.
    fn count(&mut self, limit: Duration, has_begun: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        if has_begun {
            self.ran += passed.min(slice(limit) * 2 + LATE);
        }
        has_begun && self.ran >= limit
    }

    /// A worker that has one task more than it runs may have a reply ready without telling: if it stays silent, it is looked at.
    fn look_later(&mut self, in_flight: usize, now: Instant) {
        self.look_after = LOOK_AFTER;
        self.look_at = self.next_look(in_flight, now);
    }

    fn next_look(&self, in_flight: usize, now: Instant) -> Option<Instant> {
        let may_hold_back = in_flight > 1 && self.is_quiet;
        (in_flight > 0).then(|| now + if may_hold_back { self.look_after } else { MOST_LOOK_AFTER })
    }

    /// It was looked at, and had nothing.
    fn look_again(&mut self, in_flight: usize, now: Instant) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_after = (self.look_after * 2).min(MOST_LOOK_AFTER);
            self.look_at = self.next_look(in_flight, now);
        }
    }
}

fn slice(limit: Duration) -> Duration {
    (limit / SLICES).clamp(LEAST_SLICE, MOST_SLICE)
}

impl Link {
    /// Sees to it that `flush` is called when there is room for what is queued.
    fn await_room(&mut self, key: u64, poller: &Poller) {
        let sender = &mut self.launched.sender;
        let writable = loop {
            if sender.queued_bytes() == 0 {
                break false;
            }
            match sender.await_room() {
                Room::Readable => break false,
                Room::Writable => break true,
                Room::Now => {
                    if sender.flush().is_err() {
                        break false;
                    }
                }
            }
        };
        if writable != self.writing {
            self.writing = writable;
            let _ = poller.set_writable(self.launched.receiver.poll_fd(), key, writable);
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
