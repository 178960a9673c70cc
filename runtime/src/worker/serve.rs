//! The worker's loop: shake hands, then run what the host sends, one task at a time, in order.

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    copy,
    entry::{Connection, fail, refused},
    log, output, progress, setup, template,
};
use crate::{
    codec::Input,
    context::{BOARD, CALLS, INDEX, RUNNING, RUNNING_SEQ, SEED},
    dispatch,
    error::Fault,
    id::{FunctionId, WorkerId},
    marker::{HANDSHAKE_FAILED, HOST_GONE, PROTOCOL_BROKEN},
    panic::RemotePanic,
    protocol::{
        Hello, Note, Orders, Ready, Refused, ReplyFrame, ReplyWire, RunHead, RunTask, RunTasks, ToWorker,
        VERSION, encode_panic, encode_reply,
    },
    registry, sample,
    setting::waits_for_debugger,
    sys::{
        buffer_cache,
        env::is_traced,
        fd::say,
        poll::is_ended,
        process::{end_group, end_now, flush_streams, monotonic_nanos},
        procfs::peak_rss_bytes,
        signal::{forget_failed_allocations, watch_allocations, watch_stack},
    },
    transport::{Aside, Body, Cause, FrameReceiver, FrameSender, Received, Waiting, WorkerEnd},
};

thread_local! {
    /// The way to the host of the thread that serves. Other threads have none, and send aside.
    static SENDER: RefCell<Option<Box<dyn FrameSender>>> = const { RefCell::new(None) };
}

/// The way to the host of all other threads.
static ASIDE: OnceLock<Aside> = OnceLock::new();
static WAITING: OnceLock<Waiting> = OnceLock::new();
/// The host has gone, and no task may begin. Ordered with the claim word: a task that begins sees it, or is seen.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// The sequence number of the task that ended last.
static ENDED_SEQ: AtomicU32 = AtomicU32::new(0);
/// This worker has shaken hands. Before that it has run nothing that is to be left in good order.
static IS_READY: AtomicBool = AtomicBool::new(false);
/// A task has come to no result, for it panicked or its values did not cross.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// No host is there to end what the tasks of this worker have started.
static HOST_HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// How often a worker that waits for a debugger looks whether one has come.
const DEBUGGER_LOOK: Duration = Duration::from_millis(100);

/// The exit code of a process for one function that has failed: that of any Rust program that panics.
const FAILED: i32 = 101;

/// The host has gone: no more tasks begin, and the serving thread ends once it has nothing to do.
pub(super) fn stop() {
    // SYNC(stop-or-begin): pairs with the load in `run`, by way of the claim word: whoever begins a task has changed that word, and
    // sees this, or is seen by `is_busy`.
    STOPPING.store(true, Ordering::SeqCst);
    if let Some(waiting) = WAITING.get() {
        waiting.end();
    }
}

/// Whether this worker has shaken hands. One that has not, before it is told to [`stop`], may miss that, and waits for the host for ever.
pub(super) fn is_ready() -> bool {
    // SYNC(ready-or-end): pairs with the store in `shake_hands`: whoever finds it ready and then calls `stop` finds `WAITING` set.
    IS_READY.load(Ordering::SeqCst)
}

/// Whether a task runs now.
pub(super) fn is_busy() -> bool {
    // SYNC(task-ended): pairs with the Release store in `run`.
    BOARD.get().is_some_and(|board| board.claim().begun_now() != ENDED_SEQ.load(Ordering::SeqCst))
}

/// Sends a frame to the host, and waits until it is sent. From any thread. A copy of the worker has nothing to say to the host.
pub(super) fn send(frame: &[u8]) {
    if copy::is_copy() {
        return;
    }
    // An error means that the host has gone; the watching thread sees that, too, and ends the process.
    let sent = SENDER.try_with(|sender| {
        let Ok(mut sender) = sender.try_borrow_mut() else { return false };
        let Some(sender) = &mut *sender else { return false };
        let _ = sender.send(&[], Body::Borrowed(frame));
        sender.ring();
        true
    });
    if sent != Ok(true)
        && let Some(aside) = ASIDE.get()
    {
        let _ = aside.send(frame);
    }
}

