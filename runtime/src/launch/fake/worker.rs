//! The worker of a [`FakeLauncher`](super::FakeLauncher): what it was sent, what it runs, and how it ends.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{
    Recalls,
    task::{FakeTask, Rings},
};
use crate::{
    error::{Exit, Fault},
    frame::Prefix,
    id::before,
    launch::{PROCESS, Peer},
    protocol::{
        Hello, LogRecord, Note, Notice, Ready, Refused, ReplyFrame, ReplyWire, VERSION, encode_boundary,
    },
    registry,
    segment::{SegmentId, To},
    sync::ignore_poison,
    transport::{Board, Cause, Descriptors},
};

/// The token in the boundaries of captured output.
pub(super) const TOKEN: u64 = 0xfeed;

/// A worker that a test plays.
#[derive(Clone)]
pub(crate) struct FakeWorker(Arc<Mutex<FakeState>>);

impl fmt::Debug for FakeWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FakeWorker").field(&self.pid()).finish()
    }
}

/// A signal that a worker was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Terminate,
    Kill,
}

#[derive(Default)]
pub(super) struct FakeState {
    pub(super) key: u64,
    pub(super) pid: u32,
    pub(super) board: Option<Board>,
    pub(super) recalls: Recalls,
    /// The last task that it has begun.
    pub(super) begun: u32,
    /// Up to where its tasks were recalled, for each answer that it owes.
    pub(super) recalled: VecDeque<u32>,
    /// The task that it was told to end, if not by its board.
    pub(super) to_end: Option<u32>,
    pub(super) hello: Option<Hello>,
    /// The segments that it was handed and has not been told to forget.
    pub(super) segments: Vec<SegmentId>,
    /// The segments for which the system had no room.
    pub(super) on_their_way: Vec<SegmentId>,
    /// The system has no room for more descriptors.
    pub(super) is_short: bool,
    /// The descriptors that it has sent, by message.
    pub(super) descriptors: VecDeque<Descriptors>,
    /// The tasks that were sent to it and have not begun.
    pub(super) waiting: VecDeque<FakeTask>,
    pub(super) running: Option<FakeTask>,
    /// The bytes that it has sent and the host has not read.
    pub(super) sent: Vec<u8>,
    /// It has woken its host.
    pub(super) has_rung: bool,
    /// It has closed its end of the connection.
    pub(super) is_closed: bool,
    /// The host has closed its end.
    pub(super) is_left: bool,
    pub(super) told: Vec<Told>,
    pub(super) exit: Option<Result<Exit, &'static str>>,
    pub(super) is_reaped: bool,
    pub(super) is_prompt: bool,
    pub(super) computes: bool,
    /// The system refuses to signal it.
    pub(super) is_unsignalled: bool,
    pub(super) is_given_up: bool,
    pub(super) resident_bytes: Option<u64>,
    /// The bytes that it has written to its first captured stream and the host has not read.
    pub(super) written: Vec<u8>,
    /// A large frame that it has sent.
    pub(super) large: Option<(Vec<u8>, Vec<u8>)>,
}

