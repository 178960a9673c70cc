//! One end of a channel: what senders and receivers have in common.

use std::{
    hint::spin_loop,
    io,
    marker::PhantomData,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser};

use super::{
    encode::{encode, with_bytes},
    error::Failure,
    held::{Side, Ticket},
    memory::{self, Layout, Words, repair},
    pair::{self, Packet, Peeked},
    slots::{Entry, Refusal, SlotMemory, Slots, Taken},
};
use crate::{
    codec::{self, Encoded},
    error::Error,
    segment::{
        Attachments, Hold, Mode, Segment, SegmentId, StateHandle, attach, digest, hold, look_up, mode,
        outlives, set_why,
    },
    sys::{fd, file_lock, generation::generation},
};

/// How long a waiter looks again and again before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// A waiter pauses for twice as long before each look, up to this power of two.
const LONGEST_PAUSE: u32 = 5;

/// After so many waits that ended asleep, a waiter sleeps at once, because the others may need its processor.
const IN_VAIN: u32 = 3;

/// Of so many waits that sleep at once, one looks again and again, because there may be a processor for everybody by now.
const TRY_AGAIN: u32 = 32;

/// The only way of such messages is a socket, which a channel of plain data does not have.
const TOO_LONG: &str = "the encoding of the message is more than three times as long as its type, for which channels of types without \
                        a destructor have no room: send it in a `Box`";

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Now,
    /// Forever, if there is no deadline.
    Deadline(Option<Instant>),
}

impl Until {
    pub(super) fn timeout(timeout: Duration) -> Self {
        Self::Deadline(Instant::now().checked_add(timeout))
    }
}

/// One end of a channel, which is counted as long as it lives.
#[derive(Debug)]
pub(super) struct End {
    state: StateHandle,
    layout: Layout,
    side: Side,
    /// The generation of the process that counts it. A copy of that process counts it, too, when it first uses it.
    counted: AtomicU32,
    /// Where messages go or come from that have no room in a slot. None if all have room.
    socket: Option<Arc<Segment>>,
    /// The participant that had an opposite end when one was last looked for.
    opposite: AtomicU32,
    /// How many waits in a row have ended asleep.
    in_vain: AtomicU32,
}

impl End {
    /// Makes the two ends of a new channel.
    pub(super) fn pair(digest: u64, layout: Layout, has_socket: bool) -> io::Result<(Self, Self)> {
        let state = memory::make(digest, layout)?;
        let (mut to, mut from) = (None, None);
        if has_socket {
            let (one, other) = fd::message_pair()?;
            to = Some(Segment::of_descriptor(digest, one)?);
            from = Some(Segment::of_descriptor(digest, other)?);
        }
        let sender = Self::new(state.clone(), layout, Side::Sender, to);
        Ok((sender, Self::new(state, layout, Side::Receiver, from)))
    }

    fn new(state: StateHandle, layout: Layout, side: Side, socket: Option<Arc<Segment>>) -> Self {
        let [counted, opposite, in_vain] = [const { AtomicU32::new(0) }; 3];
        let this = Self { state, layout, side, counted, socket, opposite, in_vain };
        this.words();
        this
    }