/// Leaves through `exit`, so that what runs at exit runs.
#[expect(clippy::exit, reason = "a worker has no main to return from")]
fn leave(socket: &OwnedFd, code: i32) -> ! {
    // A host that lives has closed only the one side by which it sends.
    HOST_HAS_ENDED.store(is_ended(socket.as_fd()), Ordering::Relaxed);
    std::process::exit(code)
}

/// Ends what tasks have started, and the process, which is at its end, unless the host sees to that. Destructors of shared libraries do not
/// run then.
pub(super) extern "C" fn end_what_is_left() {
    if HOST_HAS_ENDED.load(Ordering::Relaxed) && !copy::is_copy() {
        flush_streams();
        end_group(HOST_GONE);
    }
}

/// Serves until the host closes the connection.
#[expect(clippy::exit, reason = "a worker has no main to return from")]
pub(super) fn serve(connection: Connection) {
    let socket = connection.socket.clone();
    let end = WorkerEnd::new(connection.socket, connection.rings.as_ref())
        .unwrap_or_else(|error| fail(&refused("its end of the connection cannot be made", error)));
    let WorkerEnd { sender, mut receiver, aside, waiting } = end;
    SENDER.set(Some(sender));
    if ASIDE.set(aside).is_err() || WAITING.set(waiting).is_err() || BOARD.set(connection.board).is_err() {
        end_now(HANDSHAKE_FAILED);
    }
    watch_overflow();
    watch_memory();
    if let Err(refused) = shake_hands(&mut *receiver) {
        send(&encode_reply(&refused));
        std::process::exit(HANDSHAKE_FAILED);
    }
    dispatch::set_witness(tell_of_panic);
    let mut replies = Replies::new();
    loop {
        receiver.begin(true);
        let seen = match receiver.recv() {
            Ok(Received::Frames(frames)) => {
                let mut rest = frames;
                while let Some((frame, after)) = rest.split_first() {
                    if run_all(frame, Vec::new(), &mut replies).is_none() {
                        break_off(NO_MESSAGE);
                    }
                    rest = after;
                }
                if rest.split_brief().is_some() {
                    break_off(NO_MESSAGE);
                }
                frames.as_bytes().len() - rest.as_bytes().len()
            }
            Ok(Received::Large { head, body }) => {
                if run_all(&head, body, &mut replies).is_none() {
                    break_off(NO_MESSAGE);
                }
                0
            }
            Ok(Received::Nothing | Received::Paused) => 0,
            Ok(Received::Closed) => leave(&socket, farewell()),
            Err(_) if STOPPING.load(Ordering::SeqCst) => leave(&socket, 0),
            Err(error) => {
                if error.kind() == std::io::ErrorKind::OutOfMemory {
                    note_cause(Cause::OutOfMemory);
                    end_now(PROTOCOL_BROKEN);
                }
                break_off(&format!("it could not read what it was sent: {error}"))
            }
        };
        receiver.consume(seen);
    }
}

/// What the host sent is no frame of a request.
const NO_MESSAGE: &str = "it was sent what is no message of ours";

/// Ends this process, which cannot go on with its connection, and tells the host why: past the rings, which may be what is broken.
fn break_off(why: &str) -> ! {
    if let Some(aside) = ASIDE.get()
        && !copy::is_copy()
    {
        let _ = aside.send(&encode_reply(&Refused::from(why)));
    }
    end_now(PROTOCOL_BROKEN)
}

/// The exit code of a worker that was told to leave. How a pool's tasks went is none of its worker's affair.
fn farewell() -> i32 {
    let is_alone = INDEX.get() == Some(&WorkerId::ALONE.0);
    if is_alone && HAS_FAILED.load(Ordering::Relaxed) { FAILED } else { 0 }
}

