//! The worker's link to its host: what every thread of the worker may send, and what is known about the host.
//!
//! `serve` uses it for replies, `lifeline` for the end of the host, and the forwarders of records and progress from any thread. A
//! copy of the worker must never send anything, so [`send`] and [`note_cause`] check for that first.

use std::{
    cell::RefCell,
    os::fd::AsFd,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
};

use super::{copy, preload};
use crate::{
    context::{BOARD, INDEX, RUNNING_SEQ},
    id::WorkerId,
    marker::{DESCRIPTORS_CLOSED, HOST_GONE, PROTOCOL_BROKEN},
    panic::RemotePanic,
    protocol::Notice,
    segment::Attachments,
    sys::{
        exit::{end_group, end_now, flush_streams},
        fault::{watch_allocations, watch_stack},
        identified::Identified,
        poll::is_ended,
    },
    transport::{Aside, Body, Cause, FrameSender, Waiting},
};

thread_local! {
    /// The connection of the serving thread. Other threads have none and send with [`ASIDE`].
    pub(super) static SENDER: RefCell<Option<Box<dyn FrameSender>>> = const { RefCell::new(None) };
}

/// The connection for all other threads.
pub(super) static ASIDE: OnceLock<Aside> = OnceLock::new();

pub(super) static WAITING: OnceLock<Waiting> = OnceLock::new();

/// Set when this process has closed what it inherited, and holds its host. No user code runs before.
pub(super) static PREPARED: OnceLock<()> = OnceLock::new();

/// The state of the host. Ordered with the claim word: a task that begins sees that it has gone, or `is_busy` sees the task.
pub(super) static HOST_STATE: HostState = HostState::new();

/// The sequence number of the task that ended last.
pub(super) static ENDED_SEQ: AtomicU32 = AtomicU32::new(0);

/// A task has failed, because it panicked or its values could not be transferred.
pub(super) static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// The host has ended, so it cannot end what the tasks of this worker have started.
static HOST_HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// The exit code of a process for one function that failed. Any Rust program that panics has the same.
pub(super) const FAILED: i32 = 101;

/// The state of the host, as far as a worker knows it. It is one word, so that a worker that becomes ready as its host ends is either found
/// ready, and can be woken, or is not, and has nothing to finish.
pub(super) struct HostState(AtomicU8);

impl HostState {
    const STARTING: u8 = 0;
    const READY: u8 = 1;
    const STOPPING: u8 = 2;

    const fn new() -> Self {
        Self(AtomicU8::new(Self::STARTING))
    }

