//! Reads what a worker sends, checks it, settles replies and reports events.
//!
//! A worker that sends an invalid message is killed. A reply is settled only after the output that the task wrote was
//! read.

use std::{io, ops::ControlFlow, sync::Arc, time::Instant};

use super::{
    capture::Transcript,
    event::WorkerEvent,
    ledger::{InFlight, Ledger},
    output::record_of,
    state::{Link, State, Supervisor},
};
use crate::{
    frame::Frames,
    launch::{Launched, Peer, Watched},
    protocol::{Malformed, Notice, Ready, Record, Refused, Reply, VERSION},
    registry,
    segment::{Attachments, adopt_all},
    transport::{Descriptors, Incoming},
};

/// The number of messages that are not results and are read from a worker before others get their turn. Our workers send few.
pub(super) const MOST_MESSAGES: u32 = 250;

/// The next step after something was received.
enum Next {
    /// More may be received.
    More,
    /// Nothing, until the owner has done what was reported, or the worker sends more.
    Stop,
    /// The other workers get their turn first.
    Pause,
    /// The worker has become ready for tasks. Then more may be received.
    Ready,
    /// This many descriptors have come for the result of this task. Then more may be received.
    Adopt { seq: u32, count: u32 },
}

impl From<ControlFlow<()>> for Next {
    fn from(flow: ControlFlow<()>) -> Self {
        if flow.is_break() { Self::Stop } else { Self::More }
    }
}

/// The reason why nothing more is received from a worker.
enum ReceiveError {
    /// The connection has ended, for this reason if there is one.
    Closed(Option<String>),
    /// The worker broke the protocol, so it is killed.
    Nonsense(String),
}

impl From<Malformed> for ReceiveError {
    fn from(_: Malformed) -> Self {
        Self::Nonsense("it sent an invalid message".to_owned())
    }
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::OutOfMemory => {
                Self::Nonsense(format!("its messages cannot be read: {error}"))
            }
            _ => Self::Closed(Some(error.to_string())),
        }
    }
}