fn shake_hands(receiver: &mut dyn FrameReceiver) -> Result<(), Refused> {
    receiver.begin(true);
    let (hello, seen) = match receiver.recv() {
        Ok(Received::Frames(frames)) => match frames.split_first() {
            Some((frame, rest)) => match ToWorker::decode(frame, &[]) {
                Ok(ToWorker::Hello(hello)) => (hello, frames.as_bytes().len() - rest.as_bytes().len()),
                _ => return Err("the host did not begin with a hello".into()),
            },
            None => return Err("the host did not begin with a hello".into()),
        },
        _ => return Err("the host went away before its hello".into()),
    };
    receiver.consume(seen);
    let Hello { version, build_id, worker, station, log_level } = hello;
    if version != VERSION {
        return Err(
            format!("the host speaks version {version} of the protocol, this worker {VERSION}").into()
        );
    }
    let own = registry::build_id();
    if build_id != own {
        return Err(format!(
            "the host is build {build_id:016x}, this worker {own:016x}: was the executable replaced?"
        )
        .into());
    }
    setup::take_up(station)?;
    log::install(log_level);
    let _ = INDEX.set(worker);
    if waits_for_debugger().unwrap_or(false) {
        wait_for_debugger(worker);
    }
    // SYNC(ready-or-end): pairs with the load in `is_ready`. `WAITING` is set by now: whoever finds it ready can wake it.
    IS_READY.store(true, Ordering::SeqCst);
    send(&encode_reply(&Ready { version: VERSION, build_id: own, pid: std::process::id() }));
    Ok(())
}

/// Says who this is, and waits until a debugger has attached to it. The host waits as long.
fn wait_for_debugger(worker: u32) {
    let pid = std::process::id();
    say(&format!("procession: worker {worker} (pid {pid}) waits for a debugger: gdb -p {pid}\n"));
    // Nothing tells a process that it has come to be traced: it has to look. Should the host go meanwhile, the watching thread ends it.
    while !is_traced() {
        std::thread::park_timeout(DEBUGGER_LOOK);
    }
}

/// Runs the tasks of one request; `None` if it is no request.
fn run_all(head: &[u8], mut body: Vec<u8>, replies: &mut Replies) -> Option<()> {
    // The arguments of one large task are that task's alone.
    let mut whole = None;
    let mut is_bare = false;
    if !body.is_empty()
        && let Ok(ToWorker::Run(_, tasks)) = ToWorker::decode(head, &[])
        && tasks.is_large()
    {
        whole = Some(std::mem::take(&mut body));
        is_bare = tasks.is_bare();
    }
    let Ok(ToWorker::Run(RunHead { orders, .. }, mut tasks)) = ToWorker::decode(head, &body) else {
        return None;
    };
    let Orders { levels, may_spin, wants_progress, seed } = orders;
    log::set_level(levels.log);
    #[cfg(feature = "tracing")]
    crate::worker::tracing::set_level(levels.trace);
    SEED.store(seed, Ordering::Relaxed);
    progress::set_wanted(wants_progress);
    WAITING.get()?.set_spin(may_spin);
    let board = BOARD.get()?;
    SENDER.with(|sender| {
        replies.begin(levels.is_timed);
        let mut last = None;
        while let Some(task) = tasks.next().ok()? {
            if board.claim().begin(task.seq) {
                run(&task, whole.as_mut().map(|whole| (whole, is_bare)), replies);
                let mut sender = sender.borrow_mut();
                replies.post(&mut **sender.as_mut()?, &tasks);
                last = Some((task.task, task.function));
            }
        }
        replies.ring(&mut **sender.borrow_mut().as_mut()?);
        if let Some((task, function)) = last {
            replies.tell_of_rest(task, function);
        }
        replies.tell_of_sample();
        if let Some(whole) = whole {
            buffer_cache::put(whole);
        }
        Some(())
    })
}

