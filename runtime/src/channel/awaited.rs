//! Ends that futures wait for. One thread per process sleeps on all of their bells and wakes the futures.
//!
//! Futures take part as threads do: they announce themselves, look once more, and hand on when they wait no longer.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io, iter,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Mutex,
        atomic::{self, AtomicU64},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::{bell::Bell, end::End, error::Failure, memory::Place};
use crate::{
    error::Error,
    segment::{Attachments, LOOK_EVERY},
    sync::{AtomicU32, Ordering, ignore_poison},
    sys::{
        futex,
        generation::generation,
        per_process::PerProcess,
        quiesce::{Announced, OwnThread},
        thread,
    },
};

/// Sends an encoded message as soon as there is room.
pub(super) async fn send(end: &End, bytes: &[u8], attachments: &Attachments) -> Result<(), Failure> {
    let mut packet = None;
    let mut wait = Wait::new(end);
    let mut attempt = || end.try_send(end.words(), bytes, attachments, &mut packet);
    poll_fn(|context| wait.poll(context, &mut attempt)).await
}

/// The number of a future that waits, or that was woken. Numbers are not used again, not even in a copy of the process.
#[derive(Debug)]
pub(super) struct Waiting(u64);

/// What a future waits with.
pub(super) struct Wait<'a> {
    end: &'a End,
    waiting: Option<Waiting>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(end: &'a End) -> Self {
        Self::resume(end, None)
    }

    pub(super) fn resume(end: &'a End, waiting: Option<Waiting>) -> Self {
        Self { end, waiting }
    }

    /// Returns what to resume with when the future is polled again.
    pub(super) fn pause(mut self) -> Option<Waiting> {
        self.waiting.take()
    }

    /// Makes an attempt. If it is too early for it, the future is woken when it is not.
    pub(super) fn poll<R>(
        &mut self,
        context: &Context<'_>,
        mut attempt: impl FnMut() -> Result<R, Failure>,
    ) -> Poll<Result<R, Failure>> {
        match attempt() {
            Err(Failure::NotNow) => {}
            outcome => return Poll::Ready(outcome),
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = || Waiting(NEXT.fetch_add(1, atomic::Ordering::Relaxed));
        let Waiting(number) = *self.waiting.get_or_insert_with(next);
        let (watch, place) = (WATCH.get_or_init(Watch::default), self.end.place());
        let is_new = match watch.add(&place, number, context.waker().clone()) {
            Ok(is_new) => is_new,
            Err(error) => {
                let error = Error::system("a thread that waits for channels cannot be started", error);
                return Poll::Ready(Err(Failure::Failed(error)));
            }
        };
        place.bell().announce();
        if is_new {
            // Whatever becomes of this attempt: other futures may be at the same place by now.
            watch.ring();
        }
        match attempt() {
            Err(Failure::NotNow) => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(Waiting(number)) = self.waiting.take() else { return };
        // The drop of a waker is code of the executor, so no lock is held then.
        let _removed = WATCH.get().and_then(|watch| watch.remove(&self.end.place(), number));
        // It may have been woken for what another one is to have now.
        self.end.hand_on();
    }
}

static WATCH: PerProcess<Watch> = PerProcess::new();

/// What the thread and the futures of this process share.
#[derive(Debug)]
struct Watch {
    /// The thread sleeps on it, too.
    bell: AtomicU32,
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    has_thread: bool,
    queues: Vec<Queue>,
}

/// The futures that wait at one place, the oldest first. There is at least one.
#[derive(Debug)]
struct Queue {
    place: Place,
    wakers: VecDeque<(u64, Waker)>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { bell: AtomicU32::new(0), queues: Mutex::default() }
    }
}

impl Watch {
    fn with<R>(&self, use_them: impl FnOnce(&mut Queues) -> R) -> R {
        let mut queues = ignore_poison(self.queues.lock());
        use_them(&mut queues)
    }

    /// Wakes the thread.
    fn ring(&self) {
        if Bell(&self.bell).ring() {
            // Without futexes, it looks by itself.
            let _ = futex::wake(&self.bell);
        }
    }