impl FakeWorker {
    pub(super) fn new(state: FakeState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FakeState> {
        ignore_poison(self.0.lock())
    }

    /// Returns the keys of what the owner's poller would report now.
    pub(crate) fn events(&self) -> Vec<u64> {
        let state = self.lock();
        let arrivals = (state.is_closed || !state.sent.is_empty()).then_some(state.key);
        let end = state.exit.is_some().then_some(state.key | PROCESS);
        arrivals.into_iter().chain(end).filter(|_| !state.is_reaped).collect()
    }

    /// Returns, once, whether it has woken its host.
    pub(crate) fn take_ring(&self) -> bool {
        let mut state = self.lock();
        std::mem::take(&mut state.has_rung) || state.exit.is_some() || state.is_closed
    }

    /// Completes its handshake.
    pub(crate) fn ready(&self) {
        let mut state = self.lock();
        state.hello = None;
        let pid = state.pid;
        state.frame(&Notice::Ready(Ready { version: VERSION, build_id: registry::build_id(), pid }).encode());
    }

    /// Does not become a worker, for this reason.
    pub(crate) fn refuse(&self, reason: &str, is_short: bool) {
        self.lock().frame(&Notice::Refused(Refused { reason: reason.to_owned(), is_short }).encode());
    }

    /// Begins the next task that was not taken back. Returns it.
    pub(crate) fn begin(&self) -> Option<FakeTask> {
        let mut state = self.lock();
        assert!(state.running.is_none(), "it runs one task at a time");
        while let Some(task) = state.waiting.pop_front() {
            if state.board.as_ref().is_none_or(|board| board.claim().begin(task.seq)) {
                state.begun = task.seq;
                state.running = Some(task.clone());
                return Some(task);
            }
        }
        None
    }

    /// Answers a recall of its tasks. Returns whether there was one.
    pub(crate) fn answer(&self) -> bool {
        let mut state = self.lock();
        let Some(next) = state.recalled.pop_front() else { return false };
        state.waiting.retain(|task| !before(task.seq, next));
        let begun = state.begun;
        state.frame(&Notice::Recalled { begun }.encode());
        true
    }

    /// Returns the task that is running.
    pub(crate) fn running(&self) -> Option<FakeTask> {
        self.lock().running.clone()
    }

    /// Returns how many tasks were sent to it and have not begun, even if they were taken back.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns the result of the running task, which took this time.
    pub(crate) fn finish(&self, took: Duration) {
        let args = self.running().expect("a task is running").args;
        self.reply(took, Ok(args));
    }

    /// Lets the running task fail.
    pub(crate) fn fail(&self) {
        self.reply(Duration::ZERO, Err(Fault::codec("out of corn".to_owned())));
    }

    fn reply(&self, took: Duration, outcome: Result<Vec<u8>, Fault>) {
        let mut state = self.lock();
        let task = state.running.take().expect("a task is running");
        state.write(&encode_boundary(TOKEN, task.seq));
        if let Some(tasks) = task.counted {
            let times = if state.computes { 0 } else { tasks };
            state.frame(&Notice::Note(Note::Waited { tasks, times }).encode());
        }
        let has_failed = outcome.is_err();
        let mut reply = ReplyFrame::new();
        reply.make(task.seq, |result, _| {
            result.extend(outcome?);
            Ok(())
        });
        reply.set_nanos(took.as_nanos() as u64);
        let is_last = !state.waits_for(|_| true);
        let rings = match task.rings {
            _ if state.has_rung || is_last || has_failed => true,
            Rings::Always => true,
            Rings::BeforeRest => !state.waits_for(|other| other.request != task.request),
            Rings::AtRest => false,
        };
        match reply.wire() {
            ReplyWire::Brief(head, body) => {
                state.sent.extend(Prefix::Brief { head, len: body.len() }.to_bytes());
                state.sent.extend(body);
            }
            ReplyWire::Parts(head, more, body) => state.frame(&[&head[..], more, body].concat()),
        }
        state.has_rung = rings;
    }

    /// Begins and finishes all tasks that were not taken back, each of which takes this time. Returns their number.
    pub(crate) fn run_all(&self, each: Duration) -> usize {
        let begin = || self.running().or_else(|| self.begin());
        std::iter::from_fn(|| begin().map(|_| self.finish(each))).count()
    }

    /// Writes to its first captured stream.
    pub(crate) fn write(&self, text: &str) {
        self.lock().write(text.as_bytes());
    }

    /// Returns a large result of the running task.
    pub(crate) fn finish_large(&self, result: Vec<u8>) {
        let mut state = self.lock();
        let seq = state.running.take().expect("a task is running").seq;
        let mut reply = ReplyFrame::new();
        reply.make(seq, |_, large| {
            *large = result;
            Ok(())
        });
        state.write(&encode_boundary(TOKEN, seq));
        let ReplyWire::Parts(head, more, body) = reply.wire() else { panic!("it is no large result") };
        state.large = Some(([&head[..], more].concat(), body.to_vec()));
    }

    /// Sends this frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.lock().frame(frame);
    }

    /// Reports the progress of the running task.
    pub(crate) fn progress(&self, fraction: f64) {
        let seq = self.running().expect("a task is running").seq;
        self.send(&Notice::Progress { seq, fraction }.encode());
    }

    /// Sends a log record.
    pub(crate) fn log(&self, message: &str) {
        let task = self.running().map(|task| task.number);
        let record = LogRecord {
            level: 1,
            target: "test".to_owned(),
            message: message.to_owned(),
            module: None,
            file: None,
            line: None,
            task,
            fields: Vec::new(),
        };
        self.send(&Notice::Said(crate::protocol::Record::Log(record)).encode());
    }

    /// Closes its connection, and does not end yet.
    pub(crate) fn disconnect(&self) {
        self.lock().is_closed = true;
    }

    /// Ends.
    pub(crate) fn end(&self, exit: Exit) {
        self.end_as(Ok(exit));
    }

    /// Ends in a way that is perhaps not known.
    pub(crate) fn end_as(&self, exit: Result<Exit, &'static str>) {
        let mut state = self.lock();
        state.is_closed = true;
        state.exit.get_or_insert(exit);
    }

    /// Does what its host has told it: ends if it was killed or its idle connection was closed. Returns whether it did.
    pub(crate) fn obey(&self) -> bool {
        let state = self.lock();
        if state.exit.is_some() {
            return false;
        }
        let exit = if state.told.contains(&Told::Kill) && !state.is_unsignalled {
            Exit::from_signal(9)
        } else if state.is_left && state.running.is_none() && state.has_run_all() {
            Exit::from_code(0)
        } else {
            return false;
        };
        drop(state);
        self.end(exit);
        true
    }

    /// Returns whether the running task was told to end.
    pub(crate) fn is_told_to_end(&self) -> bool {
        let state = self.lock();
        state.running.as_ref().is_some_and(|FakeTask { seq, .. }| {
            state.to_end == Some(*seq) || state.board.as_ref().is_some_and(|board| board.is_to_end(*seq))
        })
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.lock().told.clone()
    }