/// Runs a task and makes its reply.
#[inline]
fn run(task: &RunTask<'_>, large_args: Option<(&mut Vec<u8>, bool)>, replies: &mut Replies) {
    // SYNC(stop-or-begin): pairs with the store in `stop`.
    if STOPPING.load(Ordering::SeqCst) {
        end_group(0);
    }
    RUNNING.store(task.task.wrapping_add(1), Ordering::Relaxed);
    CALLS.reset();
    RUNNING_SEQ.store(task.seq, Ordering::Relaxed);
    sample::begin();
    forget_failed_allocations();
    replies.reply.make(task.seq, |result, large| {
        let outcome = match registry::find(task.function) {
            Some(entry) => {
                let input = || match large_args {
                    None => Input::new(task.args),
                    Some((whole, is_bare)) => Input::of(whole, is_bare),
                };
                dispatch::run(entry, input, result, large)
            }
            None => {
                let words = format!("function {} is not in this executable's table", task.function.0);
                Err(Fault::codec(words))
            }
        };
        outcome.inspect_err(|_| HAS_FAILED.store(true, Ordering::Relaxed))
    });
    // The task may have forked. What follows is written where the original's replies go.
    copy::leave_if_copy();
    if replies.marks {
        output::end_task(task.seq);
    }
    RUNNING.store(0, Ordering::Relaxed);
    // Before the reply is out: whoever has it may close the connection, and no task runs then.
    // SYNC(task-ended): pairs with the load in `is_busy`.
    ENDED_SEQ.store(task.seq, Ordering::Release);
}

/// Replies on their way to the host.
///
/// Each is out before the next task begins. The clock is looked at after several short tasks, and the host is woken after a while,
/// before a pause, and after a long task: a long task itself keeps nothing back, for the host, which knows that more is to come,
/// looks by itself.
struct Replies {
    /// The reply that is being made.
    reply: ReplyFrame,
    /// When the clock was looked at last, and how many tasks ago.
    timed: Instant,
    untimed: u32,
    /// So many tasks are timed together.
    stride: u32,
    /// When the host was last woken.
    rung: Instant,
    /// There is a reply that it has not been woken for.
    due: bool,
    /// Every task is timed by itself.
    is_timed: bool,
    /// When some tasks were last looked at more closely.
    sampled: Option<Instant>,
    /// How many more tasks are looked at now.
    sample: Option<u32>,
    /// What was found: tasks, and nanoseconds for decoding and encoding.
    found: Option<(u64, u64)>,
    /// The host reads what tasks write, and each is to end in a mark.
    marks: bool,
}

/// The host hears of replies no later than this while short tasks follow each other.
const HOLD: Duration = Duration::from_micros(50);
/// Tasks that are timed together take about so long.
const STRIDE: Duration = Duration::from_micros(5);
/// No more tasks are timed together.
const MOST_STRIDE: u32 = 64;
/// How often some tasks are looked at more closely, and how many.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const SAMPLE_TASKS: u32 = 16;

