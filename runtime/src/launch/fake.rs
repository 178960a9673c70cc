//! A launcher for tests. A test plays its workers, in this process and at the test's own times.
//!
//! A [`FakeWorker`] claims tasks on a real board and sends real frames, but has no process, no descriptor and no clock.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Launch, LaunchError, LaunchRequest, Launched, Launcher, PROCESS, Streams, Watched, WorkerProcess,
    output::Pipes,
};
use crate::{
    error::{Exit, Fault},
    frame::{Frames, Prefix},
    protocol::{
        Hello, LogRecord, Notice, Ready, Refused, ReplyFrame, ReplyWire, ToWorker, VERSION, encode_boundary,
    },
    registry,
    sys::held::Held,
    transport::{Board, Body, FrameReceiver, FrameSender, QueueingSender, Received, Room, Segment},
};

/// The token in the boundaries of captured output.
const TOKEN: u64 = 0xfeed;

/// Starts fake workers.
#[derive(Clone, Default)]
pub(crate) struct FakeLauncher(Arc<Mutex<Launches>>);

#[derive(Default)]
pub(crate) struct Launches {
    /// What becomes of the next starts. Later ones succeed.
    pub(crate) outcomes: VecDeque<Outcome>,
    /// All workers that were started, in order.
    pub(crate) workers: Vec<FakeWorker>,
    /// Workers have no board, so nothing can be taken back from them.
    pub(crate) without_board: bool,
    /// The number of starts that were asked for.
    pub(crate) asked: usize,
    pub(crate) oom_kills: Option<u64>,
    /// Workers are ready at once, and run what they are sent as soon as they are woken.
    pub(crate) is_prompt: bool,
}

/// What becomes of a start.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    NotYet,
    Fails(LaunchError),
}

impl FakeLauncher {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Launches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launcher for FakeLauncher {
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let mut launches = self.lock();
        launches.asked += 1;
        match launches.outcomes.pop_front() {
            Some(Outcome::NotYet) => return Ok(Launch::NotYet),
            Some(Outcome::Fails(error)) => return Err(error),
            None => {}
        }
        let mut pipes = request.outputs.open()?;
        let board =
            (!launches.without_board).then(|| Segment::unshared().expect("memory for a board").board());
        let state = State {
            key: request.key,
            pid: 1000 + launches.workers.len() as u32,
            board: board.clone(),
            is_prompt: launches.is_prompt,
            ..State::default()
        };
        let ends = std::mem::take(&mut pipes.ours);
        let state = State { pipes, ..state };
        let worker = FakeWorker(Arc::new(Mutex::new(state)));
        launches.workers.push(worker.clone());
        Ok(Launch::Ready(Launched {
            sender: Box::new(Sender { worker: worker.clone(), is_closed: false }),
            receiver: Box::new(Receiver { worker: worker.clone(), bytes: Vec::new() }),
            board,
            is_quiet: true,
            why_slow: None,
            process: Box::new(worker),
            streams: (!ends.is_empty()).then_some(Streams { token: TOKEN, ends }),
            watched: Watched::default(),
        }))
    }

    fn oom_kills(&self) -> Option<u64> {
        self.lock().oom_kills
    }
}

/// A worker that a test plays.
#[derive(Clone)]
pub(crate) struct FakeWorker(Arc<Mutex<State>>);

/// A signal that a worker was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Terminate,
    Kill,
}

/// A task as a worker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FakeTask {
    pub(crate) seq: u32,
    pub(crate) number: u64,
    pub(crate) function: u32,
    pub(crate) args: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct State {
    key: u64,
    pid: u32,
    board: Option<Board>,
    hello: Option<Hello>,
    /// What was sent to it and has not begun.
    waiting: VecDeque<FakeTask>,
    running: Option<FakeTask>,
    /// What it has sent and the host has not read.
    sent: Vec<u8>,
    /// It has closed its end of the connection.
    is_closed: bool,
    /// The host has closed its end.
    is_left: bool,
    told: Vec<Told>,
    exit: Option<Result<Exit, &'static str>>,
    is_reaped: bool,
    is_prompt: bool,
    /// The system refuses to signal it.
    is_unsignalled: bool,
    is_given_up: bool,
    resident_bytes: Option<u64>,
    /// The ends of its captured output.
    pipes: Pipes,
    /// A large frame that it has sent.
    large: Option<(Vec<u8>, Vec<u8>)>,
}

