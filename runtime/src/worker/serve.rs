//! The worker's loop: shake hands, then run what the host sends, one task at a time, in order.

use std::{
    borrow::Cow,
    os::unix::ffi::OsStrExt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    INDEX, RUNNING,
    entry::{Connection, name_as_program},
    log,
};
use crate::{
    dispatch,
    error::Fault,
    panic::RemotePanic,
    protocol::{
        Hello, Ready, Refused, RunTask, ToWorker, VERSION, add_to_batch, begin_batch, encode_done,
        encode_panic, encode_reply,
    },
    registry,
    sys::{
        process::{end_group, end_now},
        signal::watch_stack,
    },
    transport::{Board, Cause, FrameReceiver, FrameSender, Received, SocketTransport, Transport},
};

/// The way to the host, which the serving thread shares with whatever threads log.
static SENDER: OnceLock<Mutex<Box<dyn FrameSender>>> = OnceLock::new();
static BOARD: OnceLock<Board> = OnceLock::new();
/// A task runs now. The watching thread asks when the host has gone.
static BUSY: AtomicBool = AtomicBool::new(false);
/// The host has gone, and no task may begin. Ordered with `BUSY`: a task that begins sees it, or is seen.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// The sequence number of the task that runs, or ran last.
static RUNNING_SEQ: AtomicU32 = AtomicU32::new(0);

/// The exit code of a worker that was refused, or refused.
const HANDSHAKE_FAILED: i32 = 88;
/// The exit code of a worker that was sent nonsense.
const PROTOCOL_BROKEN: i32 = 89;

/// The host has gone: no more tasks begin.
pub(super) fn stop() {
    STOPPING.store(true, Ordering::SeqCst);
}

/// Whether a task runs now.
pub(super) fn is_busy() -> bool {
    BUSY.load(Ordering::SeqCst)
}

/// Sends a frame to the host, and waits until it is sent.
pub(super) fn send(frame: &[u8]) {
    if let Some(sender) = SENDER.get() {
        let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that the host has gone; the watching thread sees that, too, and ends the process.
        let _ = sender.send(frame, Cow::Borrowed(&[]));
    }
}

/// Serves until the host closes the connection; then leaves through `exit`, so that what runs at exit runs.
#[expect(clippy::exit, reason = "a worker has no main to return from")]
pub(super) fn serve(connection: Connection) {
    let (sender, mut receiver) = Box::new(SocketTransport::blocking(connection.socket)).split();
    if SENDER.set(Mutex::new(sender)).is_err() || BOARD.set(connection.board).is_err() {
        end_now(HANDSHAKE_FAILED);
    }
    watch_overflow();
    if let Err(reason) = shake_hands(&mut *receiver) {
        send(&encode_reply(&Refused { reason }));
        std::process::exit(HANDSHAKE_FAILED);
    }
    dispatch::set_witness(tell_of_panic);
    let mut replies = Replies::new();
    loop {
        match receiver.recv() {
            Ok(Received::Frame(frame)) => {
                if run_all(&frame, &mut replies).is_none() {
                    end_now(PROTOCOL_BROKEN);
                }
            }
            Ok(Received::Closed) => std::process::exit(0),
            Ok(Received::Nothing) => {}
            Err(_) => end_now(PROTOCOL_BROKEN),
        }
    }
}

fn shake_hands(receiver: &mut dyn FrameReceiver) -> Result<(), String> {
    let hello = match receiver.recv() {
        Ok(Received::Frame(frame)) => match ToWorker::decode(&frame) {
            Ok(ToWorker::Hello(hello)) => hello,
            _ => return Err("the host did not begin with a hello".to_owned()),
        },
        _ => return Err("the host went away before its hello".to_owned()),
    };
    let Hello { version, build_id, worker, current_dir, log_level } = hello;
    if version != VERSION {
        return Err(format!("the host speaks version {version} of the protocol, this worker {VERSION}"));
    }
    let own = registry::build_id();
    if build_id != own {
        return Err(format!(
            "the host is build {build_id:016x}, this worker {own:016x}: was the executable replaced?"
        ));
    }
    if let Some(folder) = current_dir {
        let folder = std::path::Path::new(std::ffi::OsStr::from_bytes(&folder));
        std::env::set_current_dir(folder)
            .map_err(|error| format!("it cannot work in {}: {error}", folder.display()))?;
    }
    // One that a template has made ahead of its time had the template's name.
    name_as_program();
    log::install(log_level);
    let _ = INDEX.set(worker);
    send(&encode_reply(&Ready { version: VERSION, build_id: own, pid: std::process::id() }));
    Ok(())
}