impl Replies {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            reply: ReplyFrame::new(),
            marks: output::is_marked(),
            timed: now,
            untimed: 0,
            stride: 1,
            rung: now,
            due: false,
            is_timed: false,
            sampled: None,
            sample: None,
            found: None,
        }
    }

    /// Begins a request: the time until now was spent waiting.
    fn begin(&mut self, is_timed: bool) {
        self.timed = Instant::now();
        self.rung = self.timed;
        self.is_timed = is_timed;
        if is_timed {
            self.stride = 1;
            send(&encode_reply(&Note::Begun { nanos: monotonic_nanos() }));
        }
        if self.sampled.is_none_or(|at| self.timed - at >= SAMPLE_EVERY) {
            self.sampled = Some(self.timed);
            self.sample = Some(SAMPLE_TASKS);
            self.stride = 1;
            sample::start();
        }
    }

    /// What was to follow was taken back: tells the time of those that were to be timed with it.
    fn tell_of_rest(&mut self, task: u64, function: FunctionId) {
        let tasks = std::mem::take(&mut self.untimed);
        if tasks > 0 {
            let took = self.timed.elapsed();
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.stride = 1;
            send(&encode_reply(&Note::Late { nanos, tasks, task, function: function.0 }));
        }
    }

    /// Tells what the closer look has found, if there was one.
    fn tell_of_sample(&mut self) {
        self.sample = None;
        if let Some((tasks, encoding)) = self.found.take() {
            let peak_rss_bytes = peak_rss_bytes(std::process::id()).unwrap_or(0);
            send(&encode_reply(&Note::Sample { tasks, encoding, peak_rss_bytes }));
        }
    }

    /// One of the tasks that are looked at has ended.
    #[cold]
    fn look_on(&mut self, left: u32, is_last: bool) {
        self.sample = Some(left - 1).filter(|_| left > 1 && !is_last);
        if self.sample.is_none() {
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.found = Some((u64::from(SAMPLE_TASKS - left + 1), nanos(sample::stop())));
        }
    }

    /// Wakes the host if there is something for it.
    fn ring(&mut self, sender: &mut dyn FrameSender) {
        if std::mem::take(&mut self.due) {
            sender.ring();
        }
    }

    /// Sends the reply.
    #[inline]
    fn post(&mut self, sender: &mut dyn FrameSender, tasks: &RunTasks<'_>) {
        self.untimed += 1;
        let mut rings = false;
        if self.untimed >= self.stride || !tasks.has_more() {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.timed);
            self.reply.set_nanos(took.as_nanos().try_into().unwrap_or(u64::MAX).max(1));
            self.stride = match took < STRIDE {
                _ if self.is_timed || self.sample.is_some() => 1,
                true => (self.stride * 2).min(MOST_STRIDE),
                false => (self.stride / 4).max(1),
            };
            if let Some(sample) = self.sample {
                self.look_on(sample, !tasks.has_more());
            }
            self.timed = now;
            self.untimed = 0;
            rings = now.saturating_duration_since(self.rung) >= HOLD;
            if rings {
                self.rung = now;
            }
        }
        // An error means that the host has gone; the watching thread sees that, too, and ends the process. Or that the way to it is
        // broken: without this reply it would wait for ever.
        let sent = match self.reply.wire() {
            ReplyWire::Brief(head, body) => sender.send_brief(head, body),
            ReplyWire::Parts(head, [], body) => sender.send(&head, Body::Borrowed(body)),
            ReplyWire::Parts(head, more, body) => sender.send(&[&head, more].concat(), Body::Borrowed(body)),
        };
        if let Err(error) = sent
            && error.kind() == std::io::ErrorKind::InvalidData
        {
            break_off(&format!("it could not answer: {error}"));
        }
        self.due = true;
        if rings {
            self.ring(sender);
        }
        self.reply.shrink();
    }
}

/// Tells the host of a panic that ends the process, before it could tell of it as a result.
fn tell_of_panic(panic: &RemotePanic) {
    send(&encode_panic(RUNNING_SEQ.load(Ordering::Relaxed), panic));
}

/// Notes on the board why this process is about to end, or says so if it is a template. The end of a copy is not the worker's.
/// Async-signal-safe.
pub(super) fn note_cause(cause: Cause) {
    if copy::is_copy() {
        return;
    }
    match BOARD.get() {
        Some(board) => board.set_cause(cause),
        None => template::say_cause(cause),
    }
}

/// Has it noted on the board if memory that was asked for in vain ends this process.
pub(super) fn watch_memory() {
    fn note() {
        note_cause(Cause::OutOfMemory);
    }
    // Without it the end is a plain SIGABRT: worse words, nothing else.
    let _ = watch_allocations(note);
}

/// Has stack overflows of this thread noted on the board, and said.
pub(super) fn watch_overflow() {
    fn note() {
        note_cause(Cause::StackOverflow);
    }
    // Without it an overflow is a plain SIGSEGV: worse words, nothing else.
    let _ = watch_stack(note);
}
