//! The worker's loop: shake hands, then run what the host sends, one task at a time, in order.

use std::{
    borrow::Cow,
    os::unix::ffi::OsStrExt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{INDEX, RUNNING, entry::Connection, log};
use crate::{
    dispatch,
    error::Fault,
    panic::RemotePanic,
    protocol::{Hello, Ready, Refused, RunTask, ToWorker, VERSION, encode_done, encode_reply},
    registry,
    sys::{process::end_now, signal::watch_stack},
    transport::{Board, Cause, FrameReceiver, FrameSender, Received, SocketTransport, Transport},
};

/// The way to the host, which the serving thread shares with whatever threads log.
static SENDER: OnceLock<Mutex<Box<dyn FrameSender>>> = OnceLock::new();
static BOARD: OnceLock<Board> = OnceLock::new();
/// A task runs now. The watching thread asks when the host has gone.
static BUSY: AtomicBool = AtomicBool::new(false);

/// The exit code of a worker that was refused, or refused.
const HANDSHAKE_FAILED: i32 = 88;
/// The exit code of a worker that was sent nonsense.
const PROTOCOL_BROKEN: i32 = 89;

/// Whether a task runs now.
pub(super) fn is_busy() -> bool {
    BUSY.load(Ordering::Acquire)
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
    let mut reply = Vec::new();
    loop {
        match receiver.recv() {
            Ok(Received::Frame(frame)) => {
                if run_all(&frame, &mut reply).is_none() {
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
    log::install(log_level);
    let _ = INDEX.set(worker);
    send(&encode_reply(&Ready { version: VERSION, build_id: own, pid: std::process::id() }));
    Ok(())
}

/// Runs the tasks of one request; `None` if it is no request.
fn run_all(frame: &[u8], reply: &mut Vec<u8>) -> Option<()> {
    let Ok(ToWorker::Run { log_level, mut tasks }) = ToWorker::decode(frame) else { return None };
    log::set_level(log_level);
    let claim = BOARD.get()?.claim();
    while let Some(task) = tasks.next().ok()? {
        if !claim.begin(task.seq) {
            continue;
        }
        BUSY.store(true, Ordering::Release);
        RUNNING.store(task.task + 1, Ordering::Relaxed);
        run(&task, reply);
        RUNNING.store(0, Ordering::Relaxed);
        BUSY.store(false, Ordering::Release);
        send(reply);
    }
    Some(())
}

fn run(task: &RunTask<'_>, reply: &mut Vec<u8>) {
    encode_done(reply, task.seq, |result| {
        let Some(entry) = registry::find(task.function) else {
            let words = format!("function {} is not in this executable's table", task.function.0);
            return (Err(Fault::Codec(words)), 0);
        };
        let start = Instant::now();
        let outcome = dispatch::run(entry, task.args, result);
        (outcome, start.elapsed().as_nanos().try_into().unwrap_or(u64::MAX))
    });
}

/// Tells the host of a panic that ends the process, before it could tell of it as a result.
fn tell_of_panic(panic: &RemotePanic) {
    send(&encode_reply(panic));
}

fn watch_overflow() {
    fn note() {
        if let Some(board) = BOARD.get() {
            board.set_cause(Cause::StackOverflow);
        }
    }
    // Without it an overflow is a plain SIGSEGV: worse words, nothing else.
    let _ = watch_stack(note);
}
