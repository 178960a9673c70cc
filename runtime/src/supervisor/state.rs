//! The state of one worker, and the requests of its owner: start, run, take back.
//!
//! ```text
//!            launch            Ready              send                
//!  Vacant ─────────▶ Starting ───────▶ Idle ◀──────────────▶ Busy     
//!    ▲                  │               │    last result      │       
//!    │                  │         drain │                     │       
//!    │                  │               ▼                     │       
//!    │                  │           Draining                  │       
//!    │                  │ connection    │ connection          │ connection
//!    │                  │ ends          │ ends                │ ends, or kill
//!    │                  ▼               ▼                     ▼       
//!    └────────────────────────────── Lost (its process is waited for, killed after a grace, and reaped)
//! ```
//!
//! A vacant place has no link. Idle and Busy are one variant, because a worker is busy when it has tasks in flight. How the states
//! end is in `end`, and what moves a worker from Starting to Idle is in `receive`. A worker is signalled only through its pidfd.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    capture::Transcript,
    event::Phase,
    ledger::{InFlight, LOOK_AFTER, Ledger},
};
use crate::{
    batch::Batch,
    id::{WorkerId, has_begun},
    launch::{KIND_BITS, Launch, LaunchError, LaunchRequest, Launched, Launcher, Peer},
    protocol::{Hello, Refused, RunFlags, RunHead, Wire, encode_forget},
    segment::{Attachments, Segment, SegmentId},
    transport::{AGAIN_AFTER, Body, Room, SharedBytes},
};

/// The time between two looks at a process's size. A look takes a few microseconds, and a process cannot grow by much in this
/// time.
const WEIGH_EVERY: Duration = Duration::from_micros(200);

/// The bits of a poller's key that say which descriptor of a worker it stands for.
const KIND: u64 = (1 << KIND_BITS) - 1;

/// A place for one worker, and the worker's process if it has one.
pub(crate) struct Supervisor {
    id: WorkerId,
    /// The number of processes that have had this place, so that an event of an earlier process is recognized.
    generation: u32,
    /// The process, unless the place is vacant.
    pub(super) link: Option<Link>,
    /// The bytes sent to and received from all processes that have had this place.
    pub(super) traffic: (u64, u64),
}

/// The state of a process.
pub(super) enum State {
    Starting { deadline: Instant },
    Live,
    Draining { deadline: Instant },
    Lost { deadline: Instant, was: Phase, reason: Option<String> },
}

/// A process and the connection to it.
pub(super) struct Link {
    pub(super) state: State,
    pub(super) launched: Launched,
    /// The answer of [`Peer::can_recall`].
    pub(super) can_recall: bool,
    /// The worker's captured output, if it is captured.
    pub(super) transcript: Option<Transcript>,
    pub(super) launched_at: Instant,
    pub(super) ledger: Ledger,
    /// Empty until the worker is live, and while it drains.
    pub(super) in_flight: InFlight,
    /// A reply that was read, and that is settled after the task's output was delivered.
    pub(super) held: Option<(Vec<u8>, Vec<u8>)>,
    /// The reason that the worker gave for leaving. Its earlier messages may not have been read yet.
    pub(super) last_words: Option<Refused>,
    /// Since when a stop is put off because the worker was not read to the end.
    pub(super) put_off_since: Option<Instant>,
    pub(super) killed: bool,
    /// The system refuses to signal the process, and it has not ended by itself.
    pub(super) given_up: bool,
    /// The segments that its process was handed.
    pub(super) segments: BTreeMap<SegmentId, Weak<Segment>>,
    /// The state that came in its results, which it may still use. It was not handed over, so the process cannot decode or forget it.
    pub(super) returned: BTreeMap<SegmentId, Weak<Segment>>,
}

impl Supervisor {
    pub(crate) fn new(id: WorkerId) -> Self {
        Self { id, generation: 0, link: None, traffic: (0, 0) }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    /// Returns the bytes that were sent to and received from the place's processes, in frames.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        self.traffic
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.peer().map(Peer::pid)
    }

    /// Returns when its process was started.
    pub(crate) fn launched_at(&self) -> Option<Instant> {
        self.link.as_ref().map(|link| link.launched_at)
    }