    /// Returns the socket for messages that have no room in a slot.
    fn socket(&self) -> Result<BorrowedFd<'_>, Failure> {
        let closed = |error| Failure::Failed(Error::system("the socket of a channel cannot be used", error));
        match &self.socket {
            Some(segment) => segment.descriptor().map_err(closed),
            None => Err(Failure::Failed(Error::config(TOO_LONG))),
        }
    }

    /// Returns whether there is an end of the opposite kind.
    #[inline]
    fn has_opposite(&self, words: &Words<'_>) -> bool {
        let side = match self.side {
            Side::Sender => Side::Receiver,
            Side::Receiver => Side::Sender,
        };
        words.still_has(side, &self.opposite) || self.find(words, side)
    }

    #[cold]
    fn find(&self, words: &Words<'_>, side: Side) -> bool {
        let is_locked = || self.state.file().is_some_and(|file| file_lock::is_locked(file, side as u8));
        words.find(side, &self.opposite, is_locked)
    }

    /// Returns the words of the channel, in which this end is counted.
    #[inline]
    pub(super) fn words(&self) -> Words<'_> {
        let words = Words::new(&self.state, self.layout);
        let generation = generation();
        if self.counted.load(Ordering::Relaxed) != generation
            && self.counted.swap(generation, Ordering::Relaxed) != generation
        {
            words.count(self.side);
        }
        words
    }

    #[inline]
    fn me(&self) -> Entry {
        self.state.my_entry().number() as Entry
    }

    pub(super) fn capacity(&self) -> usize {
        self.words().capacity() as usize
    }

    /// Returns whether all messages are taken.
    #[cfg(all(test, not(loom)))]
    pub(super) fn is_empty(&self) -> bool {
        self.words().slots().len() == 0
    }

    #[inline]
    pub(super) fn send<T: Serialize + 'static>(&self, message: &T, until: Until) -> Result<(), Failure> {
        with_bytes(|bytes| {
            let attachments = encode(message, bytes)?;
            let words = self.words();
            let mut packet = None;
            self.wait(&words, until, || self.try_send(words, bytes, &attachments, &mut packet))
        })
    }

    /// Sends an encoded message if there is room, and wakes a receiver. If it goes as a packet, keeps that for the next attempt.
    #[inline]
    pub(super) fn try_send(
        &self,
        words: Words<'_>,
        bytes: &[u8],
        attachments: &Attachments,
        packet: &mut Option<Packet>,
    ) -> Result<(), Failure> {
        if !self.has_opposite(&words) {
            return Err(Failure::Disconnected);
        }
        let has_room = attachments.is_empty() && bytes.len() <= words.room_bytes();
        match if has_room { words.slots().send(self.me(), bytes) } else { words.slots().close() } {
            Ok(()) if has_room => {
                words.ring_after_slot(Side::Receiver);
                return Ok(());
            }
            Err(Refusal::NotNow) => return Err(Failure::NotNow),
            Ok(()) | Err(Refusal::Closed) => {}
        }
        let packet = match packet {
            Some(packet) => packet,
            None => packet.insert(Packet::new(bytes, attachments.clone()).map_err(Failure::Failed)?),
        };
        packet.send(words, self.socket()?)?;
        words.ring(Side::Receiver);
        Ok(())
    }

    #[inline]
    pub(super) fn receive<T: DeserializeOwned + 'static>(&self, until: Until) -> Result<T, Failure> {
        with_bytes(|bytes| {
            let words = self.words();
            let message = match words.slots().take(self.me()) {
                Ok(taken) => self.decode_slot(words, taken, bytes),
                Err(_) => match self.wait_for_message(words, until)? {
                    Got::Slot(taken) => self.decode_slot(words, taken, bytes),
                    Got::Packet(packet) => {
                        let _then = Then { end: self, words, is_slot: false };
                        // It is removed after it was decoded.
                        let message = packet.decode();
                        drop(packet);
                        message
                    }
                },
            };
            message.map_err(|words| {
                Failure::Failed(Error::config(format!("a message that was received: {words}")))
            })
        })
    }

    /// Decodes the message in a slot, and then makes room there.
    #[inline]
    fn decode_slot<T: DeserializeOwned + 'static>(
        &self,
        words: Words<'_>,
        taken: Taken,
        bytes: &mut Vec<u8>,
    ) -> Result<T, String> {
        let _then = Then { end: self, words, is_slot: true };
        let finish = Finish { slots: words.slots(), taken };
        finish.slots.append(&finish.taken, bytes);
        codec::decode_result(Encoded::Short(bytes))
    }

    /// Takes the oldest message, and waits for one if there is none.
    #[cold]
    fn wait_for_message<'a>(&'a self, words: Words<'a>, until: Until) -> Result<Got<'a>, Failure> {
        let slots = words.slots();
        let attempt = || {
            let outcome = match self.take(words, &slots) {
                // Whatever was sent before the last sender went is seen now.
                Err(Failure::NotNow) if !self.has_opposite(&words) => match self.take(words, &slots) {
                    Err(Failure::NotNow) if !slots.has_left(self.me()) => Err(Failure::Disconnected),
                    outcome => outcome,
                },
                outcome => outcome,
            };
            outcome.map_err(|failure| if let Failure::Busy = failure { Failure::NotNow } else { failure })
        };
        self.wait(&words, until, attempt)
    }

    fn take<'a>(&'a self, words: Words<'a>, slots: &Slots<Words<'a>>) -> Result<Got<'a>, Failure> {
        match slots.take(self.me()) {
            Ok(taken) => Ok(Got::Slot(taken)),
            Err(Refusal::NotNow) => Err(Failure::NotNow),
            Err(Refusal::Closed) => pair::peek(words, self.socket()?).map(Got::Packet),
        }
    }

    /// Repeats an attempt until it succeeds, fails for good, or the time is up.
    #[inline]
    fn wait<R>(
        &self,
        words: &Words<'_>,
        until: Until,
        mut attempt: impl FnMut() -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        match (attempt(), until) {
            (Err(Failure::NotNow), Until::Deadline(deadline)) => {
                self.wait_slowly(words, deadline, &mut attempt)
            }
            (outcome, _) => outcome,
        }
    }

    #[cold]
    fn wait_slowly<R>(
        &self,
        words: &Words<'_>,
        deadline: Option<Instant>,
        attempt: &mut dyn FnMut() -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        if in_vain < IN_VAIN || in_vain.is_multiple_of(TRY_AGAIN) {
            let start = Instant::now();
            let end = deadline.map_or(start + SPIN, |deadline| deadline.min(start + SPIN));
            for look in 0.. {
                for _ in 0..1 << LONGEST_PAUSE.min(look) {
                    spin_loop();
                }
                match attempt() {
                    Err(Failure::NotNow) => {}
                    outcome => {
                        self.in_vain.store(0, Ordering::Relaxed);
                        return outcome;
                    }
                }
                if look > LONGEST_PAUSE && Instant::now() >= end {
                    break;
                }
            }
        }
        self.in_vain.store(in_vain.wrapping_add(1), Ordering::Relaxed);
        let bell = words.bell(self.side);
        let outcome = loop {
            bell.announce();
            match attempt() {
                Err(Failure::NotNow) => {}
                outcome => break outcome,
            }
            if !self.state.wait(bell.0, 1, deadline, |_| true) {
                break Err(Failure::NotNow);
            }
        };
        words.hand_on(self.side, || false);
        outcome
    }

    /// Returns where to wait.
    #[cfg(feature = "futures")]
    pub(super) fn place(&self) -> memory::Place {
        memory::Place { state: self.state.clone(), layout: self.layout, side: self.side }
    }

    /// Called by a waiter that will not wait again. Wakes the next one if there is a message or the end for it.
    #[cfg(feature = "futures")]
    pub(super) fn hand_on(&self) {
        let words = Words::new(&self.state, self.layout);
        words.hand_on(self.side, || !self.has_opposite(&words));
    }

    /// Encodes the end, which counts as one more until it has arrived.
    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Identity<'a>(&'a StateHandle);
        impl Serialize for Identity<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.encode(serializer)
            }
        }
        let words = self.words();
        let failed = |why: String| ser::Error::custom(set_why(why));
        let mut ticket = None;
        if matches!(mode(), Mode::Attach { .. }) {
            if let Some(socket) = &self.socket {
                attach(socket);
            }
            if outlives() {
                attach(&self.carry(words).map_err(|error| failed(format!("an end of a channel: {error}")))?);
            } else {
                let held = OnItsWay::new(self, words)
                    .ok_or_else(|| failed("too many ends of the channel are on their way".to_owned()))?;
                ticket = Some(held.ticket.to_bits());
                hold(Arc::new(held));
            }
        }
        let socket = self.socket.as_ref().map(|socket| socket.id());
        (Identity(&self.state), socket, ticket).serialize(serializer)
    }

    /// Makes what counts as an end as long as it is in a message, whatever becomes of this process.
    fn carry(&self, words: Words<'_>) -> io::Result<Arc<Segment>> {
        let file = self.state.file().ok_or_else(|| io::Error::other("its descriptor was closed"))?;
        words.set_carried();
        let locked = file_lock::lock_shared(file, self.side as u8)?;
        words.held().note_move();
        Segment::of_descriptor(digest::<Self>(), locked)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: ?Sized>(
        deserializer: D,
        side: Side,
    ) -> Result<Self, D::Error> {
        let (Arrived { state, layout, .. }, socket, ticket) =
            <(Arrived<T>, Option<SegmentId>, Option<u64>)>::deserialize(deserializer)?;
        let socket = socket.map(look_up).transpose();
        let socket = socket.map_err(|why| serde::de::Error::custom(set_why(why)))?;
        let this = Self::new(state, layout, side, socket);
        let held = this.words().held();
        match ticket {
            Some(ticket) => {
                held.remove(Ticket::from_bits(ticket));
            }
            None => held.note_move(),
        }
        Ok(this)
    }
}