impl Supervisor {
    /// Reads what the worker has sent and passes it to `on`, until there is no more or `on` breaks. `readable` means that the
    /// poller reported the connection. Returns whether it stopped early so that other workers get their turn.
    pub(crate) fn read(
        &mut self,
        readable: bool,
        now: Instant,
        on: impl FnMut(WorkerEvent<'_>) -> ControlFlow<()>,
    ) -> bool {
        let paused = self.receive_all(readable, now, on);
        // The message may have been that there is room.
        self.flush(now);
        paused
    }

    fn receive_all(
        &mut self,
        readable: bool,
        now: Instant,
        mut on: impl FnMut(WorkerEvent<'_>) -> ControlFlow<()>,
    ) -> bool {
        // Determined before its messages are read to the end.
        let is_at_rest = self.is_look_due(now) && self.is_at_rest();
        if let Some(link) = &mut self.link {
            link.launched.receiver.begin(readable);
        }
        let mut messages = 0;
        loop {
            match self.receive(is_at_rest, &mut messages, now, &mut on) {
                Ok(Next::More) if messages < MOST_MESSAGES => {}
                Ok(Next::More | Next::Pause) => return true,
                Ok(Next::Stop | Next::Adopt { .. }) => return false,
                Ok(Next::Ready) => {
                    self.serve(now);
                    if on(WorkerEvent::Started).is_break() {
                        return false;
                    }
                }
                Err(end) => {
                    self.receive_no_more(end, now);
                    return false;
                }
            }
        }
    }

    /// Receives what the connection holds in one piece.
    fn receive(
        &mut self,
        is_at_rest: bool,
        messages: &mut u32,
        now: Instant,
        on: &mut impl FnMut(WorkerEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Next, ReceiveError> {
        let Some(link) = self.link.as_mut().filter(|link| !link.is_lost()) else { return Ok(Next::Stop) };
        let is_starting = matches!(link.state, State::Starting { .. });
        let Link {
            launched, transcript, ledger, in_flight, held, last_words, put_off_since, returned, ..
        } = link;
        let Launched { receiver, peer, watched, .. } = launched;
        let (peer, transcript) = (&**peer, transcript.as_mut());
        let mut reader = Reader {
            is_starting,
            in_flight,
            transcript,
            ledger,
            peer,
            watched,
            last_words,
            messages,
            now,
            on,
        };
        let received = match held.take() {
            Some((head, body)) => Incoming::Large { head, body },
            None => receiver.recv()?,
        };
        let next = match received {
            Incoming::Frames(frames) => {
                let mut rest = frames;
                let next = reader.receive_frames(&mut rest);
                let seen = frames.as_bytes().len() - rest.as_bytes().len();
                receiver.consume(seen);
                self.traffic.1 += seen as u64;
                next?
            }
            Incoming::Large { head, body } => {
                if let Some(seq) = Reply::ends_large(&head)
                    && reader.read_output_of(seq)
                {
                    *held = Some((head, body));
                    return Ok(Next::Stop);
                }
                self.traffic.1 += (head.len() + body.len()) as u64;
                reader.receive_reply(Reply::decode_large(&head, body)?)?
            }
            Incoming::Nothing => {
                *put_off_since = None;
                reader.receive_nothing(is_at_rest)?
            }
            Incoming::Paused => Next::Pause,
            Incoming::Closed => return Err(ReceiveError::Closed(None)),
        };
        if let Next::Adopt { seq, count } = next {
            let adopted = adopt(receiver.take_descriptors(), count)?;
            let segments = adopted.iter().flat_map(Attachments::iter);
            for state in segments.filter(|segment| segment.state().is_some()) {
                returned.retain(|_, state| state.strong_count() > 0);
                returned.insert(state.id(), Arc::downgrade(state));
            }
            ledger.add_returned(seq, adopted, in_flight)?;
            return Ok(Next::More);
        }
        Ok(next)
    }

    /// Notes that the worker is ready for tasks: Starting → Idle.
    fn serve(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.ledger.count_anew(now);
            link.state = State::Live;
        }
    }

    /// Loses the worker. Its process is about to end, and is killed if it broke the protocol.
    fn receive_no_more(&mut self, end: ReceiveError, now: Instant) {
        match end {
            ReceiveError::Closed(why) => self.lose(now, why),
            ReceiveError::Nonsense(why) => {
                self.lose(now, Some(why));
                self.kill();
            }
        }
        // The end of the stream would be reported again and again. Only the end of the process is awaited now.
        if let Some(link) = &mut self.link {
            link.launched.stop_reading();
        }
    }
}

/// The state that the messages of a worker are checked against and change. It is apart from the receiver, which holds the messages.
struct Reader<'a, F> {
    is_starting: bool,
    in_flight: &'a mut InFlight,
    transcript: Option<&'a mut Transcript>,
    ledger: &'a mut Ledger,
    peer: &'a dyn Peer,
    watched: &'a Watched,
    last_words: &'a mut Option<Refused>,
    /// The number of messages that are not results.
    messages: &'a mut u32,
    now: Instant,
    /// Reports an event.
    on: &'a mut F,
}

impl<F: FnMut(WorkerEvent<'_>) -> ControlFlow<()>> Reader<'_, F> {
    /// Receives frames, and removes them from `rest`.
    fn receive_frames(&mut self, rest: &mut Frames<'_>) -> Result<Next, ReceiveError> {
        while *self.messages < MOST_MESSAGES {
            if let Some(after) = self.receive_results(*rest) {
                *rest = after;
                continue;
            }
            let (reply, after) = if let Some((head, body, after)) = rest.split_brief() {
                (Reply::from_brief(head, body), after)
            } else if let Some((frame, after)) = rest.split_first() {
                (Reply::decode(frame)?, after)
            } else {
                return Ok(Next::More);
            };
            if let Some(seq) = reply.ends()
                && self.read_output_of(seq)
            {
                return Ok(Next::Stop);
            }
            *rest = after;
            match self.receive_reply(reply)? {
                Next::More => {}
                next => return Ok(next),
            }
        }
        Ok(Next::Pause)
    }

    /// Settles the results at the start of `frames`, if they belong to the oldest tasks. Returns the frames after them.
    #[inline]
    fn receive_results<'f>(&mut self, frames: Frames<'f>) -> Option<Frames<'f>> {
        // The output of each task must be read before its result.
        if self.transcript.is_some() {
            return None;
        }
        self.ledger.settle_all(self.in_flight, frames, self.now, self.on)
    }

    /// Receives one message. If it is the outcome of a task, the output of that task has been read.
    fn receive_reply(&mut self, reply: Reply<'_>) -> Result<Next, ReceiveError> {
        *self.messages += u32::from(reply.ends().is_none());
        match reply {
            Reply::Notice(notice) => self.receive_notice(notice),
            outcome => Ok(self.receive_outcome(outcome)?.into()),
        }
    }

    fn receive_notice(&mut self, notice: Notice) -> Result<Next, ReceiveError> {
        let running = self.in_flight.oldest();
        let flow = match notice {
            Notice::Ready(ready) if self.is_starting => return receive_handshake(&ready),
            Notice::Ready(_) => return Err(Malformed.into()),
            Notice::Refused(refused) => return self.receive_refusal(refused),
            Notice::Said(record) => (self.on)(WorkerEvent::Said(record, running)),
            Notice::Panic { seq, panic } => {
                running.ok_or(Malformed)?;
                self.ledger.panic = Some((seq, panic));
                ControlFlow::Continue(())
            }
            Notice::Progress { seq, fraction } => self.receive_progress(seq, fraction),
            Notice::Note(note) => (self.on)(WorkerEvent::Noted(note, running)),
            Notice::Recalled { begun } => self.receive_recalled(begun)?,
            Notice::Segments { seq, count } => return Ok(Next::Adopt { seq, count }),
        };
        Ok(flow.into())
    }

    /// Settles the oldest task in flight, after its captured output was reported.
    fn receive_outcome(&mut self, reply: Reply<'_>) -> Result<ControlFlow<()>, Malformed> {
        let transcript = self.transcript.as_deref_mut();
        if let Some(output) = transcript.zip(reply.ends()).and_then(|(transcript, seq)| transcript.take(seq))
        {
            let _ = (self.on)(WorkerEvent::Wrote(output));
        }
        self.ledger.settle(self.in_flight, reply, self.now, self.on)
    }

    fn receive_progress(&mut self, seq: u32, fraction: f64) -> ControlFlow<()> {
        match self.in_flight.batches.front_mut() {
            Some((oldest, batch)) if *oldest == seq => (self.on)(WorkerEvent::Progress { batch, fraction }),
            // A thread that an earlier task left behind may report progress of that task.
            _ => ControlFlow::Continue(()),
        }
    }

    /// Receives the answer to a recall.
    fn receive_recalled(&mut self, begun: u32) -> Result<ControlFlow<()>, Malformed> {
        self.ledger.recalls = self.ledger.recalls.checked_sub(1).ok_or(Malformed)?;
        if self.ledger.recalls == 0 && self.in_flight.recall_due.take().is_some() {
            return Ok((self.on)(WorkerEvent::Recalled(self.ledger.recall(begun, self.in_flight)?)));
        }
        // All tasks that were to be recalled have ended.
        Ok(ControlFlow::Continue(()))
    }

    /// Receives the reason for which the worker leaves, or does not become one.
    fn receive_refusal(&mut self, refused: Refused) -> Result<Next, ReceiveError> {
        *self.last_words = Some(refused);
        if self.is_starting { Err(ReceiveError::Closed(None)) } else { Ok(Next::More) }
    }

    /// Schedules the next look at the worker, which has sent nothing more.
    fn receive_nothing(&mut self, is_at_rest: bool) -> Result<Next, ReceiveError> {
        if is_at_rest && self.in_flight.tasks > 0 {
            return Err(ReceiveError::Nonsense("it left tasks without a reply".to_owned()));
        }
        if self.in_flight.recall_due.is_some_and(|due| due <= self.now) {
            return Err(ReceiveError::Nonsense("it did not say in time which tasks have begun".to_owned()));
        }
        self.ledger.look_again(self.in_flight.tasks, self.now);
        Ok(Next::Stop)
    }

    /// Reads all output of task `seq`, whose reply has arrived: it was written before the reply. Returns whether a line was
    /// reported, which must reach the user's logger before the reply is settled.
    fn read_output_of(&mut self, seq: u32) -> bool {
        let Some(transcript) = &mut self.transcript else { return false };
        let mut said = false;
        if !transcript.has_all_of(seq) {
            transcript.read(self.ledger.next_seq, self.watched, |line| {
                if let Some(record) = record_of(line, self.in_flight, self.peer) {
                    said = true;
                    // The other lines have been read already, so the answer of `on` is ignored.
                    let _ = (self.on)(WorkerEvent::Said(Record::Log(record), self.in_flight.oldest()));
                }
            });
        }
        said
    }
}

/// Maps the segments that came with a message, which says how many descriptors there are. Returns why they cannot be used if that is not
/// the worker's fault.
///
/// # Errors
///
/// They are something else, or are not as many.
fn adopt(descriptors: Option<Descriptors>, count: u32) -> Result<Result<Attachments, String>, Malformed> {
    let Descriptors { fds, are_lost } = descriptors.ok_or(Malformed)?;
    if are_lost {
        let why = "shared memory did not arrive: this process may not open more descriptors (`ulimit -n`)";
        return Ok(Err(why.to_owned()));
    }
    if fds.len() != count as usize {
        return Err(Malformed);
    }
    match adopt_all(fds) {
        Ok(returned) => Ok(Ok(returned)),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
            Ok(Err(format!("shared memory cannot be mapped: {error}")))
        }
        Err(_) => Err(Malformed),
    }
}

/// Checks that the worker is of this program.
fn receive_handshake(ready: &Ready) -> Result<Next, ReceiveError> {
    let own = registry::build_id();
    if ready.version == VERSION && ready.build_id == own {
        return Ok(Next::Ready);
    }
    Err(ReceiveError::Closed(Some(format!(
        "it is build {:016x} and this program is {own:016x}",
        ready.build_id
    ))))
}