impl FakeWorker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the keys of what the owner's poller would report now.
    pub(crate) fn events(&self) -> Vec<u64> {
        let state = self.lock();
        let arrivals = (state.is_closed || !state.sent.is_empty()).then_some(state.key);
        let end = state.exit.is_some().then_some(state.key | PROCESS);
        arrivals.into_iter().chain(end).filter(|_| !state.is_reaped).collect()
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
                state.running = Some(task.clone());
                return Some(task);
            }
        }
        None
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
        let mut reply = ReplyFrame::new();
        reply.make(task.seq, |result, _| {
            result.extend(outcome?);
            Ok(())
        });
        reply.set_nanos(took.as_nanos() as u64);
        match reply.wire() {
            ReplyWire::Brief(head, body) => {
                state.sent.extend(Prefix::Brief { head, len: body.len() }.to_bytes());
                state.sent.extend(body);
            }
            ReplyWire::Parts(head, more, body) => state.frame(&[&head[..], more, body].concat()),
        }
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
        let running = state.running.as_ref().map(|task| task.seq);
        running.zip(state.board.as_ref()).is_some_and(|(seq, board)| board.is_to_end(seq))
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
    fn wake(&self) {
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
    crate::dispatch::run(entry, || args.as_input(), &mut head, &mut body)?;
    Ok([head, body].concat())
}

impl State {
    /// Returns whether everything that it was sent has been taken back.
    fn has_run_all(&self) -> bool {
        let floor = |seq| self.board.as_ref().is_some_and(|board| board.claim().bars(seq));
        self.waiting.iter().all(|task| floor(task.seq))
    }

    fn write(&self, bytes: &[u8]) {
        if let Some(pipe) = self.pipes.theirs().next() {
            let pipe = pipe.try_clone_to_owned().expect("a descriptor");
            File::from(pipe).write_all(bytes).expect("there is room in the pipe");
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        self.sent.extend(Prefix::Frame { head_len: 0, len: frame.len() }.to_bytes());
        self.sent.extend(frame);
    }
}

struct Sender {
    worker: FakeWorker,
    is_closed: bool,
}

impl FrameSender for Sender {
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        assert!(!self.is_closed, "nothing is sent after the connection was closed");
        let body = match body {
            Body::Borrowed(bytes) => bytes.to_vec(),
            Body::Shared(bytes) => (**bytes).as_ref().to_vec(),
        };
        let mut state = self.worker.lock();
        if state.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (first, rest) = if head.is_empty() { (&body[..], &[][..]) } else { (head, &body[..]) };
        match ToWorker::decode(first, rest).expect("the host sends messages of ours") {
            ToWorker::Hello(hello) => state.hello = Some(hello),
            ToWorker::Run(_, mut tasks) => {
                while let Some(task) = tasks.next().expect("the host sends messages of ours") {
                    state.waiting.push_back(FakeTask {
                        seq: task.seq,
                        number: task.task,
                        function: task.function.0,
                        args: task.args.to_vec(),
                    });
                }
            }
        }
        Ok(())
    }

    fn send_brief(&mut self, _head: u64, _body: &[u8]) -> io::Result<()> {
        unreachable!("a host sends no briefs")
    }

    fn ring(&mut self) {
        self.worker.wake();
    }
}

impl QueueingSender for Sender {
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn has_room(&mut self) -> bool {
        false
    }

    fn await_room(&mut self) -> Room {
        Room::Readable
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.worker.lock().is_left = true;
        self.worker.wake();
    }

    fn is_peer_at_rest(&self) -> bool {
        let state = self.worker.lock();
        state.running.is_none() && state.waiting.is_empty() && state.sent.is_empty()
    }
}

struct Receiver {
    worker: FakeWorker,
    /// What was taken from the worker and not consumed.
    bytes: Vec<u8>,
}

impl FrameReceiver for Receiver {
    fn begin(&mut self, _readable: bool) {}

    fn recv(&mut self) -> io::Result<Received<'_>> {
        let mut state = self.worker.lock();
        self.bytes.append(&mut state.sent);
        if self.bytes.is_empty()
            && let Some((head, body)) = state.large.take()
        {
            return Ok(Received::Large { head, body });
        }
        Ok(match (self.bytes.is_empty(), state.is_closed) {
            (false, _) => Received::Frames(Frames::new(&self.bytes)),
            (true, true) => Received::Closed,
            (true, false) => Received::Nothing,
        })
    }

    fn consume(&mut self, len_bytes: usize) {
        self.bytes.drain(..len_bytes);
    }

    fn has_arrivals(&self) -> bool {
        !self.bytes.is_empty() || !self.worker.lock().sent.is_empty()
    }

    fn is_midway(&self) -> bool {
        false
    }

    fn park(&mut self) -> bool {
        !self.has_arrivals()
    }

    fn unpark(&mut self) {}

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl WorkerProcess for FakeWorker {
    fn pid(&self) -> u32 {
        self.lock().pid
    }

    fn held(&self) -> Option<&Held> {
        None
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

    fn cpu_time(&self) -> Option<Duration> {
        None
    }

    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        let mut state = self.lock();
        state.is_reaped = state.exit.is_some();
        state.exit
    }

    fn give_up(&mut self) {
        self.lock().is_given_up = true;
    }
}
