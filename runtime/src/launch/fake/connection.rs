//! The host's ends of the connection to a [`FakeWorker`].

use std::{io, os::fd::BorrowedFd, sync::Arc};

use super::{
    task::{FakeTask, Rings},
    worker::FakeWorker,
};
use crate::{
    frame::Frames,
    launch::output::OutputSource,
    protocol::{RunHead, ToWorker},
    segment::Segment,
    transport::{Body, Descriptors, FrameReceiver, FrameSender, Incoming, QueueingSender, Room},
};

pub(super) struct Sender {
    worker: FakeWorker,
    is_closed: bool,
}

impl Sender {
    pub(super) fn new(worker: FakeWorker) -> Self {
        Self { worker, is_closed: false }
    }
}

impl FrameSender for Sender {
    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        assert!(!self.is_closed, "nothing is sent after the connection was closed");
        let body = match body {
            Body::Borrowed(bytes) => bytes.to_vec(),
            Body::Shared(bytes) => (**bytes).as_ref().to_vec(),
        };
        let mut state = self.worker.lock();
        if state.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (first, rest) = if head.is_empty() { (&body[..], &[][..]) } else { (head, &body[..]) };
        match ToWorker::decode(first, rest).expect("the host sends messages of ours") {
            ToWorker::Hello(hello) => state.hello = Some(hello),
            ToWorker::Forget(ids) => state.segments.retain(|id| !ids.contains(id)),
            ToWorker::Run(RunHead { flags, first_seq, count, .. }, mut tasks) => {
                while let Some(task) = tasks.next().expect("the host sends messages of ours") {
                    state.waiting.push_back(FakeTask {
                        seq: task.seq,
                        number: task.task,
                        function: task.function.0,
                        args: task.args.to_vec(),
                        request: first_seq,
                        counted: (flags.counts_waits && tasks.left() == 0).then_some(count),
                        rings: match flags.is_patient {
                            false => Rings::Always,
                            true if tasks.left() == count / 2 => Rings::BeforeRest,
                            true => Rings::AtRest,
                        },
                    });
                }
            }
        }
        Ok(())
    }

    fn send_brief(&mut self, _head: u64, _body: &[u8]) -> io::Result<()> {
        unreachable!("a host sends no briefs")
    }

    fn ring(&mut self) {
        self.worker.wake();
    }
}

impl QueueingSender for Sender {
    fn attach(&mut self, segment: Arc<Segment>) -> io::Result<()> {
        self.worker.lock().on_their_way.push(segment.id());
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.worker.lock();
        if !state.is_short {
            let mut arrived = std::mem::take(&mut state.on_their_way);
            state.segments.append(&mut arrived);
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.worker.lock().on_their_way.len()
    }

    fn has_room(&mut self) -> bool {
        false
    }

    fn await_room(&mut self) -> Room {
        if self.queued_bytes() > 0 { Room::Later } else { Room::Readable }
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.worker.lock().is_left = true;
        self.worker.wake();
    }

    fn is_peer_at_rest(&self) -> bool {
        let state = self.worker.lock();
        state.running.is_none()
            && state.waiting.is_empty()
            && state.sent.is_empty()
            && state.recalled.is_empty()
    }
}

/// The bytes that the worker writes to its first captured stream.
#[derive(Debug)]
pub(super) struct Written(pub(super) FakeWorker);

impl OutputSource for Written {
    fn pending_bytes(&self) -> usize {
        self.0.lock().written.len()
    }

    fn read(&mut self, target: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
        let mut state = self.0.lock();
        let n = state.written.len().min(most);
        target.extend(state.written.drain(..n));
        Ok((n > 0 || state.exit.is_some()).then_some(n))
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

pub(super) struct Receiver {
    worker: FakeWorker,
    /// The bytes that were taken from the worker and not consumed.
    bytes: Vec<u8>,
}

impl Receiver {
    pub(super) fn new(worker: FakeWorker) -> Self {
        Self { worker, bytes: Vec::new() }
    }
}

impl FrameReceiver for Receiver {
    fn begin(&mut self, _readable: bool) {}

    fn recv(&mut self) -> io::Result<Incoming<'_>> {
        let mut state = self.worker.lock();
        self.bytes.append(&mut state.sent);
        if self.bytes.is_empty()
            && let Some((head, body)) = state.large.take()
        {
            return Ok(Incoming::Large { head, body });
        }
        Ok(match (self.bytes.is_empty(), state.is_closed) {
            (false, _) => Incoming::Frames(Frames::new(&self.bytes)),
            (true, true) => Incoming::Closed,
            (true, false) => Incoming::Nothing,
        })
    }

    fn consume(&mut self, len_bytes: usize) {
        self.bytes.drain(..len_bytes);
    }

    fn has_arrivals(&self) -> bool {
        !self.bytes.is_empty() || !self.worker.lock().sent.is_empty()
    }

    fn is_midway(&self) -> bool {
        false
    }

    fn park(&mut self) -> bool {
        !self.has_arrivals()
    }

    fn unpark(&mut self) {}

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn take_descriptors(&mut self) -> Option<Descriptors> {
        self.worker.lock().descriptors.pop_front()
    }
}
