//! The worker's loop: receives requests and runs their tasks, one at a time and in order.
//!
//! `lifeline` calls [`serve`] on the serving thread. Every task is claimed before it runs, and every reply is published before the
//! next task is claimed.

use std::sync::atomic::Ordering;

use super::{
    connect::{HostConnection, fail, refused},
    copy,
    handshake::shake_hands,
    host_link::{
        ASIDE, ENDED_SEQ, HAS_FAILED, HOST_STATE, SENDER, WAITING, break_off, end_without_descriptors,
        expect_whole, farewell, is_whole, leave, note_cause, report_panic, send, send_segments, watch_memory,
        watch_overflow,
    },
    log, output, progress,
    replies::Replies,
};
use crate::{
    codec::Input,
    context::{BOARD, CALLS, RUNNING, RUNNING_SEQ, SEED},
    dispatch,
    error::Fault,
    marker::{HANDSHAKE_FAILED, PROTOCOL_BROKEN},
    protocol::{Notice, RunFlags, RunHead, RunTask, ToWorker},
    registry::{self, Entry},
    sample,
    segment::{self, Attachments, To, set_expecting},
    sys::{
        buffer_cache,
        exit::{end_group, end_now},
        fault::forget_failed_allocations,
    },
    task::split_lent,
    transport::{Cause, Incoming, WorkerEnd},
};

/// Serves until the host closes the connection.
#[expect(clippy::exit, reason = "a worker has no main to return from")]
pub(super) fn serve(connection: HostConnection) {
    let socket = connection.socket.clone();
    segment::expect();
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
        send(&Notice::Refused(refused));
        std::process::exit(HANDSHAKE_FAILED);
    }
    dispatch::set_witness(report_panic);
    let mut replies = Replies::new();
    loop {
        // What has arrived is known to be requests for tasks only once it is read.
        replies.ring_before_rest();
        receiver.begin(true);
        let seen = match receiver.recv() {
            Ok(Incoming::Frames(frames)) => {
                let mut rest = frames;
                while let Some((frame, after)) = rest.split_first() {
                    // An empty one carries segments only.
                    if !frame.is_empty() {
                        replies.is_last = after.as_bytes().is_empty();
                        run_all(frame, Vec::new(), &mut replies).unwrap_or_else(|| break_off(NO_MESSAGE));
                    }
                    rest = after;
                }
                if rest.split_brief().is_some() {
                    break_off(NO_MESSAGE);
                }
                frames.as_bytes().len() - rest.as_bytes().len()
            }
            Ok(Incoming::Large { head, body }) => {
                replies.is_last = true;
                run_all(&head, body, &mut replies).unwrap_or_else(|| break_off(NO_MESSAGE));
                0
            }
            Ok(Incoming::Nothing | Incoming::Paused) => 0,
            Ok(Incoming::Closed) => leave(&socket, farewell()),
            Err(_) if !is_whole() => end_without_descriptors(true),
            Err(_) if HOST_STATE.is_stopping() => leave(&socket, 0),
            Err(error) => {
                if error.kind() == std::io::ErrorKind::OutOfMemory {
                    note_cause(Cause::OutOfMemory);
                    end_now(PROTOCOL_BROKEN);
                }
                break_off(&format!("it could not read its messages: {error}"))
            }
        };
        receiver.consume(seen);
    }
}

/// The reason for which a worker ends if the host has sent a frame that is not a request.
const NO_MESSAGE: &str = "it received an invalid message";