    /// Returns whether its host has closed the connection.
    pub(crate) fn is_left(&self) -> bool {
        self.lock().is_left
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().exit.is_some()
    }

    pub(crate) fn is_reaped(&self) -> bool {
        self.lock().is_reaped
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.lock().is_given_up
    }

    /// Sends descriptors, and a message that names this task and this number of them.
    pub(crate) fn return_segments(&self, seq: u32, count: u32, fds: Vec<OwnedFd>, are_lost: bool) {
        let mut state = self.lock();
        if are_lost || !fds.is_empty() {
            state.descriptors.push_back(Descriptors { fds, are_lost });
        }
        state.frame(&Notice::Segments { seq, count }.encode());
    }

    /// Sets whether the system has no room for more descriptors.
    pub(crate) fn set_short(&self, is_short: bool) {
        self.lock().is_short = is_short;
    }

    /// Returns the segments that it was handed and not told to forget.
    pub(crate) fn segments(&self) -> Vec<SegmentId> {
        self.lock().segments.clone()
    }

    /// Returns what it was greeted with, until it answers.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.lock().hello.clone()
    }

    pub(crate) fn board(&self) -> Option<Board> {
        self.lock().board.clone()
    }

    pub(crate) fn grow_to(&self, bytes: u64) {
        self.lock().resident_bytes = Some(bytes);
    }

    pub(crate) fn refuse_signals(&self) {
        self.lock().is_unsignalled = true;
    }

    /// Does what it was sent, if it is prompt.
    pub(super) fn wake(&self) {
        if self.lock().is_prompt {
            if self.hello().is_some() {
                self.ready();
            }
            while let Some(task) = self.begin() {
                self.reply(Duration::from_micros(1), run(&task));
            }
            self.obey();
        }
    }
}

fn run(task: &FakeTask) -> Result<Vec<u8>, Fault> {
    let entry = registry::find(crate::id::FunctionId(task.function)).expect("a function of the table");
    let (mut head, mut body) = (Vec::new(), Vec::new());
    let args = crate::codec::ShortBytes::from_slice(&task.args);
    crate::dispatch::run(entry, || args.as_input(), To::Caller, &mut head, &mut body)?;
    Ok([head, body].concat())
}

impl FakeState {
    /// Returns whether everything that it was sent has been taken back.
    fn has_run_all(&self) -> bool {
        !self.waits_for(|_| true)
    }

    /// Returns whether a task of this kind has not begun and was not taken back.
    fn waits_for(&self, is_kind: impl Fn(&FakeTask) -> bool) -> bool {
        let bars = |seq| self.board.as_ref().is_some_and(|board| board.claim().bars(seq));
        self.waiting.iter().any(|task| is_kind(task) && !bars(task.seq))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }

    fn frame(&mut self, frame: &[u8]) {
        self.has_rung = true;
        self.sent.extend(Prefix::Frame { head_len: 0, len: frame.len() }.to_bytes());
        self.sent.extend(frame);
    }
}

impl Peer for FakeWorker {
    fn pid(&self) -> u32 {
        self.lock().pid
    }

    fn begun(&self) -> Option<u32> {
        let state = self.lock();
        match &state.board {
            Some(board) => Some(board.claim().begun()),
            None => (state.recalls == Recalls::Later && state.exit.is_some()).then_some(state.begun),
        }
    }

    fn can_recall(&self) -> bool {
        self.lock().recalls != Recalls::Never
    }

    fn recall(&self, next: u32) -> Option<u32> {
        let mut state = self.lock();
        if let Some(board) = &state.board {
            return Some(board.claim().take_back(next));
        }
        state.recalled.push_back(next);
        None
    }

    fn bars(&self, seq: u32) -> bool {
        self.lock().board.as_ref().is_some_and(|board| board.claim().bars(seq))
    }

    fn tell_to_end(&self, seq: u32) -> bool {
        let mut state = self.lock();
        match &state.board {
            Some(board) => board.tell_to_end(seq),
            None if state.recalls == Recalls::Later => state.to_end = Some(seq),
            None => {}
        }
        state.recalls != Recalls::Never
    }

    fn terminate(&self) {
        self.lock().told.push(Told::Terminate);
    }

    fn kill(&self) {
        let mut state = self.lock();
        state.told.push(Told::Kill);
        // Then the host closes the connection, in the hope that the process ends by itself.
        state.is_closed |= state.is_unsignalled;
    }

    fn is_refused(&self) -> bool {
        let state = self.lock();
        state.is_unsignalled && state.told.contains(&Told::Kill)
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.lock().resident_bytes
    }

    fn peak_rss_bytes(&self) -> Option<u64> {
        self.lock().resident_bytes
    }

    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        let mut state = self.lock();
        state.is_reaped = state.exit.is_some();
        state.exit
    }

    fn cause(&self, _exit: Result<Exit, &'static str>) -> Option<Cause> {
        self.lock().board.as_ref()?.cause()
    }

    fn give_up(&mut self) {
        self.lock().is_given_up = true;
    }
}
