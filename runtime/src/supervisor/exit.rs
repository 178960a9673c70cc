//! Describes how a worker ended, for errors.
//!
//! Plain functions of the exit status, the cause on the board and the worker's own messages. They decide nothing about tasks.

use crate::{
    error::{Exit, TaskErrorKind},
    launch::CLOSED_WITHIN,
    marker::{PROTOCOL_BROKEN, meaning_at_start},
    panic::RemotePanic,
    transport::Cause,
};

/// Returns why a worker could not start, in its own words if it gave a reason.
pub(crate) fn why_not_started(
    who: &str,
    exit: Result<Exit, &'static str>,
    cause: Option<Cause>,
    reason: Option<String>,
) -> String {
    reason.unwrap_or_else(|| match (exit, cause) {
        (Err(why), _) => format!("{who} disappeared while starting: {why}"),
        (Ok(exit), Some(Cause::OutOfMemory)) => format!("{who} ran out of memory while starting ({exit})"),
        (Ok(exit), Some(Cause::StackOverflow)) => {
            format!("{who} overflowed its stack while starting ({exit})")
        }
        (Ok(exit), Some(Cause::DescriptorsClosed)) => {
            format!("{who} ended while starting: {CLOSED_WITHIN} ({exit})")
        }
        (Ok(exit), Some(Cause::ConnectionEnded) | None) => match exit.code().and_then(meaning_at_start) {
            Some(words) => format!("{who} {words} ({exit})"),
            None => format!("{who} ended with {exit} while starting"),
        },
    })
}

/// Returns whether the kernel may have killed a worker because no memory was left. That is so if the worker was killed, but not by its
/// host, and the kernel's count of such kills has grown since it was last read. `count` reads it.
pub(crate) fn is_killed_for_memory(
    exit: Result<Exit, &'static str>,
    counted: &mut Option<u64>,
    count: impl FnOnce() -> Option<u64>,
) -> bool {
    if exit.ok().and_then(|exit| exit.signal()) != Some(nix::libc::SIGKILL) {
        return false;
    }
    let now = count();
    let before = std::mem::replace(counted, now);
    before.zip(now).is_some_and(|(before, now)| before < now)
}

/// Returns the error of a task whose worker the kernel killed because no memory was left.
pub(crate) fn killed_for_memory(exit: Result<Exit, &'static str>) -> TaskErrorKind {
    let why = "the kernel killed its process because memory ran out";
    TaskErrorKind::OutOfMemory { exit: exit.ok(), why: why.into() }
}

/// Returns the error of the task that a worker with this memory limit was running when it died.
pub(crate) fn crash(
    (exit, cause, reason): (Result<Exit, &'static str>, Option<Cause>, Option<String>),
    panic: Option<RemotePanic>,
    limit_bytes: Option<u64>,
) -> TaskErrorKind {
    const SIGABRT: i32 = nix::libc::SIGABRT;
    match (panic, exit, cause) {
        // The panic was reported before the process ended, so it is the cause. What `errno` says about the end is a guess.
        (Some(panic), Ok(end), None | Some(Cause::OutOfMemory)) if end.signal() == Some(SIGABRT) => {
            TaskErrorKind::Panic { panic, exit: Some(end) }
        }
        // The exit status is unknown, and the panic was the last report.
        (Some(panic), Err(_), None) => TaskErrorKind::Panic { panic, exit: None },
        (_, _, Some(Cause::OutOfMemory)) => TaskErrorKind::OutOfMemory {
            exit: exit.ok(),
            why: match limit_bytes {
                Some(bytes) => {
                    format!("it asked for more memory than the {} MiB of memory_limit", bytes >> 20).into()
                }
                None => "it asked for more memory than its limit allows".into(),
            },
        },
        (_, _, Some(Cause::StackOverflow)) => {
            TaskErrorKind::Crash { exit, cause: Some("stack overflow".into()) }
        }
        (_, _, Some(Cause::ConnectionEnded)) => {
            let cause = "the process closed its connection while it ran";
            TaskErrorKind::Crash { exit, cause: Some(cause.into()) }
        }
        (_, _, Some(Cause::DescriptorsClosed)) => {
            TaskErrorKind::Crash { exit, cause: Some(CLOSED_WITHIN.into()) }
        }
        (_, _, None) => {
            // The exit status says more than a connection that ended with the process.
            let is_broken = exit.is_ok_and(|exit| exit.code() == Some(PROTOCOL_BROKEN));
            let cause = reason.filter(|_| is_broken).map(Into::into);
            TaskErrorKind::Crash { exit, cause }
        }
    }
}
