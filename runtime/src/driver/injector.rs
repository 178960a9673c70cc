//! The injector: single tasks that were submitted and that have not been passed to the scheduler yet, so that a thread that
//! submits many does not wait for the scheduler's lock.
//!
//! The submitter of a task learns from [`Then`] whether it must pass the task on. It must if a worker could run the task
//! immediately, unless many tasks are submitted in a row and no thread waits for one. Then several are passed on together. No
//! task stays here forever: a thread that goes to sleep ends the row and looks here once more after that.

use crate::sync::{AtomicU32, Mutex, Ordering, fence, ignore_poison};

/// After this many tasks in a row, more are likely to follow.
const FEW: u32 = if cfg!(loom) { 0 } else { 4 };
/// After this many tasks in a row, ...
const ROW: u32 = if cfg!(loom) { 1 } else { 32 };
/// ... this many are passed on at a time.
const TOGETHER: usize = if cfg!(loom) { 2 } else { 16 };

#[derive(Debug)]
pub(crate) struct Injector<T> {
    tasks: Mutex<Vec<T>>,
    /// 1 if there are tasks here.
    has_tasks: AtomicU32,
    /// 1 if a worker could run a task immediately.
    wants_tasks: AtomicU32,
    /// The number of tasks in the current row: those submitted since a thread last waited for a task or went to sleep.
    row: AtomicU32,
}

/// The next step of the submitter of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Then {
    /// Nothing: another thread passes the task on.
    Nothing,
    /// Pass the task on.
    Feed,
    /// Pass the task on, and also handle what workers have reported, because more tasks are likely to follow.
    FeedAndRead,
}

impl<T> Injector<T> {
    /// Creates an empty injector. A worker could run a task.
    pub(crate) fn new() -> Self {
        Self {
            tasks: Mutex::new(Vec::new()),
            has_tasks: AtomicU32::new(0),
            wants_tasks: AtomicU32::new(1),
            row: AtomicU32::new(0),
        }
    }

    /// Adds a task. Returns what the caller must do.
    pub(crate) fn put(&self, task: T) -> Then {
        let waiting = {
            let mut tasks = ignore_poison(self.tasks.lock());
            tasks.push(task);
            tasks.len()
        };
        self.has_tasks.store(1, Ordering::Relaxed);
        let row = self.row.fetch_add(1, Ordering::Relaxed);
        // SYNC(handed-in): pairs with the fences in `note_demand` and `rest`. One of the two fences comes first. Either this
        // thread sees that a worker wants tasks and that the row has ended, or the other thread sees that a task was added.
        fence(Ordering::SeqCst);
        let is_row = row >= ROW && self.row.load(Ordering::Relaxed) > ROW;
        if self.wants_tasks.load(Ordering::Relaxed) == 0 || (is_row && waiting < TOGETHER) {
            return Then::Nothing;
        }
        if row < FEW { Then::Feed } else { Then::FeedAndRead }
    }

    /// Returns whether there is nothing here. It may miss a task that is being added.
    pub(crate) fn is_empty(&self) -> bool {
        self.has_tasks.load(Ordering::Relaxed) == 0
    }

    /// Moves all tasks into `into`, which must be empty and whose memory is used for the next tasks.
    pub(crate) fn take(&self, into: &mut Vec<T>) {
        if !self.is_empty() {
            let mut tasks = ignore_poison(self.tasks.lock());
            self.has_tasks.store(0, Ordering::Relaxed);
            std::mem::swap(&mut *tasks, into);
        }
    }

    /// Notes whether a worker could run a task immediately. Returns `false` if it could and there are tasks here.
    pub(crate) fn note_demand(&self, wants_tasks: bool) -> bool {
        self.wants_tasks.swap(u32::from(wants_tasks), Ordering::Relaxed);
        // SYNC(handed-in): pairs with the fence in `put`.
        fence(Ordering::SeqCst);
        !wants_tasks || self.is_empty()
    }

    /// Ends the row, because a thread waits for a task or goes to sleep. Returns `false` if there are tasks here.
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
        let injector = Injector::new();
        let told: Vec<Then> = (0..60)
            .map(|n| {
                let then = injector.put(n);
                if then != Then::Nothing {
                    injector.take(&mut Vec::new());
                }
                then
            })
            .collect();
        assert_eq!(told[..4], [Then::Feed; 4]);
        assert_eq!(told[4..32], [Then::FeedAndRead; 28]);
        let fed: Vec<usize> = (32..60).filter(|&n| told[n] != Then::Nothing).collect();
        assert_eq!(fed, [47], "sixteen together");
        assert!(!injector.rest());
        assert_eq!(injector.put(60), Then::Feed);
        let mut taken = Vec::new();
        injector.take(&mut taken);
        assert_eq!(taken, (48..61).collect::<Vec<_>>());
        assert!(injector.rest() && injector.note_demand(true) && injector.note_demand(false));
        assert_eq!(injector.put(61), Then::Nothing, "no worker wants tasks");
        assert!(!injector.note_demand(true));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    /// One round of the leader before it sleeps. Returns `false` if there is more to do.
    fn round(injector: &Injector<u32>) -> bool {
        injector.take(&mut Vec::new());
        injector.note_demand(true) && injector.rest()
    }

    /// A task that is passed on gets a reply, and a reply wakes the leader for one more round, so no task stays behind.
    #[test]
    fn no_task_is_left_lying_while_all_sleep() {
        // More preemptions take minutes and find nothing else.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let injector = loom::sync::Arc::new(Injector::new());
            let replies = loom::sync::Arc::new(AtomicU32::new(0));
            let driver = {
                let (injector, replies) = (injector.clone(), replies.clone());
                loom::thread::spawn(move || {
                    for _ in 0..2 {
                        let seen = replies.load(Ordering::Acquire);
                        if round(&injector) && replies.load(Ordering::Acquire) == seen {
                            return Some(seen);
                        }
                    }
                    None
                })
            };
            for task in 0..2 {
                if injector.put(task) != Then::Nothing {
                    injector.take(&mut Vec::new());
                    replies.fetch_add(1, Ordering::AcqRel);
                }
            }
            // If the leader never slept, or a reply wakes it, it sees what is there.
            let sleeps = driver.join().unwrap().is_some_and(|seen| seen == replies.load(Ordering::Acquire));
            if sleeps {
                assert!(injector.tasks.lock().unwrap().is_empty(), "a task is left lying");
            }
        });
    }
}
