//! The worker's link to its host: what every thread of the worker may send, and what the link says about the host.

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use super::{copy, preload};
use crate::{
    context::{BOARD, RUNNING_SEQ},
    marker::HOST_GONE,
    panic::RemotePanic,
    protocol::encode_panic,
    sys::{
        poll::is_ended,
        process::{end_group, flush_streams},
        signal::{watch_allocations, watch_stack},
    },
    transport::{Aside, Body, Cause, FrameSender, Waiting},
};

thread_local! {
    /// The way to the host of the thread that serves. Other threads have none, and send aside.
    pub(super) static SENDER: RefCell<Option<Box<dyn FrameSender>>> = const { RefCell::new(None) };
}

/// The way to the host of all other threads.
pub(super) static ASIDE: OnceLock<Aside> = OnceLock::new();

pub(super) static WAITING: OnceLock<Waiting> = OnceLock::new();

/// The host has gone, and no task may begin. Ordered with the claim word: a task that begins sees it, or is seen.
pub(super) static STOPPING: AtomicBool = AtomicBool::new(false);

/// The sequence number of the task that ended last.
pub(super) static ENDED_SEQ: AtomicU32 = AtomicU32::new(0);

/// This worker has shaken hands. Before that it has run nothing that is to be left in good order.
pub(super) static IS_READY: AtomicBool = AtomicBool::new(false);

/// A task has come to no result, for it panicked or its values did not cross.
pub(super) static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// No host is there to end what the tasks of this worker have started.
static HOST_HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// The exit code of a process for one function that has failed: that of any Rust program that panics.
pub(super) const FAILED: i32 = 101;

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
pub(super) fn leave(socket: &OwnedFd, code: i32) -> ! {
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

/// Tells the host of a panic that ends the process, before it could tell of it as a result.
pub(super) fn tell_of_panic(panic: &RemotePanic) {
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
        None => preload::say_cause(cause),
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
