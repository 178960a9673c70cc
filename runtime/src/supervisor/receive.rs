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
};
use crate::{
    launch::{Launched, Watched},
    protocol::{Malformed, Notice, Ready, Record, Refused, Reply, VERSION},
    registry,
    transport::{Board, Received},
};

/// How many messages that are not results are read from a worker before others get their turn. Our workers send few.
const MOST_MESSAGES: u32 = 250;

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
        Self::Nonsense("it sent an invalid message".to_owned())
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
        let mut messages = 0;
        let end = loop {
            let is_starting = self.is_starting();
            let (link, mut in_flight) = match &mut self.state {
                State::Vacant | State::Lost { .. } => return false,
                State::Starting { link, .. } | State::Draining { link, .. } => (link, None),
                State::Live { link, in_flight } => (link, Some(in_flight)),
            };
            let Link { launched, transcript, ledger, held, last_words, was_short, put_off_since, .. } = link;
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
                        Ok(Reply::Notice(Notice::Said(record))) => {
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
                    *put_off_since = None;
                    if let Some(in_flight) = in_flight {
                        if is_at_rest && in_flight.tasks > 0 {
                            break End::Nonsense("it left tasks without a reply".to_owned());
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
                    break End::Nonsense(format!("its messages cannot be read: {error}"));
                }
                Err(error) => break End::Failed(error.to_string()),
            };
            let mut rest = frames;
            let mut flow = ControlFlow::Continue(());
            let mut end = None;
            while flow.is_continue() && end.is_none() && messages < MOST_MESSAGES {
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
                messages += u32::from(reply.ends().is_none());
                match (reply, in_flight.as_deref_mut()) {
                    (Reply::Notice(Notice::Note(note)), _) => flow = on(WorkerEvent::Noted(note)),
                    (Reply::Notice(Notice::Said(record)), in_flight) => {
                        flow = on(WorkerEvent::Said(record, in_flight.and_then(|tasks| tasks.oldest())));
                    }
                    (Reply::Notice(Notice::Progress { seq, fraction }), in_flight) => {
                        // A thread that an earlier task left behind may report progress of that task, which is ignored.
                        let oldest = in_flight.and_then(|in_flight| in_flight.loads.front_mut());
                        if let Some((_, load)) = oldest.filter(|(oldest, _)| *oldest == seq) {
                            flow = on(WorkerEvent::Progress { load, fraction });
                        }
                    }
                    (Reply::Notice(Notice::Refused(Refused { reason, is_short })), _) if is_starting => {
                        *was_short = is_short;
                        end = Some(End::Refused(reason))
                    }
                    (Reply::Notice(Notice::Refused(Refused { reason, .. })), _) => *last_words = Some(reason),
                    (reply, Some(in_flight)) => match ledger.settle(in_flight, reply, now, &mut on) {
                        Ok(next) => flow = next,
                        Err(Malformed) => end = Some(End::no_message()),
                    },
                    (Reply::Notice(Notice::Ready(Ready { version, build_id, .. })), None) if is_starting => {
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
            if messages == MOST_MESSAGES {
                return true;
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

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::{
        os::fd::AsFd as _,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;
    use crate::{
        error::Exit,
        id::WorkerId,
        launch::{Launch, LaunchError, LaunchRequest, Launcher, Outputs, WorkerProcess},
        protocol::{EncodedTasks, Hello, Note, WorkerSetup},
        sys::{fd::stream_pair, held::Held, identified::Identified},
        transport::{Body, FrameSender, Segment, offer, shm::worker::WorkerEnd},
    };

    /// The worker of these tests is this process, which is not held.
    struct Nobody;

    impl WorkerProcess for Nobody {
        fn pid(&self) -> u32 {
            std::process::id()
        }

        fn held(&self) -> Option<&Held> {
            None
        }

        fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
            None
        }

        fn give_up(&mut self) {}
    }

    /// Starts nothing, and keeps the worker's way to the host.
    #[derive(Default)]
    struct Here(Mutex<Option<Box<dyn FrameSender>>>);

    impl Launcher for Here {
        fn launch(&self, _: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
            let (socket, theirs) = stream_pair().unwrap();
            let end = offer(Arc::new(Identified::new(socket))).unwrap();
            let memory = end.segment.as_ref().filter(|_| end.rings);
            let memory = memory.map(|memory| Segment::attach(memory.as_fd(), true).unwrap());
            let worker = WorkerEnd::new(Arc::new(Identified::new(theirs)), memory.as_ref()).unwrap();
            *self.0.lock().unwrap() = Some(worker.sender);
            Ok(Launch::Ready(Launched {
                sender: end.sender,
                receiver: end.receiver,
                board: end.board,
                is_quiet: end.rings,
                why_slow: end.why_not,
                process: Box::new(Nobody),
                streams: None,
                watched: Watched::default(),
            }))
        }
    }

    struct NoTasks;

    impl InFlightTasks for NoTasks {
        fn len(&self) -> u32 {
            0
        }

        fn first_task(&self) -> u64 {
            0
        }

        fn records(&mut self) -> &mut EncodedTasks {
            unreachable!("no tasks are sent")
        }

        fn done(&mut self, _: u32) {}

        fn take_first(&mut self, _: u32) -> Self {
            Self
        }

        fn function_after(&self, _: u32) -> &'static str {
            ""
        }
    }

    fn launched() -> (Supervisor<NoTasks>, Box<dyn FrameSender>) {
        let (here, now) = (Here::default(), Instant::now());
        let mut supervisor = Supervisor::new(WorkerId(0));
        let request = LaunchRequest { env: &[], outputs: Outputs::default(), key: 0 };
        let hello =
            Hello { version: VERSION, build_id: 0, worker: 0, station: WorkerSetup::default(), log_level: 0 };
        let deadline = now + Duration::from_secs(60);
        assert!(supervisor.launch(&here, &request, &hello, now, deadline).unwrap());
        let worker = here.0.lock().unwrap().take().unwrap();
        (supervisor, worker)
    }

    #[test]
    fn one_turn_reads_a_bounded_number_of_messages_and_the_next_goes_on_from_there() {
        let (mut supervisor, mut worker) = launched();
        let note = Notice::Note(Note::Begun { nanos: 1 }).encode();
        for _ in 0..=2 * MOST_MESSAGES {
            worker.send(&[], Body::Borrowed(&note)).unwrap();
        }
        let mut turns = Vec::new();
        loop {
            let mut read = 0;
            let paused = supervisor.read(true, Instant::now(), |_| {
                read += 1;
                ControlFlow::Continue(())
            });
            turns.push(read);
            if !paused {
                break;
            }
        }
        assert_eq!(turns, [MOST_MESSAGES, MOST_MESSAGES, 1]);
    }

    #[test]
    fn a_stop_is_put_off_until_the_worker_is_read_to_the_end_but_not_for_long() {
        let (mut supervisor, _worker) = launched();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert!(supervisor.is_heard(true, start), "it was read to the end");
        assert!(!supervisor.is_heard(false, start), "its result may be in the rest");
        assert!(!supervisor.is_heard(false, after(100)), "and still");
        assert!(supervisor.is_heard(false, after(1000)), "it never stops sending");
        assert!(supervisor.is_heard(false, after(1001)), "nor does it later");
        assert!(!supervisor.read(true, after(1002), |_| ControlFlow::Continue(())));
        assert!(!supervisor.is_heard(false, after(1003)), "it was read to the end since");
    }
}
