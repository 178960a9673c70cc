//! Holds a worker that a template has forked.
//!
//! The worker is not a child of the host. The host signals it by its pidfd and learns from the template how it ended. See
//! `README.md`.

use std::{os::fd::AsFd, time::Duration};

use super::exit::UNTOLD;
use crate::{
    error::Exit,
    protocol::{REPORT_BYTES, TemplateReport},
    sys::{
        held::{Held, REFUSED_GRACE, report_left},
        identified::Identified,
        pass::recv_with_fds,
        poll::{is_readable, wait_readable},
    },
};

/// A worker that a template has forked.
pub(super) struct ForkedProcess {
    pub(super) pid: u32,
    /// The processes that the worker has started in its group end with it. The template kills the group before it reaps the worker.
    pub(super) held: Held,
    /// The socket on which the template reports how the worker ended.
    pub(super) status: Identified,
    pub(super) reaped: bool,
}

impl ForkedProcess {
    /// Returns how the process ended, or why that is not known, if it has ended.
    pub(super) fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        if self.held.is_whole() && !is_readable(self.held.as_fd()) {
            return None;
        }
        let Ok(status) = self.status.check() else {
            self.reaped = true;
            return Some(Err(
                "other code in this process closed the descriptor on which its template reports it",
            ));
        };
        // The template has seen the same event a moment ago.
        if !wait_readable(status, REPORT_TIMEOUT).unwrap_or(true) {
            return None;
        }
        let mut bytes = [0; REPORT_BYTES];
        let report = recv_with_fds::<1>(status, &mut bytes);
        self.reaped = true;
        Some(match report.ok().and_then(|_| TemplateReport::from_bytes(bytes)) {
            Some(TemplateReport::Exited(code)) => Ok(Exit::from_code(code)),
            Some(TemplateReport::Signaled(signal)) => Ok(Exit::from_signal(signal)),
            Some(TemplateReport::Vanished) => Err("other code in its template collected its exit status"),
            Some(TemplateReport::Untold) => Err(UNTOLD),
            _ => Err("its exit status is unknown, because the template that it was forked from ended first"),
        })
    }

    /// Gives up a process that cannot be ended, and prints a message about it.
    pub(super) fn give_up(&mut self) {
        self.reaped = true;
        report_left(self.pid);
    }
}

impl Drop for ForkedProcess {
    /// Kills the worker and waits until it has been reaped, if that can be observed.
    fn drop(&mut self) {
        if !self.reaped && self.held.is_own() {
            self.held.kill();
            let timeout = if self.held.is_refused() { REFUSED_GRACE } else { END_TIMEOUT };
            if !self.held.is_whole() {
                // Its end cannot be seen. It ends with its connection.
                return;
            }
            if !wait_readable(self.held.as_fd(), timeout).unwrap_or(true) && self.held.is_refused() {
                return self.give_up();
            }
            let _ = wait_readable(self.status.as_fd(), REPORT_TIMEOUT);
        }
    }
}

/// The time to wait for a template to report that a worker has ended. It reports it immediately.
pub(super) const REPORT_TIMEOUT: Duration = Duration::from_millis(100);

/// The time to wait for a killed process to end.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(60);
