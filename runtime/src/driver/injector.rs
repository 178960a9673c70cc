//! Single tasks that were handed in and that nobody has taken to the scheduler yet: whoever submits many does not wait for its lock.
//!
//! Whoever puts a task here is told whether to see to it that it is taken. That is so if a worker could have it at once, unless many
//! come one after the other and nobody waits for one: then several are taken together. Nothing is left lying: who goes to sleep after
//! looking here ends the row, and looks once more.

use std::sync::PoisonError;

use crate::sync::{AtomicU32, Mutex, Ordering, fence};

/// Whoever hands in so many tasks, one by one, may hand in more before it waits for one.
const FEW: u32 = if cfg!(loom) { 0 } else { 4 };
/// Whoever hands in so many, and waits for none, ...
const ROW: u32 = if cfg!(loom) { 1 } else { 32 };
/// ... has so many at a time taken.
const TOGETHER: usize = if cfg!(loom) { 2 } else { 16 };

#[derive(Debug)]
pub(crate) struct Tray<T> {
    tasks: Mutex<Vec<T>>,
    /// 1 if there are some.
    is_laden: AtomicU32,
    /// 1 if a worker could have one at once.
    is_hungry: AtomicU32,
    /// How many were put here since somebody waited, or slept.
    row: AtomicU32,
}

/// What whoever put a task here is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Then {
    /// Nothing: somebody takes it.
    Nothing,
    /// Have it taken.
    Feed,
    /// The same, and more are likely to follow: whoever does it sees to what workers have said, too.
    FeedAndRead,
}

impl<T> Tray<T> {
    /// An empty one; workers are hungry.
    pub(crate) fn new() -> Self {
        Self {
            tasks: Mutex::new(Vec::new()),
            is_laden: AtomicU32::new(0),
            is_hungry: AtomicU32::new(1),
            row: AtomicU32::new(0),
        }
    }

    /// Puts a task here.
    pub(crate) fn put(&self, task: T) -> Then {
        let waiting = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.push(task);
            tasks.len()
        };
        self.is_laden.store(1, Ordering::Relaxed);
        let row = self.row.fetch_add(1, Ordering::Relaxed);
        // SYNC(handed-in): pairs with the fences in `is_well_fed` and `rest`. One of two comes first: either it is seen here that
        // somebody is hungry and that no row goes on, or there that something was put here.
        fence(Ordering::SeqCst);
        let is_row = row >= ROW && self.row.load(Ordering::Relaxed) > ROW;
        if self.is_hungry.load(Ordering::Relaxed) == 0 || (is_row && waiting < TOGETHER) {
            return Then::Nothing;
        }
        if row < FEW { Then::Feed } else { Then::FeedAndRead }
    }

    /// There is nothing here, or it was put here just now.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_laden.load(Ordering::Relaxed) == 0
    }

    /// Takes all that is here. `into` is empty, and its memory is used next.
    pub(crate) fn take(&self, into: &mut Vec<T>) {
        if !self.is_empty() {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            self.is_laden.store(0, Ordering::Relaxed);
            std::mem::swap(&mut *tasks, into);
        }
    }

    /// Notes whether a worker could have a task at once. `false`: there are some here, to be given to it.
    pub(crate) fn is_well_fed(&self, is_hungry: bool) -> bool {
        self.is_hungry.swap(u32::from(is_hungry), Ordering::Relaxed);
        // SYNC(handed-in): pairs with the fence in `put`.
        fence(Ordering::SeqCst);
        !is_hungry || self.is_empty()
    }

    /// Ends the row: somebody waits for a task, or goes to sleep. `false`: there is something here.
    pub(crate) fn rest(&self) -> bool {
        self.row.swap(0, Ordering::Relaxed);
        // SYNC(handed-in): pairs with the fence in `put`.
        fence(Ordering::SeqCst);
        self.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_taken_several_at_a_time_and_one_that_rests_at_once() {
        let tray = Tray::new();
        let told: Vec<Then> = (0..60)
            .map(|n| {
                let then = tray.put(n);
                if then != Then::Nothing {
                    tray.take(&mut Vec::new());
                }
                then
            })
            .collect();
        assert_eq!(told[..4], [Then::Feed; 4]);
        assert_eq!(told[4..32], [Then::FeedAndRead; 28]);
        let fed: Vec<usize> = (32..60).filter(|&n| told[n] != Then::Nothing).collect();
        assert_eq!(fed, [47], "sixteen together");
        assert!(!tray.rest());
        assert_eq!(tray.put(60), Then::Feed);
        let mut taken = Vec::new();
        tray.take(&mut taken);
        assert_eq!(taken, (48..61).collect::<Vec<_>>());
        assert!(tray.rest() && tray.is_well_fed(true) && tray.is_well_fed(false));
        assert_eq!(tray.put(61), Then::Nothing, "nobody is hungry");
        assert!(!tray.is_well_fed(true));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    /// A round of whoever drives, before it sleeps. `false`: there is more to do.
    fn round(tray: &Tray<u32>) -> bool {
        tray.take(&mut Vec::new());
        tray.is_well_fed(true) && tray.rest()
    }

    /// What is fed has a reply, and a reply wakes the driver for one more round: so nothing is left lying.
    #[test]
    fn no_task_is_left_lying_while_all_sleep() {
        // More interruptions than these take minutes and show nothing else.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let tray = loom::sync::Arc::new(Tray::new());
            let replies = loom::sync::Arc::new(AtomicU32::new(0));
            let driver = {
                let (tray, replies) = (tray.clone(), replies.clone());
                loom::thread::spawn(move || {
                    for _ in 0..2 {
                        let seen = replies.load(Ordering::Acquire);
                        if round(&tray) && replies.load(Ordering::Acquire) == seen {
                            return Some(seen);
                        }
                    }
                    None
                })
            };
            for task in 0..2 {
                if tray.put(task) != Then::Nothing {
                    tray.take(&mut Vec::new());
                    replies.fetch_add(1, Ordering::AcqRel);
                }
            }
            // It never slept, or a reply wakes it: then it sees what is there.
            let sleeps = driver.join().unwrap().is_some_and(|seen| seen == replies.load(Ordering::Acquire));
            if sleeps {
                assert!(tray.tasks.lock().unwrap().is_empty(), "a task is left lying");
            }
        });
    }
}
