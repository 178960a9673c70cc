//! One end of a channel: what senders and receivers have in common.

use std::{
    cell::Cell,
    hint::spin_loop,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser};

use super::{
    held::{Side, Ticket},
    memory::{self, Layout, Words, repair, wake},
    slots::{Entry, Refusal, SlotMemory, Slots, Taken},
};
use crate::{
    codec::{self, ShortBytes},
    error::Error,
    segment::{Attachments, Hold, Mode, StateHandle, attached_by, digest, hold, mode, set_why},
    sys::generation::generation,
};

/// How long a waiter looks again and again before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// The number of looks between two looks at the clock.
const SPINS_A_LOOK: u32 = 32;

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

/// Why an end could not send or receive.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no room or no message, and the time is up.
    NotNow,
    Disconnected,
    Failed(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotNow => Self::NotNow,
            Refusal::Closed => Self::Disconnected,
        }
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
    /// The participant that had an opposite end when one was last looked for.
    opposite: AtomicU32,
}

impl End {
    /// Makes the two ends of a new channel.
    pub(super) fn pair(digest: u64, layout: Layout) -> std::io::Result<(Self, Self)> {
        let state = memory::make(digest, layout)?;
        Ok((Self::new(state.clone(), layout, Side::Sender), Self::new(state, layout, Side::Receiver)))
    }

    fn new(state: StateHandle, layout: Layout, side: Side) -> Self {
        let this = Self { state, layout, side, counted: AtomicU32::new(0), opposite: AtomicU32::new(0) };
        this.words();
        this
    }

    /// Returns the words of the channel, in which this end is counted.
    #[inline]
    fn words(&self) -> Words<'_> {
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

    /// Returns whether no other process reads a message.
    #[cfg(all(test, not(loom)))]
    pub(super) fn is_free(&self) -> bool {
        !self.words().slots().is_read_by_others(self.me())
    }

    pub(super) fn send<T: Serialize>(&self, message: &T, until: Until) -> Result<(), Failure> {
        let (mut bytes, mut attachments) = (ShortBytes::new(), Attachments::default());
        attached_by(&mut attachments, || codec::encode(message, &mut bytes))
            .map_err(|words| Failure::Failed(Error::config(format!("a message: {words}"))))?;
        let words = self.words();
        let slots = words.slots();
        if !attachments.is_empty() {
            return Err(Failure::Failed(Error::config("a message with handles cannot be sent")));
        }
        if bytes.len() > words.room_bytes() {
            let (len, room) = (bytes.len(), words.room_bytes());
            return Err(Failure::Failed(Error::config(format!(
                "a message of {len} bytes: the channel has room for {room} bytes in each"
            ))));
        }
        let me = self.me();
        let attempt = || {
            if !words.has(Side::Receiver, &self.opposite) {
                return Err(Failure::Disconnected);
            }
            Ok(slots.send(me, &bytes)?)
        };
        self.wait(&words, until, attempt, |words| words.slots().has_room())?;
        words.ring(Side::Receiver);
        Ok(())
    }

    pub(super) fn receive<T: DeserializeOwned>(&self, until: Until) -> Result<T, Failure> {
        thread_local! {
            static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let words = self.words();
        let slots = words.slots();
        let me = self.me();
        let attempt = || {
            let refused = match slots.take(me) {
                Err(Refusal::NotNow) if !words.has(Side::Sender, &self.opposite) => {
                    // Whatever was sent before the last sender went is seen now, or comes back if its receiver dies.
                    let is_over = !slots.is_read_by_others(me);
                    return slots.take(me).map_err(|refusal| {
                        if refusal == Refusal::NotNow && is_over {
                            Failure::Disconnected
                        } else {
                            refusal.into()
                        }
                    });
                }
                other => other,
            };
            Ok(refused?)
        };
        let taken = self.wait(&words, until, attempt, |words| words.slots().has_some())?;
        let finish = Finish { end: self, words, slots: &slots, taken };
        let mut bytes = BYTES.take();
        bytes.clear();
        slots.append(&finish.taken, &mut bytes);
        let message = codec::decode(&bytes);
        if bytes.capacity() <= KEPT_BYTES {
            BYTES.set(bytes);
        }
        drop(finish);
        message
            .map_err(|words| Failure::Failed(Error::config(format!("a message that was received: {words}"))))
    }

    /// Repeats an attempt until it succeeds, fails for good, or the time is up.
    #[inline]
    fn wait<R>(
        &self,
        words: &Words<'_>,
        until: Until,
        mut attempt: impl FnMut() -> Result<R, Failure>,
        has_more: impl FnOnce(&Words<'_>) -> bool,
    ) -> Result<R, Failure> {
        match (attempt(), until) {
            (Err(Failure::NotNow), Until::Deadline(deadline)) => {
                self.wait_slowly(words, deadline, &mut attempt, has_more)
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
        has_more: impl FnOnce(&Words<'_>) -> bool,
    ) -> Result<R, Failure> {
        let start = Instant::now();
        let end = deadline.map_or(start + SPIN, |deadline| deadline.min(start + SPIN));
        while Instant::now() < end {
            for _ in 0..SPINS_A_LOOK {
                spin_loop();
            }
            match attempt() {
                Err(Failure::NotNow) => {}
                outcome => return outcome,
            }
        }
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
        if bell.hand_on(|| has_more(words)) {
            wake(bell);
        }
        outcome
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
        let mut ticket = None;
        if matches!(mode(), Mode::Attach { .. }) {
            let on_its_way = OnItsWay::new(self, words).ok_or_else(|| {
                ser::Error::custom(set_why("too many ends of the channel are on their way".to_owned()))
            })?;
            ticket = Some(on_its_way.ticket.to_bits());
            hold(Arc::new(on_its_way));
        }
        (Identity(&self.state), ticket).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: ?Sized>(
        deserializer: D,
        side: Side,
    ) -> Result<Self, D::Error> {
        let (Arrived { state, layout, .. }, ticket) = <(Arrived<T>, Option<u64>)>::deserialize(deserializer)?;
        let this = Self::new(state, layout, side);
        if let Some(ticket) = ticket {
            this.words().held().remove(Ticket::from_bits(ticket));
        }
        Ok(this)
    }
}

/// The number of bytes up to which a buffer is kept for the next message.
const KEPT_BYTES: usize = 64 << 10;

impl Clone for End {
    fn clone(&self) -> Self {
        Self::new(self.state.clone(), self.layout, self.side)
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

/// Makes room where a message was taken, when it was decoded or its decoding has panicked.
struct Finish<'a> {
    end: &'a End,
    words: Words<'a>,
    slots: &'a Slots<Words<'a>>,
    taken: Taken,
}

impl Drop for Finish<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slots.finish(&self.taken);
        self.words.ring(Side::Sender);
        if !self.words.has(Side::Sender, &self.end.opposite) {
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