    /// Adds a future, or gives it another waker. Returns whether the thread may not know of the place.
    fn add(&'static self, place: &Place, number: u64, waker: Waker) -> io::Result<bool> {
        let mut before = None;
        let outcome = self.with(|queues| {
            if !queues.has_thread {
                let announced = Announced::new();
                thread::named("procession channels").spawn(move || _ = self.run(announced.begin()))?;
                queues.has_thread = true;
            }
            let Some(queue) = queues.at(place.bell().0) else {
                let wakers = VecDeque::from([(number, waker)]);
                queues.queues.push(Queue { place: place.clone(), wakers });
                return Ok(true);
            };
            match queue.wakers.iter_mut().find(|(other, _)| *other == number) {
                Some((_, old)) => before = Some(std::mem::replace(old, waker)),
                None => queue.wakers.push_back((number, waker)),
            }
            Ok(false)
        });
        // A waker is dropped here and not under the lock.
        drop(before);
        outcome
    }

    /// Removes a future. Returns what was there, which is to be dropped where no lock is held.
    fn remove(&self, place: &Place, number: u64) -> Option<(Waker, Option<Queue>)> {
        self.with(|queues| {
            let wakers = &mut queues.at(place.bell().0)?.wakers;
            let index = wakers.iter().position(|(other, _)| *other == number)?;
            let (_, waker) = wakers.remove(index)?;
            Some((waker, queues.take_if_empty(place.bell().0)))
        })
    }

    /// Sleeps on the bells, and every 50 ms repairs what the dead have left. Returns when there was nothing to wait for in that time, and in a
    /// copy of this process that a waker has made.
    fn run(&self, mut thread: OwnThread) -> Option<()> {
        let mut next_look = Instant::now() + LOOK_EVERY;
        let mut is_time = false;
        loop {
            Bell(&self.bell).announce();
            // Only the addresses: the memory goes with the last end, whether this thread has woken up or not.
            let bells: Vec<*const AtomicU32> = self.with(|queues| {
                queues.has_thread = !(is_time && queues.queues.is_empty());
                let bells = queues.queues.iter().map(|queue| ptr::from_ref(queue.place.bell().0));
                queues.has_thread.then(|| iter::once(ptr::from_ref(&self.bell)).chain(bells).collect())
            })?;
            let timeout = next_look.saturating_duration_since(Instant::now());
            thread.rest(|| futex::wait_any(&bells, 1, timeout));
            is_time = Instant::now() >= next_look;
            if is_time {
                next_look = Instant::now() + LOOK_EVERY;
            }
            for bell in &bells[1..] {
                self.look(*bell, is_time)?;
            }
        }
    }

    /// Wakes the oldest future that waits for a bell, if that was rung or it is time to look.
    fn look(&self, bell: *const AtomicU32, is_time: bool) -> Option<()> {
        let woken = self.with(|queues| {
            let Some(Queue { place, wakers }) = queues.at(bell) else {
                // The future waits no longer, and this thread may have been woken in the place of others.
                futex::wake_all_at(bell);
                return None;
            };
            if is_time {
                place.state.recover_those(|_| true);
            }
            // If it was rung and is 1 again, a thread has announced itself that looks after that, and hands on.
            if !is_time && place.bell().0.load(Ordering::Relaxed) != 0 {
                return None;
            }
            let woken = wakers.pop_front();
            if !wakers.is_empty() {
                // The future that is woken looks after that, and hands on.
                place.bell().announce();
            }
            Some((woken, queues.take_if_empty(bell)))
        });
        if let Some((Some((_, waker)), queue)) = woken {
            drop(queue);
            let original = generation();
            // An executor that panics when it is woken must not prevent the wake-up of others.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            return (generation() == original).then_some(());
        }
        Some(())
    }
}

impl Queues {
    fn at(&mut self, bell: *const AtomicU32) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| ptr::eq(queue.place.bell().0, bell))
    }

    fn take_if_empty(&mut self, bell: *const AtomicU32) -> Option<Queue> {
        self.queues
            .extract_if(.., |queue| queue.wakers.is_empty() && ptr::eq(queue.place.bell().0, bell))
            .next()
    }
}