    /// Returns whether its process has returned at least one result.
    pub(crate) fn was_useful(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.ledger.results > 0)
    }

    /// Returns what its process can be asked, if it has one.
    pub(crate) fn peer(&self) -> Option<&dyn Peer> {
        self.link.as_ref().map(|link| &*link.launched.peer)
    }

    /// Returns whether its process cannot be ended, so that it must be reaped as it is.
    pub(crate) fn is_given_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.given_up)
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.link.is_none()
    }

    pub(crate) fn is_starting(&self) -> bool {
        matches!(&self.link, Some(Link { state: State::Starting { .. }, .. }))
    }

    /// Returns whether the worker is ready for tasks, idle or busy.
    pub(crate) fn is_live(&self) -> bool {
        self.live().is_some()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.live().is_some_and(|link| link.in_flight.tasks == 0)
    }

    /// Returns the tasks that were sent and have no outcome yet, oldest first.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &Batch> {
        self.link.iter().flat_map(|link| &link.in_flight.batches).map(|(_, batch)| batch)
    }

    /// Returns the number of tasks in flight.
    pub(crate) fn in_flight_len(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.in_flight.tasks)
    }

    /// Returns the newest tasks in flight.
    pub(crate) fn newest(&self) -> Option<&Batch> {
        self.link.as_ref()?.in_flight.batches.back().map(|(_, batch)| batch)
    }

    /// Returns the key under which the poller reports this worker's connection.
    pub(super) fn key(&self) -> u64 {
        (u64::from(self.generation) << 32) | (u64::from(self.id.0) << KIND_BITS)
    }

    /// Returns the worker's place and the kind of event that a key stands for.
    pub(crate) fn place_and_kind(key: u64) -> (usize, u64) {
        (((key & 0xffff_ffff) >> KIND_BITS) as usize, key & KIND)
    }

    /// Returns whether an event with this key is about the process that has this place now.
    pub(crate) fn owns(&self, key: u64) -> bool {
        !self.is_vacant() && key & !KIND == self.key()
    }

    /// Returns, once, why this worker does not use shared memory, unless that was asked for.
    pub(crate) fn why_slow(&mut self) -> Option<String> {
        self.link.as_mut()?.launched.why_slow.take()
    }

    /// Starts a worker: Vacant → Starting. Returns `false` if the launcher is not ready, and the place stays vacant.
    pub(crate) fn launch(
        &mut self,
        launcher: &dyn Launcher,
        request: &LaunchRequest<'_>,
        hello: &Hello,
        now: Instant,
        deadline: Instant,
    ) -> Result<bool, LaunchError> {
        debug_assert!(self.is_vacant(), "only a vacant place is filled");
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let request = LaunchRequest { key: self.key(), ..*request };
        let Launch::Ready(mut launched) = launcher.launch(&request)? else { return Ok(false) };
        let transcript = launched.streams.take().map(Transcript::new);
        let can_recall = launched.peer.can_recall();
        // If the worker has died already, its end is about to be reported.
        let _ = launched.sender.send(&[], Body::Borrowed(&hello.encode()));
        launched.sender.ring();
        // No thread may be looking at the ring, so the poller must report the reply.
        launched.receiver.park();
        let is_quiet = launched.is_quiet;
        let ledger = Ledger {
            next_seq: 1,
            ended_seq: 0,
            results: 0,
            given: 0,
            recalls: 0,
            weighed: None,
            panic: None,
            returned: VecDeque::new(),
            is_quiet,
            last_urgent: 0,
            look_at: None,
            look_after: LOOK_AFTER,
            ran: None,
            counted: now,
        };
        self.link = Some(Link {
            state: State::Starting { deadline },
            launched,
            can_recall,
            transcript,
            launched_at: now,
            ledger,
            in_flight: InFlight::default(),
            held: None,
            last_words: None,
            put_off_since: None,
            killed: false,
            given_up: false,
            segments: BTreeMap::new(),
            returned: BTreeMap::new(),
        });
        Ok(true)
    }

    /// Sends tasks: Idle or Busy → Busy. If the worker has gone, the tasks are settled when it is reaped.
    pub(crate) fn run(&mut self, mut batch: Batch, flags: RunFlags) {
        let link =
            self.link.as_mut().filter(|link| link.is_live()).expect("only a live worker is given tasks");
        let (first_seq, count, first_task) = (link.ledger.next_seq, batch.len(), batch.first);
        let head = RunHead { flags, first_seq, count, first_task };
        if !batch.records.attachments().is_empty() {
            link.hand_over(batch.records.attachments());
        }
        let sender = &mut link.launched.sender;
        let sent = match batch.records.wire() {
            Wire::Small(records) => {
                self.traffic.0 += records.len() as u64;
                sender.send(head.to_bytes(None).as_slice(), Body::Borrowed(records))
            }
            Wire::Large(function, args) => {
                let is_bare = args.is_bare;
                let args: SharedBytes = args.clone();
                self.traffic.0 += (*args).as_ref().len() as u64;
                sender.send(head.to_bytes(Some((function, is_bare))).as_slice(), Body::Shared(&args))
            }
        };
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
            && error.kind() != io::ErrorKind::ConnectionReset
        {
            // Part of a frame may have been sent, and the worker could not understand what follows.
            link.launched.peer.kill();
        }
        link.ledger.next_seq = first_seq.wrapping_add(count);
        if !flags.is_patient {
            link.ledger.last_urgent = link.ledger.next_seq.wrapping_sub(1);
        }
        link.ledger.given += u64::from(count);
        link.in_flight.tasks += count as usize;
        link.in_flight.all_begun = false;
        link.in_flight.batches.push_back((first_seq, batch));
    }

    /// Has the worker forget the segments that this process has dropped.
    pub(crate) fn forget_dropped(&mut self, now: Instant) {
        if let Some(link) = self.link.as_mut().filter(|link| link.is_live()) {
            link.forget_dropped();
            link.await_room(now);
        }
    }

    /// Returns whether the worker has begun at least one of its tasks in flight.
    pub(crate) fn has_begun(&self) -> bool {
        let Some(link) = self.live() else { return false };
        let oldest = link.in_flight.batches.front().map(|(seq, _)| *seq);
        oldest.zip(link.launched.peer.begun()).is_some_and(|(seq, begun)| has_begun(seq, begun))
    }

    /// Returns how many of its tasks in flight the worker has not begun.
    pub(crate) fn unbegun_len(&self) -> usize {
        let Some(link) = &self.link else { return 0 };
        link.in_flight.unbegun_len(link.launched.peer.begun())
    }

    /// Returns how many tasks its process was sent and that were not taken back.
    pub(crate) fn given(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.ledger.given)
    }

    /// Uncounts the last `n` tasks that were sent.
    pub(crate) fn do_not_count(&mut self, n: u64) {
        if let Some(link) = &mut self.link {
            link.ledger.given -= n;
        }
    }

    /// Returns since when the worker has been idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.live().filter(|link| link.in_flight.tasks == 0).map(|link| link.ledger.counted)
    }

    /// Returns the worker's resident memory in bytes, or `None` if it was read just now or cannot be read.
    pub(crate) fn weigh(&mut self, now: Instant) -> Option<u64> {
        let link = self.live_mut()?;
        if link.ledger.weighed.is_some_and(|at| now < at + WEIGH_EVERY) {
            return None;
        }
        link.ledger.weighed = Some(now);
        link.launched.peer.resident_bytes()
    }

    /// Returns when [`on_deadline`](Self::on_deadline) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        match link.state {
            State::Starting { deadline } | State::Draining { deadline } | State::Lost { deadline, .. } => {
                Some(deadline)
            }
            State::Live => link.ledger.look_at,
        }
    }

    /// Returns whether the worker will begin none of its tasks, or has read everything and sleeps.
    pub(super) fn is_at_rest(&self) -> bool {
        let Some(link) = self.live() else { return false };
        let Launched { sender, peer, .. } = &link.launched;
        link.in_flight.batches.front().is_some_and(|(oldest, _)| peer.bars(*oldest))
            || sender.is_peer_at_rest()
    }

    /// Returns whether a look at the worker's ring is due.
    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        self.live().and_then(|link| link.ledger.look_at).is_some_and(|at| at <= now)
    }

    /// Returns the process if it is ready for tasks.
    pub(super) fn live(&self) -> Option<&Link> {
        self.link.as_ref().filter(|link| link.is_live())
    }

    pub(super) fn live_mut(&mut self) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.is_live())
    }
}