    /// Notes that this worker has shaken hands. Before that, it has not run anything that needs an orderly end.
    pub(super) fn become_ready(&self) {
        // SYNC(ready-or-end): pairs with the exchange in `stop`. `WAITING` is set by now, so a thread that finds it ready can wake it.
        let _ = self.0.compare_exchange(Self::STARTING, Self::READY, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Notes that the host has gone. Returns whether this worker had shaken hands.
    fn stop(&self) -> bool {
        // SYNC(ready-or-end): pairs with the exchange in `become_ready`.
        // SYNC(stop-or-begin): pairs with the load in `is_stopping`, through the claim word. A thread that begins a task has changed that
        // word, and sees this, or `is_busy` sees the change.
        self.0.swap(Self::STOPPING, Ordering::SeqCst) == Self::READY
    }

    /// Returns whether the host has gone and no task may begin.
    pub(super) fn is_stopping(&self) -> bool {
        // SYNC(stop-or-begin): pairs with the exchange in `stop`.
        self.0.load(Ordering::SeqCst) == Self::STOPPING
    }
}

/// Notes that the host has gone. No more tasks begin, and the serving thread ends when it has nothing to do. Returns whether this
/// worker had shaken hands. One that had not may miss the stop and wait for the host forever.
pub(super) fn stop() -> bool {
    let was_ready = HOST_STATE.stop();
    if let Some(waiting) = WAITING.get() {
        waiting.end();
    }
    was_ready
}

/// Returns whether a task is running.
pub(super) fn is_busy() -> bool {
    // SYNC(task-ended): pairs with the Release store in `run`.
    BOARD.get().is_some_and(|board| board.claim().begun_now() != ENDED_SEQ.load(Ordering::SeqCst))
}

/// Sends a notice to the host and waits until it has been sent. Can be called on any thread. Does nothing in a copy of the worker.
pub(super) fn send(notice: &Notice) {
    if copy::is_copy() {
        return;
    }
    let frame = &notice.encode();
    // An error means that the host has gone. The watching thread sees that, too, and ends the process.
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

/// Hands the segments to the host that the result of task `seq` names, before its reply.
#[cold]
pub(super) fn send_segments(seq: u32, segments: &Attachments) {
    let count = segments.iter().map(|segment| segment.files().count()).sum::<usize>() as u32;
    if let Some(aside) = ASIDE.get()
        && count > 0
    {
        // If it fails, the host has gone.
        let _ = aside.send_with(&Notice::Segments { seq, count }.encode(), segments);
    }
}

/// Ends the process with `exit`, so that exit handlers run.
#[expect(clippy::exit, reason = "a worker has no main to return from")]
pub(super) fn leave(socket: &Identified, code: i32) -> ! {
    // A host that is alive has closed only its sending side.
    HOST_HAS_ENDED.store(is_whole() && is_ended(socket.as_fd()), Ordering::Relaxed);
    std::process::exit(code)
}

/// Returns whether user code has not closed the connection.
pub(super) fn is_whole() -> bool {
    ASIDE.get().is_none_or(Aside::is_whole)
}

/// Notes that user code has closed a descriptor of this worker, which ends when it has sent the outcomes that it has.
pub(super) fn note_cut() {
    if let Some(aside) = ASIDE.get() {
        aside.cut();
    }
}

/// Ends this process if user code has closed the connection. The outcome of a task cannot be sent.
pub(super) fn expect_whole() {
    if !is_whole() {
        end_without_descriptors(false);
    }
}

/// Ends this process if a descriptor was found to be closed. All outcomes were sent, and the host reads them when it sees the end of
/// this process.
#[inline]
pub(super) fn leave_if_cut() {
    if ASIDE.get().is_some_and(Aside::is_cut) {
        end_without_descriptors(true);
    }
}

/// Ends this process immediately, because user code has closed descriptors that it needs. Another worker takes its place. Exit
/// handlers do not run, because nothing would end them if they waited.
pub(super) fn end_without_descriptors(has_answered: bool) -> ! {
    note_cause(Cause::DescriptorsClosed);
    flush_streams();
    // The exit code of a process for one function tells how the function ended.
    end_now(if has_answered && is_alone() { farewell() } else { DESCRIPTORS_CLOSED })
}

/// Ends what tasks have started, and this process, unless the host does it. The process is at its end. Destructors of shared
/// libraries do not run in that case.
pub(super) extern "C" fn end_what_is_left() {
    if HOST_HAS_ENDED.load(Ordering::Relaxed) && !copy::is_copy() {
        flush_streams();
        end_group(HOST_GONE);
    }
}

/// Tells the host about a panic that ends the process before its result could be sent.
pub(super) fn report_panic(panic: &RemotePanic) {
    send(&Notice::Panic { seq: RUNNING_SEQ.load(Ordering::Relaxed), panic: panic.clone() });
}

/// Notes on the board why this process is about to end, or sends the reason if it is a template. Does nothing in a copy of the
/// worker. Async-signal-safe.
pub(super) fn note_cause(cause: Cause) {
    if copy::is_copy() {
        return;
    }
    match BOARD.get() {
        Some(board) => board.set_cause(cause),
        None => preload::report_cause(cause),
    }
}

/// Arranges that a failed allocation that ends this process is noted on the board.
pub(super) fn watch_memory() {
    // Without it, the process ends with a plain SIGABRT. Only the message is worse.
    let _ = watch_allocations(|| note_cause(Cause::OutOfMemory));
}

/// Arranges that a stack overflow of this thread is noted on the board and printed.
pub(super) fn watch_overflow() {
    // Without it, an overflow is a plain SIGSEGV. Only the message is worse.
    let _ = watch_stack(|| note_cause(Cause::StackOverflow));
}

/// Ends this process, which cannot continue with its connection, and tells the host why. The message bypasses the rings, which may
/// be broken.
pub(super) fn break_off(why: &str) -> ! {
    if let Some(aside) = ASIDE.get()
        && !copy::is_copy()
    {
        let _ = aside.send(&Notice::Refused(why.into()).encode());
    }
    end_now(PROTOCOL_BROKEN)
}

fn is_alone() -> bool {
    INDEX.get() == Some(&WorkerId::ALONE.0)
}

/// Returns the exit code of a worker that was told to leave. It does not depend on how a pool's tasks ended.
pub(super) fn farewell() -> i32 {
    if is_alone() && HAS_FAILED.load(Ordering::Relaxed) { FAILED } else { 0 }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::HostState;

    #[test]
    fn a_worker_that_becomes_ready_as_its_host_ends_is_found_ready_or_is_stopped_for_good() {
        let ready_first = HostState::new();
        ready_first.become_ready();
        assert!(!ready_first.is_stopping());
        assert!(ready_first.stop(), "it is woken, and leaves in order");
        assert!(ready_first.is_stopping());

        let stopped_first = HostState::new();
        assert!(!stopped_first.stop(), "it has nothing to finish");
        stopped_first.become_ready();
        assert!(stopped_first.is_stopping(), "no task begins");
        assert!(!stopped_first.stop());
    }
}
