//! The state machine of single processes: reads what they send, and reaps them when they have ended.
//!
//! Their driver locks it, like the scheduler of a pool. What a process sends after a record is read only after that record has been
//! delivered. So reading stops at the first record, and the processes that have more to read take turns.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::slot::{ProcessConfig, ProcessSlot};
use crate::{
    driver::state::LAUNCHER,
    error::Result,
    launch::{Launcher, Outputs, PROCESS, ResolvedOptions, Variable},
    scheduler::{effects::Effects, machine::StateMachine},
    supervisor::state::Supervisor,
    sys::poll::Event,
};

/// The kind of an event of a process's connection.
const CONNECTION: u64 = 0;

/// The settings that processes from one template have in common.
type TemplateKey = (Vec<Variable>, Outputs, Duration);

/// The processes that have not been reaped.
#[derive(Default)]
pub(super) struct ProcessSet {
    slots: BTreeMap<u32, ProcessSlot>,
    /// The processes to read, each with the events that the poller has reported.
    unread: VecDeque<(u32, u64)>,
    /// The template that processes with the same settings share.
    template: Option<(TemplateKey, Arc<dyn Launcher>)>,
    /// The number of events of the shared template that were handled.
    pub(super) template_events: u64,
    /// A process has ended or the template had an event since the threads that wait for either were woken.
    has_news: bool,
    effects: Effects,
}

impl ProcessSet {
    /// Adds a process that was just started.
    pub(super) fn add(&mut self, number: u32, slot: ProcessSlot) {
        // A forked process may have completed its handshake before the poller had its connection.
        if slot.supervisor.has_arrivals() {
            self.note(number, CONNECTION);
        }
        self.slots.insert(number, slot);
    }

    /// Keeps the engine as long as this process runs, because the process has no owner any more.
    pub(super) fn keep(&mut self, number: u32, engine: Arc<dyn Any + Send + Sync>) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.engine = Some(engine);
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.slots.contains_key(&number)
    }

    fn note_template_event(&mut self) {
        self.template_events += 1;
        self.has_news = true;
    }

    /// Returns the template from which this process can be forked. The first one that is made is kept for the processes that
    /// follow. Returns `None` if that one has other settings.
    pub(super) fn template(
        &mut self,
        config: &ProcessConfig,
        make: impl FnOnce() -> Result<Arc<dyn Launcher>>,
    ) -> Result<Option<Arc<dyn Launcher>>> {
        let ResolvedOptions { env, outputs, start_timeout, .. } = &config.spawn;
        let key = (env.clone(), *outputs, *start_timeout);
        let (own, launcher) = match &mut self.template {
            Some(template) => template,
            None => self.template.insert((key.clone(), make()?)),
        };
        Ok((*own == key).then(|| launcher.clone()))
    }

    /// Notes that there is something to read.
    fn note(&mut self, number: u32, kind: u64) {
        if !self.unread.contains(&(number, kind)) {
            self.unread.push_back((number, kind));
        }
    }

    /// Reads what is to be read, up to the first record.
    fn read(&mut self, now: Instant) {
        for _ in 0..self.unread.len() {
            if !self.effects.records.is_empty() {
                return;
            }
            let Some((number, kind)) = self.unread.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&number) else { continue };
            let has_more = slot.read(kind, now, &mut self.effects);
            if slot.supervisor.is_vacant()
                && let Some(slot) = self.slots.remove(&number)
            {
                // The engine or a template may end with it.
                self.effects.dropped.push(Box::new(slot));
                self.has_news = true;
            }
            if has_more {
                self.note(number, kind);
            }
        }
    }

    /// Enforces the deadlines that have passed.
    fn enforce_deadlines(&mut self, now: Instant) {
        let is_due = |slot: &ProcessSlot| slot.supervisor.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<u32> = self.slots.iter().filter(|(_, slot)| is_due(slot)).map(|(n, _)| *n).collect();
        for number in due {
            let Some(slot) = self.slots.get_mut(&number) else { continue };
            // A process that is late may have completed its handshake in time if this process was stopped since.
            let to_the_end =
                self.effects.records.is_empty() && !slot.read(CONNECTION, now, &mut self.effects);
            if slot.supervisor.may_enforce(to_the_end, now) {
                slot.on_deadline(now);
            }
            if slot.supervisor.is_given_up() {
                self.note(number, PROCESS);
            } else if !to_the_end {
                self.note(number, CONNECTION);
            }
        }
    }
}

impl StateMachine for ProcessSet {
    fn react(&mut self, events: &[Event], now: Instant) {
        for event in events {
            if event.key == LAUNCHER {
                self.note_template_event();
                continue;
            }
            let (number, kind) = Supervisor::place_and_kind(event.key);
            self.note(number as u32, kind);
        }
        self.read(now);
        self.enforce_deadlines(now);
    }

    fn effects(&mut self) -> Option<Effects> {
        (!self.effects.is_empty()).then(|| std::mem::take(&mut self.effects))
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.has_arrivals() {
            return Some(now);
        }
        self.slots.values().filter_map(|slot| slot.supervisor.deadline()).min()
    }

    fn has_arrivals(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Each process wakes the poller whenever it has been read to the end.
    fn park(&mut self) -> bool {
        !self.has_arrivals()
    }

    fn is_unfinished(&self) -> bool {
        !self.slots.is_empty()
    }

    fn is_empty_of_workers(&self) -> bool {
        self.slots.is_empty()
    }

    fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    fn break_down(&mut self) {
        for mut slot in std::mem::take(&mut self.slots).into_values() {
            slot.abandon(&mut self.effects.wakes);
            std::mem::forget(slot);
        }
        self.unread.clear();
        self.note_template_event();
    }
}
