//! Turns the end of a worker into errors.
//!
//! Plain functions of its exit report. They decide nothing about tasks.

use super::event::ExitReport;
use crate::{
    error::TaskErrorKind,
    launch::{CLOSED_WITHIN, Launcher},
    marker::{PROTOCOL_BROKEN, meaning_at_start},
    transport::Cause,
};

/// Returns why a worker could not start, in its own words if it gave a reason.
pub(crate) fn why_not_started(who: &str, report: &ExitReport) -> String {
    if let Some(reason) = &report.reason {
        return reason.clone();
    }
    match (report.exit, report.cause) {
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
    }
}

/// Returns whether the kernel may have killed a worker because no memory was left. That is so if the worker was killed, but not by its
/// host, and the kernel's count of such kills has grown since it was `counted`.
pub(crate) fn is_killed_for_memory(
    report: &ExitReport,
    counted: &mut Option<u64>,
    launcher: &dyn Launcher,
) -> bool {
    if report.killed || report.exit.ok().and_then(|exit| exit.signal()) != Some(nix::libc::SIGKILL) {
        return false;
    }
    let now = launcher.oom_kills();
    let before = std::mem::replace(counted, now);
    before.zip(now).is_some_and(|(before, now)| before < now)
}

/// Returns the error of the task that a worker with this memory limit was running when it ended. `by_kernel` says that the kernel
/// killed it because no memory was left.
pub(crate) fn cause_of_death(
    report: &mut ExitReport,
    by_kernel: bool,
    limit_bytes: Option<u64>,
) -> TaskErrorKind {
    match (&report.stopped, &report.reason) {
        (Some(kind), _) => kind.clone(),
        (None, Some(reason)) if report.killed => {
            TaskErrorKind::Lost { message: format!("its process was killed: {reason}") }
        }
        _ if by_kernel => {
            let why = "the kernel killed its process because memory ran out";
            TaskErrorKind::OutOfMemory { exit: report.exit.ok(), why: why.into() }
        }
        _ => crash(report, limit_bytes),
    }
}

fn crash(report: &mut ExitReport, limit_bytes: Option<u64>) -> TaskErrorKind {
    const SIGABRT: i32 = nix::libc::SIGABRT;
    let exit = report.exit;
    let cause = match (report.panic.take(), exit, report.cause) {
        // The panic was reported before the process ended, so it is the cause. What `errno` says about the end is a guess.
        (Some(panic), Ok(end), None | Some(Cause::OutOfMemory)) if end.signal() == Some(SIGABRT) => {
            return TaskErrorKind::Panic { panic, exit: Some(end) };
        }
        // The exit status is unknown, and the panic was the last report.
        (Some(panic), Err(_), None) => return TaskErrorKind::Panic { panic, exit: None },
        (_, _, Some(Cause::OutOfMemory)) => {
            let why = match limit_bytes {
                Some(bytes) => {
                    format!("it asked for more memory than the {} MiB of memory_limit", bytes >> 20).into()
                }
                None => "it asked for more memory than its limit allows".into(),
            };
            return TaskErrorKind::OutOfMemory { exit: exit.ok(), why };
        }
        (_, _, Some(Cause::StackOverflow)) => Some("stack overflow".into()),
        (_, _, Some(Cause::ConnectionEnded)) => Some("the process closed its connection while it ran".into()),
        (_, _, Some(Cause::DescriptorsClosed)) => Some(CLOSED_WITHIN.into()),
        // The exit status says more than a connection that ended with the process.
        (_, Ok(end), None) if end.code() == Some(PROTOCOL_BROKEN) => report.reason.clone().map(Into::into),
        (_, _, None) => None,
    };
    TaskErrorKind::Crash { exit, cause }
}