impl Clone for End {
    fn clone(&self) -> Self {
        Self::new(self.state.clone(), self.layout, self.side, self.socket.clone())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // A copy of the process that has not used it has not counted it.
        if *self.counted.get_mut() == generation() {
            Words::new(&self.state, self.layout).uncount(self.side);
        }
    }
}

/// A message that is to be decoded.
enum Got<'a> {
    Slot(Taken),
    Packet(Peeked<'a>),
}

/// Makes room where a message was taken, when it was decoded or its decoding has panicked.
struct Finish<'a> {
    slots: Slots<Words<'a>>,
    taken: Taken,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.slots.finish(&self.taken);
    }
}

/// Wakes those that wait for what was received.
struct Then<'a> {
    end: &'a End,
    words: Words<'a>,
    /// Whether it was in a slot.
    is_slot: bool,
}

impl Drop for Then<'_> {
    fn drop(&mut self) {
        if self.is_slot {
            self.words.ring_after_slot(Side::Sender);
        } else {
            self.words.ring(Side::Sender);
        }
        if !self.end.has_opposite(&self.words) {
            // Other receivers wait for this to be finished.
            self.words.ring_all();
        }
    }
}

/// The state of a channel of `T` that was decoded.
struct Arrived<T: ?Sized> {
    state: StateHandle,
    layout: Layout,
    of: PhantomData<fn() -> Box<T>>,
}

impl<'de, T: ?Sized> Deserialize<'de> for Arrived<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = StateHandle::decode(deserializer, digest::<fn(&T)>(), |_| true, Some(repair))?;
        let layout = Layout::read(&state).ok_or_else(|| {
            serde::de::Error::custom(set_why("the memory of a channel is damaged".to_owned()))
        })?;
        Ok(Self { state, layout, of: PhantomData })
    }
}

/// An end within bytes. It counts until the bytes are dropped, if it was not decoded before.
#[derive(Debug)]
struct OnItsWay {
    state: StateHandle,
    layout: Layout,
    ticket: Ticket,
    generation: u32,
}

impl OnItsWay {
    fn new(end: &End, words: Words<'_>) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ticket = words.held().add(end.side, end.state.my_entry(), number)?;
        Some(Self { state: end.state.clone(), layout: end.layout, ticket, generation: generation() })
    }
}

impl Hold for OnItsWay {}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let words = Words::new(&self.state, self.layout);
        if self.generation == generation() && words.held().remove(self.ticket) {
            // It may have been the last one.
            words.ring_all();
        }
    }
}