/// Runs the tasks of one request; `None` if it is no request.
fn run_all(frame: &[u8], replies: &mut Replies) -> Option<()> {
    let Ok(ToWorker::Run { log_level, mut tasks }) = ToWorker::decode(frame) else { return None };
    log::set_level(log_level);
    let board = BOARD.get()?;
    while let Some(task) = tasks.next().ok()? {
        if !board.claim().begin(task.seq) {
            continue;
        }
        BUSY.store(true, Ordering::SeqCst);
        if STOPPING.load(Ordering::SeqCst) {
            end_group(0);
        }
        RUNNING.store(task.task + 1, Ordering::Relaxed);
        RUNNING_SEQ.store(task.seq, Ordering::Relaxed);
        let end = run(&task, &mut replies.reply);
        RUNNING.store(0, Ordering::Relaxed);
        BUSY.store(false, Ordering::SeqCst);
        replies.post(board, tasks.has_more(), end);
    }
    replies.flush(board);
    Some(())
}

/// Runs a task, makes its reply, and says when it ended.
fn run(task: &RunTask<'_>, reply: &mut Vec<u8>) -> Instant {
    let start = Instant::now();
    let mut end = start;
    encode_done(reply, task.seq, |result| {
        let Some(entry) = registry::find(task.function) else {
            let words = format!("function {} is not in this executable's table", task.function.0);
            return (Err(Fault::Codec(words)), 0);
        };
        let outcome = dispatch::run(entry, task.args, result);
        end = Instant::now();
        (outcome, (end - start).as_nanos().try_into().unwrap_or(u64::MAX))
    });
    end
}

/// Replies on their way to the host: sent one by one, or, while tasks are short and more of them wait, several at a time. What is held
/// back lies in the outbox, where the host finds it whatever happens here.
struct Replies {
    /// The reply that is being made.
    reply: Vec<u8>,
    /// A message of several: what is held back.
    batch: Vec<u8>,
    /// When a reply was last sent.
    sent: Instant,
}

/// Replies are held back no longer than this while short tasks follow each other.
const HOLD: Duration = Duration::from_micros(50);
/// A larger reply is not worth holding back.
const MOST_HELD_BYTES: usize = 512;
/// A vector that a large reply has blown up is given back.
const MOST_KEPT_BYTES: usize = 1 << 20;

impl Replies {
    fn new() -> Self {
        Self { reply: Vec::new(), batch: Vec::new(), sent: Instant::now() }
    }

    /// Sends the reply, or holds it back if more tasks follow at once.
    fn post(&mut self, board: &Board, more: bool, now: Instant) {
        if more && self.reply.len() <= MOST_HELD_BYTES && now.saturating_duration_since(self.sent) < HOLD {
            if self.batch.is_empty() {
                begin_batch(&mut self.batch);
            }
            let start = add_to_batch(&mut self.batch, &self.reply);
            if board.outbox().append(&self.batch[start..]) {
                return;
            }
            self.batch.truncate(start);
        }
        self.flush(board);
        send(&self.reply);
        self.sent = now;
        if self.reply.capacity() > MOST_KEPT_BYTES {
            self.reply = Vec::new();
        }
    }

    /// Sends what is held back.
    fn flush(&mut self, board: &Board) {
        if !self.batch.is_empty() {
            send(&self.batch);
            self.batch.clear();
            board.outbox().clear();
        }
    }
}

/// Tells the host of a panic that ends the process, before it could tell of it as a result.
fn tell_of_panic(panic: &RemotePanic) {
    send(&encode_panic(RUNNING_SEQ.load(Ordering::Relaxed), panic));
}

/// Has stack overflows of this thread noted on the board, and said.
pub(super) fn watch_overflow() {
    fn note() {
        if let Some(board) = BOARD.get() {
            board.set_cause(Cause::StackOverflow);
        }
    }
    // Without it an overflow is a plain SIGSEGV: worse words, nothing else.
    let _ = watch_stack(note);
}