/// Runs the tasks of one request. Returns `None` if it is not a request.
fn run_all(head: &[u8], mut body: Vec<u8>, replies: &mut Replies) -> Option<()> {
    // The arguments of a large task arrive separately and belong to that task alone.
    let mut whole = None;
    let mut is_bare = false;
    if !body.is_empty()
        && let Ok(ToWorker::Run(_, tasks)) = ToWorker::decode(head, &[])
        && tasks.is_large()
    {
        whole = Some(std::mem::take(&mut body));
        is_bare = tasks.is_bare();
    }
    let (flags, mut tasks) = match ToWorker::decode(head, &body) {
        Ok(ToWorker::Run(RunHead { flags, .. }, tasks)) => (flags, tasks),
        Ok(ToWorker::Forget(ids)) => {
            ids.into_iter().for_each(segment::forget);
            return Some(());
        }
        Ok(ToWorker::Hello(_)) | Err(_) => return None,
    };
    let RunFlags { levels, may_spin, wants_progress, seed, .. } = flags;
    log::set_level(levels.log);
    #[cfg(feature = "tracing")]
    crate::worker::tracing::set_level(levels.trace);
    SEED.store(seed, Ordering::Relaxed);
    progress::set_wanted(wants_progress);
    WAITING.get()?.set_spin(may_spin);
    let board = BOARD.get()?;
    SENDER.with(|sender| {
        replies.begin(&flags, tasks.left());
        if flags.is_patient && tasks.left() == 1 && replies.is_last {
            // It has no middle, and the next request is due when it ends.
            replies.ring_before_rest();
        }
        let mut last = None;
        while let Some(task) = tasks.next().ok()? {
            if board.claim().begin(task.seq) {
                run(&task, whole.as_mut().map(|whole| (whole, is_bare)), replies);
                if !tasks.has_more() {
                    replies.report_waits();
                }
                let mut sender = sender.borrow_mut();
                replies.post(&mut **sender.as_mut()?, &tasks);
                last = Some((task.task, task.function));
            }
        }
        if replies.is_urgent {
            replies.ring(&mut **sender.borrow_mut().as_mut()?);
        }
        if let Some((task, function)) = last {
            replies.report_rest(task, function);
        }
        replies.report_sample();
        if let Some(whole) = whole {
            buffer_cache::put(whole);
        }
        Some(())
    })
}

/// Runs a task with handles among its arguments. Their segments may be on their way.
#[cold]
fn run_with_handles(
    entry: &Entry,
    args: &[u8],
    result: &mut Vec<u8>,
    large: &mut Vec<u8>,
) -> Result<Attachments, Fault> {
    let (lent, args) =
        split_lent(args).ok_or_else(|| Fault::codec("there is no mask before handles".to_owned()))?;
    set_expecting(true);
    let outcome = dispatch::run(entry, || Input::new(args).with_lent(lent), To::Caller, result, large);
    set_expecting(false);
    outcome
}

/// Runs a task and makes its reply.
#[inline]
fn run(task: &RunTask<'_>, large_args: Option<(&mut Vec<u8>, bool)>, replies: &mut Replies) {
    if HOST_STATE.is_stopping() {
        end_group(0);
    }
    RUNNING.store(task.task.wrapping_add(1), Ordering::Relaxed);
    CALLS.reset();
    RUNNING_SEQ.store(task.seq, Ordering::Relaxed);
    sample::begin();
    forget_failed_allocations();
    let returned = replies.reply.make(task.seq, |result, large| {
        let outcome = match registry::find(task.function) {
            Some(entry) => {
                let input = || match large_args {
                    None => Input::new(task.args),
                    Some((whole, is_bare)) => Input::of(whole, is_bare),
                };
                if task.function.has_handles() {
                    run_with_handles(entry, input().into_bytes(), result, large)
                } else {
                    dispatch::run(entry, input, To::Caller, result, large)
                }
            }
            None => {
                let words = format!("function {} is not in this executable's table", task.function.0);
                Err(Fault::codec(words))
            }
        };
        outcome.inspect_err(|_| HAS_FAILED.store(true, Ordering::Relaxed))
    });
    // The task may have forked. In a copy, what follows would be written to the original's connection.
    copy::leave_if_copy();
    if replies.is_initializer {
        // A worker whose initializer has closed its descriptors must not count as started.
        expect_whole();
    }
    if replies.marks {
        output::end_task(task.seq);
    }
    if !returned.is_empty() {
        send_segments(task.seq, &returned);
    }
    RUNNING.store(0, Ordering::Relaxed);
    // Before the reply is published: a host that has it may close the connection, and no task runs then.
    // SYNC(task-ended): pairs with the load in `is_busy`.
    ENDED_SEQ.store(task.seq, Ordering::Release);
}
