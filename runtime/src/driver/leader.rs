//! Leadership: one waiting thread polls for all of them.
//!
//! Contains how a thread waits, becomes the leader, and hands leadership on. A waiting thread that does not lead must be parked
//! in the list of followers, or it would be forgotten.

use std::time::Instant;

use super::{
    poll::Until,
    state::{Driver, State, WARM},
};
use crate::{handle::Drive, id::TaskId, scheduler::machine::StateMachine, sys::buffer_cache};

/// Leadership of the current thread. Dropping it gives leadership up, also when a user's logger panics.
pub(super) struct Leadership<'a, M: StateMachine>(pub(super) &'a Driver<M>);

impl<M: StateMachine> Drop for Leadership<'_, M> {
    fn drop(&mut self) {
        let driver = self.0;
        if let Some(mut state) = driver.lock() {
            driver.leave_lead(&mut state);
        }
    }
}

impl<M: StateMachine> Drive for Driver<M> {
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> bool {
        self.flush_injector();
        self.lead_or_follow(ready, deadline).unwrap_or(false)
    }

    fn poll_once(&self) {
        self.flush_injector();
        let Some(mut state) = self.lock() else { return };
        if state.taken {
            return;
        }
        let leadership = self.take_lead(&mut state);
        drop(self.turn(state, &mut Vec::new(), Until::Now));
        drop(leadership);
    }

    fn watch(&self) {
        self.flush_injector();
        let Some(mut state) = self.lock() else { return };
        if !state.taken && !state.listens && state.parked.is_empty() {
            // Leadership is kept warm for a caller's return, and a future does not return.
            state.warm = None;
            if !self.arm(&mut state) {
                self.ring_background();
            }
        }
    }

    fn cancel(&self, task: TaskId, function: &'static str) {
        self.with(|machine, now| machine.cancel_task(task.0, function, now));
    }
}

impl<M: StateMachine> Driver<M> {
    /// Leads, or waits for the leader, until `ready` or the deadline. Returns `None` in a copy of the process that made the driver.
    fn lead_or_follow(&self, ready: &mut dyn FnMut() -> bool, deadline: Option<Instant>) -> Option<bool> {
        let mut events = Vec::new();
        while self.is_own() {
            let is_ready = ready();
            let mut state = self.lock()?;
            if is_ready || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                if !state.taken {
                    // Leadership may have been offered to this thread, which does not need it any more.
                    self.offer_lead(&mut state);
                }
                return Some(is_ready);
            }
            let me = std::thread::current();
            if state.taken && state.owner == Some(me.id()) {
                // A user's logger or waker, called by this thread while it leads, waits for a task. It continues to lead from
                // here.
                drop(self.turn(state, &mut events, Until::Then(deadline))?);
                continue;
            }
            if state.taken {
                state.parked.push(me.clone());
                drop(state);
                match deadline {
                    Some(deadline) => {
                        std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()))
                    }
                    None => std::thread::park(),
                }
                self.lock()?.parked.retain(|thread| thread.id() != me.id());
                continue;
            }
            let rested = state.listens;
            let leadership = self.take_lead(&mut state);
            if rested {
                // A worker that was woken needs a while to reply. Handling a reply once now, with nothing to handle, halves the
                // time that it will take then.
                let polled = state.polled;
                state.machine.read_busy(polled);
                state = self.react(state, &mut events)?;
            }
            drop(state);
            // What arrived while another thread led has been handled and will not be reported again, so check before sleeping.
            while !ready() && deadline.is_none_or(|deadline| deadline > Instant::now()) {
                drop(self.turn(self.lock()?, &mut events, Until::Then(deadline))?);
            }
            drop(leadership);
        }
        None
    }

    /// Leads, or waits for the leader, while `still` returns `true`.
    ///
    /// `still` may only ask for what [`StateMachine::has_news`] tells of. Returns `false` if this process is a copy of the one that
    /// made the driver.
    pub(crate) fn wait_while(&self, still: impl Fn(&M) -> bool) -> bool {
        self.wait(
            &mut || {
                // No caller of `ready` holds the lock.
                let Some(mut state) = self.lock() else { return false };
                self.take_in(&mut state, Instant::now());
                let ready = !still(&state.machine);
                let me = std::thread::current();
                if !ready && state.watching.iter().all(|thread| thread.id() != me.id()) {
                    state.watching.push(me);
                }
                ready
            },
            None,
        )
    }

    /// Passes on tasks that wait in the injector for more to follow.
    fn flush_injector(&self) {
        if !self.injector.rest() {
            self.with(|_, _| {});
        }
    }

    /// Takes leadership, which must be vacant. The lock must be released before the leadership is dropped.
    pub(super) fn take_lead(&self, state: &mut State<M>) -> Leadership<'_, M> {
        state.taken = true;
        state.owner = Some(std::thread::current().id());
        state.warm = None;
        if state.listens {
            // The background poller may stay armed. While the leader looks at the rings, workers do not wake it.
            state.listens = false;
            state.machine.unpark();
            // What has happened until now was or will be reported to the background poller.
            state.seen = Instant::now();
            state.polled = state.seen;
        }
        Leadership(self)
    }

    /// Gives up leadership: to a parked thread, or else it is kept warm for the next caller.
    pub(super) fn leave_lead(&self, state: &mut State<M>) {
        state.taken = false;
        state.owner = None;
        state.releases += 1;
        // The background thread has been woken for them in vain.
        state.forget_dropped();
        self.offer_lead(state);
        if buffer_cache::is_held()
            && state.background_alarm.is_none_or(|alarm| alarm > Instant::now() + 2 * buffer_cache::REST)
        {
            self.ring_background();
        }
    }

    /// Makes sure that another thread takes over vacant leadership: a parked thread, or later the background thread.
    fn offer_lead(&self, state: &mut State<M>) {
        if let Some(thread) = state.parked.pop() {
            thread.unpark();
        } else if !state.listens {
            let now = state.seen;
            let hot = state.left.replace(now).is_some_and(|left| now - left < WARM);
            // If the last leader left long ago, the next caller may not come soon.
            if hot || !self.arm(state) {
                state.warm = Some(now + WARM);
            }
            self.check_alarm(state, now);
        }
    }
}
