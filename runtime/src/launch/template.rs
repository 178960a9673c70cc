//! The host's side of a template: the states of the template, and the worker that is ordered ahead.
//!
//! Used by `fork_server.rs` only. The template's own side is `worker/template.rs`.

use std::{io, os::fd::AsFd, time::Duration};

use super::{
    Launched, Outputs,
    connection::{WorkerConnection, random_token},
    forked::ForkedProcess,
    peer::LocalProcess,
};
use crate::{
    protocol::{FORK_REQUEST, Prepared, REPORT_BYTES, TemplateReport},
    sys::{
        child::Child,
        fd::{Failed, read_some, stream_pair},
        held::Held,
        identified::Identified,
        pass::{recv_with_fds, send_with_fds},
        poll::{is_readable, wait_readable},
    },
};

/// The state of the template.
#[derive(Debug)]
pub(super) enum TemplateState {
    /// There is no template.
    Absent,
    /// The template loads what workers share. The bytes are what it has said so far.
    Preparing(Template, Vec<u8>),
    Ready(Stock),
    /// The template has failed, and this has not been reported yet.
    Failed(String),
    /// The template has failed and cannot be made again.
    Gone(String),
}

/// A template that is ready, and the next worker, which was ordered ahead. Creating a process takes longer than everything that
/// follows, so it is done before a worker is requested.
///
/// The fields are dropped in this order, because the template must still exist to reap a worker that was not taken.
#[derive(Debug)]
pub(super) struct Stock {
    pub(super) next: Option<Order>,
    pub(super) template: Template,
    /// The destinations of the workers' output.
    pub(super) outputs: Outputs,
}

/// A worker that was ordered from the template and not received yet. It waits for its hello. Dropping the order ends it.
#[derive(Debug)]
pub(super) struct Order(Option<Made>);

/// The connection to such a worker, and the socket on which the template reports how it ends.
#[derive(Debug)]
struct Made {
    connection: WorkerConnection,
    status: Identified,
}

/// The process of the template, which is killed and reaped on drop.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) control: Identified,
    pub(super) child: Child,
}

impl Stock {
    /// Returns the next worker.
    pub(super) fn take(&mut self) -> io::Result<Launched> {
        let waiting = self.next.take().and_then(|mut order| order.receive().ok());
        // It may have been killed while it waited.
        let has_ended =
            |launched: &Launched| launched.peer.held().is_some_and(|held| is_readable(held.as_fd()));
        let launched = match waiting.filter(|launched| !has_ended(launched)) {
            Some(launched) => launched,
            None => Order::new(&self.template, self.outputs)?.receive().inspect_err(|error| {
                if error.kind() == io::ErrorKind::TimedOut {
                    self.template.child.held().kill();
                }
            })?,
        };
        Ok(launched)
    }

    /// Orders the next worker ahead of its time.
    pub(super) fn order(&mut self) {
        if self.next.is_none() {
            self.next = Order::new(&self.template, self.outputs).ok();
        }
    }
}

impl Order {
    fn new(template: &Template, outputs: Outputs) -> io::Result<Self> {
        let (connection, theirs) = WorkerConnection::new(random_token(), outputs)?;
        let (status, told) = stream_pair()?;
        send_with_fds(template.control.check()?, &[FORK_REQUEST], &[theirs.as_fd(), told.as_fd()]).map_err(
            |error| match error.kind() {
                // This is not a shortage of processes.
                io::ErrorKind::WouldBlock => {
                    io::Error::new(io::ErrorKind::TimedOut, "it does not read its requests")
                }
                _ => error,
            },
        )?;
        Ok(Self(Some(Made { connection, status: Identified::new(status) })))
    }

    /// Returns the worker as soon as the template has made it.
    fn receive(&mut self) -> io::Result<Launched> {
        let Made { connection, status } = self.0.take().ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = [0; REPORT_BYTES];
        if !wait_readable(status.check()?, FORK_TIMEOUT)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
        }
        let pidfd = recv_with_fds::<1>(status.as_fd(), &mut bytes)?.pop();
        match (TemplateReport::from_bytes(bytes), pidfd) {
            (Some(TemplateReport::Forked(pid)), Some(pidfd)) => {
                let mut held = Held::new(pidfd);
                held.ends_with(connection.socket());
                let process = ForkedProcess { pid, held, status, reaped: false };
                Ok(connection.launched(LocalProcess::Forked(process)))
            }
            (Some(TemplateReport::NotForked(errno)), _) => Err(refused_template(errno)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if self.0.is_some() {
            drop(self.receive());
        }
    }
}

impl Template {
    /// Reads what the template says, and returns its message once it is complete. The error is the reason why no message will come,
    /// or `None` if the process has ended.
    pub(super) fn listen(&self, said: &mut Vec<u8>) -> Result<Option<Prepared>, Option<String>> {
        let ended = self.has_exited();
        loop {
            match self.control.check().and_then(|control| read_some(control, said, 4096)) {
                Ok(Some(0)) => return Prepared::from_bytes(said).map_err(Some)?.map(Some).ok_or(None),
                Ok(Some(_)) if said.len() < MOST_WORDS_BYTES => {}
                Ok(Some(_)) => return Err(Some("its template sent an invalid message".to_owned())),
                Ok(None) => break,
                Err(error) => return Err(Some(format!("its template's messages cannot be read: {error}"))),
            }
        }
        match Prepared::from_bytes(said).map_err(Some)? {
            None if ended => Err(None),
            prepared => Ok(prepared),
        }
    }

    fn has_exited(&self) -> bool {
        is_readable(self.child.as_fd())
    }

    /// Returns whether the template has ended, or cannot be used because other code has closed a descriptor of it. It says nothing
    /// while it waits for requests, so readable data means its end.
    pub(super) fn has_ended(&self) -> bool {
        let is_whole = self.child.held().is_whole() && self.control.is_whole();
        !is_whole || self.has_exited() || is_readable(self.control.as_fd())
    }
}

/// A template that waits for requests forks immediately. Only a stopped machine makes it slower.
pub(super) const FORK_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum length of what a template says while it prepares.
pub(super) const MOST_WORDS_BYTES: usize = 1 << 20;

/// Names the system call that failed in the template. Holding processes was checked before, so `pidfd_open` fails only if there are
/// no descriptors left.
pub(super) fn refused_template(errno: i32) -> io::Error {
    let call = if matches!(errno, nix::libc::EMFILE | nix::libc::ENFILE) { "pidfd_open" } else { "clone" };
    Failed::from_raw(call, errno).into()
}
