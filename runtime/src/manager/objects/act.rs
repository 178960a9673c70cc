//! What each kind of object does.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Run, Ticket,
    kinds::{Entries, Entry, Mutex, Queue, Semaphore},
    waits::{Waiting, Waits},
};
use crate::{
    codec::Bytes,
    manager::request::{Action, Call, Reply, Value},
    segment::Attachments,
};

/// The object is of a kind that has no such action.
#[derive(Debug)]
pub(super) struct NoSuchAction;

/// The reply, or `None` if the request waits.
type Outcome = Result<Option<Reply>, NoSuchAction>;

/// A request that is being handled.
pub(super) struct Context<'c> {
    pub(super) from: Ticket,
    pub(super) object: u64,
    pub(super) with: &'c Attachments,
    pub(super) now: Instant,
    pub(super) run: Run<'c>,
}

impl Context<'_> {
    pub(super) fn value(&self, Bytes(bytes): &Bytes<'_>) -> Value {
        Value::new(bytes, self.with)
    }

    pub(super) fn deadline(&self, wait: Duration) -> Instant {
        // A time that no clock reaches is as good as none.
        self.now.checked_add(wait).unwrap_or_else(|| self.now + Duration::from_secs(u32::MAX.into()))
    }

    fn waits_for(&self, wait: Option<Duration>) -> Waiting {
        let deadline = wait.map(|wait| self.deadline(wait));
        Waiting { from: self.from, object: self.object, is_now: wait == Some(Duration::ZERO), deadline }
    }

    /// Returns the value that an update makes of a value.
    fn updated(&self, call: &Call<'_>, value: &Value) -> Result<Value, Reply> {
        (self.run)(call, self.with, value).map_err(|fault| Reply::Failed { function: call.function, fault })
    }

    pub(super) fn dict(&self, dict: &mut Entries, action: &Action<'_>) -> Result<Reply, NoSuchAction> {
        Ok(match action {
            Action::Get(Bytes(key)) => Reply::Value(dict.get(*key).map(|entry| entry.value.clone())),
            Action::Insert(key, value) => Reply::Value(self.insert(dict, key, self.value(value))),
            Action::Remove(Bytes(key)) => Reply::Value(dict.remove(*key).map(|entry| entry.value)),
            Action::Contains(Bytes(key)) => Reply::Flag(dict.contains_key(*key)),
            Action::CompareExchange { key, current, new } => {
                let present = dict.get(key.0).map(|entry| &entry.value);
                if present.map(|value| &*value.bytes) != current.map(|Bytes(bytes)| bytes) {
                    return Ok(Reply::Exchanged(Err(present.cloned())));
                }
                match new {
                    Some(new) => _ = self.insert(dict, key, self.value(new)),
                    None => _ = dict.remove(key.0),
                }
                Reply::Exchanged(Ok(()))
            }
            Action::Enter { key, update, or } => {
                let value = match (dict.get(key.0), update) {
                    (None, _) => Ok(self.value(or)),
                    (Some(entry), None) => return Ok(Reply::Value(Some(entry.value.clone()))),
                    (Some(entry), Some(call)) => self.updated(call, &entry.value),
                };
                self.insert_new(dict, key, value)
            }
            Action::Update(key, call) => match dict.get(key.0) {
                Some(entry) => {
                    let value = self.updated(call, &entry.value);
                    self.insert_new(dict, key, value)
                }
                None => Reply::Value(None),
            },
            Action::Len => Reply::number(dict.len()),
            Action::Clear => {
                dict.clear();
                Reply::Done
            }
            Action::Snapshot => {
                let pairs = dict.iter();
                let pairs = pairs.map(|(key, entry)| (Value::new(key, &entry.key_with), entry.value.clone()));
                Reply::Pairs(pairs.collect())
            }
            _ => return Err(NoSuchAction),
        })
    }

    fn insert(&self, dict: &mut Entries, Bytes(key): &Bytes<'_>, value: Value) -> Option<Value> {
        if let Some(entry) = dict.get_mut(*key) {
            return Some(std::mem::replace(&mut entry.value, value));
        }
        dict.insert((*key).into(), Entry { key_with: self.with.clone(), value });
        None
    }

    /// Inserts a value and returns it, unless the update has failed.
    fn insert_new(&self, dict: &mut Entries, key: &Bytes<'_>, value: Result<Value, Reply>) -> Reply {
        value.map_or_else(
            |failed| failed,
            |value| {
                self.insert(dict, key, value.clone());
                Reply::Value(Some(value))
            },
        )
    }

    pub(super) fn list(&self, list: &mut Vec<Value>, action: &Action<'_>) -> Result<Reply, NoSuchAction> {
        let at = |index: &u64| usize::try_from(*index).unwrap_or(usize::MAX);
        Ok(match action {
            Action::At(index) => Reply::Value(list.get(at(index)).cloned()),
            Action::SetAt(index, value) => {
                let place = list.get_mut(at(index));
                Reply::Value(place.map(|place| std::mem::replace(place, self.value(value))))
            }
            Action::UpdateAt(index, call) => match list.get_mut(at(index)) {
                None => Reply::Value(None),
                Some(place) => match self.updated(call, place) {
                    Ok(value) => {
                        *place = value.clone();
                        Reply::Value(Some(value))
                    }
                    Err(failed) => failed,
                },
            },
            Action::Extend(values) => {
                list.extend(values.iter().map(|value| self.value(value)));
                Reply::Done
            }
            Action::Pop => Reply::Value(list.pop()),
            Action::Len => Reply::number(list.len()),
            Action::Clear => {
                list.clear();
                Reply::Done
            }
            Action::Snapshot => Reply::Values(list.clone()),
            _ => return Err(NoSuchAction),
        })
    }
    pub(super) fn counter(&self, counter: &mut i64, action: &Action<'_>) -> Result<Reply, NoSuchAction> {
        Ok(match *action {
            Action::Add(more) => match counter.checked_add(more) {
                Some(sum) => {
                    *counter = sum;
                    Reply::Number(sum)
                }
                None => Reply::refused(format!("the counter would overflow: it is {counter}")),
            },
            Action::Store(value) => Reply::Number(std::mem::replace(counter, value)),
            _ => return Err(NoSuchAction),
        })
    }

    pub(super) fn queue(&self, queue: &mut Queue, action: &Action<'_>, waits: &mut Waits) -> Outcome {
        Ok(match action {
            Action::Put(value, wait) => queue.put(self.from, self.value(value), self.waits_for(*wait), waits),
            Action::Take(wait) => queue.take(self.from, self.waits_for(*wait), waits),
            Action::Len => Some(Reply::number(queue.len())),
            _ => return Err(NoSuchAction),
        })
    }

    pub(super) fn mutex(&self, mutex: &mut Mutex, action: &Action<'_>, waits: &mut Waits) -> Outcome {
        Ok(match action {
            Action::Acquire(wait) => mutex.acquire(self.from, self.waits_for(*wait), waits),
            Action::Release(changed) if mutex.holder == Some(self.from.client) => {
                mutex.release(changed.as_ref().map(|value| self.value(value)), waits);
                Some(Reply::Done)
            }
            Action::Release(_) => Some(Reply::refused("the mutex is not locked by this process")),
            _ => return Err(NoSuchAction),
        })
    }

    pub(super) fn semaphore(
        &self,
        semaphore: &mut Semaphore,
        action: &Action<'_>,
        waits: &mut Waits,
    ) -> Outcome {
        Ok(match action {
            Action::Acquire(wait) => semaphore.acquire(self.from, self.waits_for(*wait), waits),
            Action::Release(_) => Some(semaphore.release(self.from.client, waits)),
            Action::Len => Some(Reply::number(semaphore.free())),
            _ => return Err(NoSuchAction),
        })
    }

    pub(super) fn event(
        &self,
        is_set: &mut bool,
        waiting: &mut VecDeque<Ticket>,
        action: &Action<'_>,
        waits: &mut Waits,
    ) -> Outcome {
        match action {
            Action::Set => {
                *is_set = true;
                std::mem::take(waiting).into_iter().for_each(|ticket| waits.reply(ticket, Reply::Done));
            }
            Action::Clear => *is_set = false,
            Action::Len => return Ok(Some(Reply::Flag(*is_set))),
            Action::Wait(_) if *is_set => {}
            Action::Wait(wait) => {
                return Ok(self.waits_for(*wait).wait(waits, || waiting.push_back(self.from)));
            }
            _ => return Err(NoSuchAction),
        }
        Ok(Some(Reply::Done))
    }

    pub(super) fn barrier(
        &self,
        parties: u64,
        waiting: &mut VecDeque<Ticket>,
        action: &Action<'_>,
        waits: &mut Waits,
    ) -> Outcome {
        let Action::Wait(wait) = action else { return Err(NoSuchAction) };
        if (waiting.len() as u64) < parties - 1 {
            return Ok(self.waits_for(*wait).wait(waits, || waiting.push_back(self.from)));
        }
        std::mem::take(waiting).into_iter().for_each(|ticket| waits.reply(ticket, Reply::Flag(false)));
        Ok(Some(Reply::Flag(true)))
    }
}