impl Link {
    fn is_live(&self) -> bool {
        matches!(self.state, State::Live)
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// Hands the process those of the segments that it does not have, before the tasks that need them.
    #[cold]
    fn hand_over(&mut self, attachments: &Attachments) {
        for segment in attachments.iter() {
            if let Entry::Vacant(entry) = self.segments.entry(segment.id()) {
                entry.insert(Arc::downgrade(segment));
                segment.set_given();
                if self.launched.sender.attach(segment.clone()).is_err() {
                    // It is about to be seen to have ended. Otherwise it would wait for the segment in vain.
                    self.launched.peer.kill();
                }
            }
        }
    }

    /// Tells the process to forget the segments that this process has dropped.
    fn forget_dropped(&mut self) {
        let is_dropped = |segment: &Weak<Segment>| segment.strong_count() == 0;
        let ids: Vec<SegmentId> =
            self.segments.iter().filter(|(_, segment)| is_dropped(segment)).map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            // Not by looking again: others may have been dropped since.
            ids.iter().for_each(|id| _ = self.segments.remove(id));
            // If it has gone, it has forgotten everything.
            let _ = self.launched.sender.send(&[], Body::Borrowed(&encode_forget(&ids)));
            self.launched.sender.ring();
        }
    }

    /// Makes sure that `flush` is called when there is room for what is queued.
    pub(super) fn await_room(&mut self, now: Instant) {
        let Launched { sender, receiver, watched, .. } = &mut self.launched;
        let writable = loop {
            if sender.queued_bytes() == 0 {
                break false;
            }
            match sender.await_room() {
                Room::Readable => break false,
                Room::Later => {
                    self.ledger.look_by(now + AGAIN_AFTER);
                    break false;
                }
                Room::Writable => break true,
                Room::Now => {
                    if sender.flush().is_err() {
                        break false;
                    }
                }
            }
        };
        watched.set_writable(receiver.poll_fd(), writable);
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
