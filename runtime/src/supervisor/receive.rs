//! Reads what a worker sends, checks it, settles replies and reports events.
//!
//! A worker that sends what no worker of ours sends is killed. A reply is settled only after the output that the task wrote was
//! read.

use std::{io, ops::ControlFlow, time::Instant};

use super::{
    capture::Transcript,
    event::WorkerEvent,
    ledger::{InFlight, InFlightTasks, Ledger},
    output::record_of,
    state::{Link, State, Supervisor},
    stop::MOST_PUT_OFF,
};
use crate::{
    launch::{Launched, Watched},
    protocol::{Malformed, Ready, Record, Refused, Reply, VERSION},
    registry,
    transport::{Board, Received},
};

/// Reads all output of task `seq`, whose reply has arrived: it was written before the reply. Returns whether a line was
/// delivered, which must reach the user's logger before the reply is settled.
fn read_up_to<T: InFlightTasks>(
    seq: u32,
    transcript: &mut Transcript,
    ledger: &Ledger,
    in_flight: &InFlight<T>,
    board: Option<&Board>,
    watched: &Watched,
    on: &mut impl FnMut(WorkerEvent<'_, T>) -> ControlFlow<()>,
) -> bool {
    let mut said = false;
    if !transcript.has_all_of(seq) {
        transcript.read(
            ledger.next_seq,
            |ended| watched.remove(ended),
            |line| {
                if let Some(record) = record_of(line, Some(in_flight), board) {
                    said = true;
                    // The other lines have been read already, so the answer of `on` is ignored.
                    let _ = on(WorkerEvent::Said(Record::Log(record), in_flight.oldest()));
                }
            },
        );
    }
    said
}

/// Delivers the captured output of the task whose outcome this reply is.
fn tell_output<T>(
    transcript: Option<&mut Transcript>,
    reply: &Reply<'_>,
    on: &mut impl FnMut(WorkerEvent<'_, T>) -> ControlFlow<()>,
) {
    if let Some(output) = transcript.zip(reply.ends()).and_then(|(transcript, seq)| transcript.take(seq)) {
        let _ = on(WorkerEvent::Wrote(output));
    }
}

/// Why the reading of a worker pauses or ends.
enum End {
    Ready,
    Closed,
    Failed(String),
    Refused(String),
    /// The worker broke the protocol.
    Nonsense(String),
}

impl End {
    fn no_message() -> Self {
        Self::Nonsense("it sent what is no message of ours".to_owned())
    }
}

impl<T: InFlightTasks> Supervisor<T> {
    /// Reads what the worker has sent and passes it to `on`, until there is no more or `on` breaks. `readable` means that the
    /// poller reported the connection. Returns whether it stopped early so that other workers get their turn.
    pub(crate) fn read(
        &mut self,
        readable: bool,
        now: Instant,
        on: impl FnMut(WorkerEvent<'_, T>) -> ControlFlow<()>,
    ) -> bool {
        let paused = self.hear(readable, now, on);
        if paused && let Some(link) = self.link_mut() {
            // This was more than its connection holds, so everything that it had sent before this call was read.
            link.put_off = MOST_PUT_OFF;
        }
        // The message may have been that there is room.
        self.flush();
        paused
    }

    fn hear(
        &mut self,
        readable: bool,
        now: Instant,
        mut on: impl FnMut(WorkerEvent<'_, T>) -> ControlFlow<()>,
    ) -> bool {
        // Determined before its messages are read to the end.
        let is_at_rest = self.is_look_due(now) && self.is_at_rest();
        if let Some(link) = self.link_mut() {
            link.launched.receiver.begin(readable);
        }
        let end = loop {
            let is_starting = self.is_starting();
            let (link, mut in_flight) = match &mut self.state {
                State::Vacant | State::Lost { .. } => return false,
                State::Starting { link, .. } | State::Draining { link, .. } => (link, None),
                State::Live { link, in_flight } => (link, Some(in_flight)),
            };
            let Link { launched, transcript, ledger, held, last_words, was_short, .. } = link;
            let Launched { receiver, board, watched, .. } = launched;
            let received = match held.take() {
                Some((head, body)) => Ok(Received::Large { head, body }),
                None => receiver.recv(),
            };
            let frames = match received {
                Ok(Received::Frames(frames)) => frames,
                Ok(Received::Large { head, body }) => {
                    self.traffic.1 += (head.len() + body.len()) as u64;
                    if let (Some(transcript), Some(in_flight), Some(seq)) =
                        (&mut *transcript, in_flight.as_deref(), Reply::ends_large(&head))
                        && read_up_to(seq, transcript, ledger, in_flight, board.as_ref(), watched, &mut on)
                    {
                        *held = Some((head, body));
                        return false;
                    }
                    let said = match Reply::decode_large(&head, body) {
                        Ok(Reply::Said(record)) => {
                            Ok(on(WorkerEvent::Said(record, in_flight.and_then(|tasks| tasks.oldest()))))
                        }
                        Ok(reply) => match in_flight {
                            Some(in_flight) => {
                                tell_output(transcript.as_mut(), &reply, &mut on);
                                ledger.settle(in_flight, reply, now, &mut on)
                            }
                            None => Err(Malformed),
                        },
                        Err(Malformed) => Err(Malformed),
                    };
                    match said {
                        Ok(ControlFlow::Continue(())) => continue,
                        Ok(ControlFlow::Break(())) => return false,
                        Err(Malformed) => break End::no_message(),
                    }
                }
                Ok(Received::Nothing) => {
                    if let Some(in_flight) = in_flight {
                        if is_at_rest && in_flight.tasks > 0 {
                            break End::Nonsense("it has left tasks without an answer".to_owned());
                        }
                        ledger.look_again(in_flight.tasks, now);
                    }
                    return false;
                }
                Ok(Received::Paused) => return true,
                Ok(Received::Closed) => break End::Closed,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::OutOfMemory) =>
                {
                    break End::Nonsense(format!("what it sent cannot be read: {error}"));
                }
                Err(error) => break End::Failed(error.to_string()),
            };
            let mut rest = frames;
            let mut flow = ControlFlow::Continue(());
            let mut end = None;
            while flow.is_continue() && end.is_none() {
                if transcript.is_none()
                    && let Some(in_flight) = in_flight.as_deref_mut()
                    && let Some(after) = ledger.settle_all(in_flight, rest, now, &mut on)
                {
                    rest = after;
                    continue;
                }
                let (reply, after) = if let Some((head, body, after)) = rest.split_brief() {
                    (Ok(Reply::from_brief(head, body)), after)
                } else if let Some((frame, after)) = rest.split_first() {
                    (Reply::decode(frame), after)
                } else {
                    break;
                };
                let Ok(reply) = reply else {
                    end = Some(End::no_message());
                    break;
                };
                if let (Some(transcript), Some(in_flight), Some(seq)) =
                    (&mut *transcript, in_flight.as_deref(), reply.ends())
                {
                    if read_up_to(seq, transcript, ledger, in_flight, board.as_ref(), watched, &mut on) {
                        flow = ControlFlow::Break(());
                        break;
                    }
                    tell_output(Some(transcript), &reply, &mut on);
                }
                rest = after;
                match (reply, in_flight.as_deref_mut()) {
                    (Reply::Note(note), _) => flow = on(WorkerEvent::Noted(note)),
                    (Reply::Said(record), in_flight) => {
                        flow = on(WorkerEvent::Said(record, in_flight.and_then(|tasks| tasks.oldest())));
                    }
                    (Reply::Progress { seq, fraction }, in_flight) => {
                        // A thread that an earlier task left behind may report progress of that task, which is ignored.
                        let oldest = in_flight.and_then(|in_flight| in_flight.loads.front_mut());
                        if let Some((_, load)) = oldest.filter(|(oldest, _)| *oldest == seq) {
                            flow = on(WorkerEvent::Progress { load, fraction });
                        }
                    }
                    (Reply::Refused(Refused { reason, is_short }), _) if is_starting => {
                        *was_short = is_short;
                        end = Some(End::Refused(reason))
                    }
                    (Reply::Refused(Refused { reason, .. }), _) => *last_words = Some(reason),
                    (reply, Some(in_flight)) => match ledger.settle(in_flight, reply, now, &mut on) {
                        Ok(next) => flow = next,
                        Err(Malformed) => end = Some(End::no_message()),
                    },
                    (Reply::Ready(Ready { version, build_id, .. }), None) if is_starting => {
                        end = Some(if version == VERSION && build_id == registry::build_id() {
                            End::Ready
                        } else {
                            End::Refused(format!(
                                "it is build {build_id:016x} and this program is {:016x}",
                                registry::build_id()
                            ))
                        });
                    }
                    _ => end = Some(End::no_message()),
                }
            }
            let seen = frames.as_bytes().len() - rest.as_bytes().len();
            receiver.consume(seen);
            self.traffic.1 += seen as u64;
            match end {
                Some(End::Ready) => {
                    if let State::Starting { mut link, .. } =
                        std::mem::replace(&mut self.state, State::Vacant)
                    {
                        link.ledger.count_anew(now);
                        self.state = State::Live { link, in_flight: InFlight::new() };
                    }
                    flow = on(WorkerEvent::Started);
                }
                Some(end) => break end,
                None => {}
            }
            if flow.is_break() {
                return false;
            }
        };
        match end {
            End::Closed | End::Ready => self.lose(now, None),
            End::Failed(words) | End::Refused(words) => self.lose(now, Some(words)),
            End::Nonsense(words) => {
                self.lose(now, Some(words));
                self.kill();
            }
        }
        // The end of the stream would be reported again and again. Only the end of the process is awaited now.
        if let Some(link) = self.link_mut() {
            link.launched.stop_reading();
        }
        false
    }
}
