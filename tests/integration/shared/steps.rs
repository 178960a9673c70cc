//! Processes that die at each step of being handed what is shared, of handing it back, and of forgetting it.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use procession::{
    Pool, RemoteError, Sender, Shared, SharedMutex, SharedSlice, channel, delayed, is_worker, worker,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::deaths::{LONG, hold};
use crate::{
    alone::alone,
    end::End,
    event::until_exists,
    scratch::{Folder, is_first},
};

/// A worker that has a pool of its own.
static INNER_HOST: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    Encoded,
    Decoded,
    Dropped,
}

/// Kills a process at one step of its life, once: the worker that has it, or the worker that has a pool of its own.
#[derive(Debug)]
struct Fuse {
    step: Step,
    of_host: bool,
    mark: PathBuf,
}

impl Fuse {
    fn burn(&self, step: Step) {
        let is_host = INNER_HOST.load(Ordering::Relaxed) == std::process::id();
        if is_worker() && is_host == self.of_host && step == self.step && is_first(&self.mark) {
            End::Kill.strike();
        }
    }
}

impl Serialize for Fuse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.burn(Step::Encoded);
        (self.step, self.of_host, &self.mark).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (step, of_host, mark) = Deserialize::deserialize(deserializer)?;
        let this = Self { step, of_host, mark };
        this.burn(Step::Decoded);
        Ok(this)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.burn(Step::Dropped);
    }
}

/// Handles of each sort, with a place for a fuse before, between and behind them.
#[derive(Debug, Serialize, Deserialize)]
struct Bundle {
    before: Option<Fuse>,
    total: SharedMutex<u64>,
    between: Option<Fuse>,
    numbers: SharedSlice<u64>,
    to: Sender<u64>,
    behind: Option<Fuse>,
}

impl Bundle {
    fn set(&mut self, place: usize, fuse: Fuse) {
        *[&mut self.before, &mut self.between, &mut self.behind][place] = Some(fuse);
    }
}

#[worker]
fn add_up(bundle: Bundle) -> Result<Bundle, RemoteError> {
    *bundle.total.lock()? += bundle.numbers.iter().sum::<u64>();
    Ok(bundle)
}

#[test]
fn a_process_that_dies_at_any_step_of_a_hand_over_keeps_nothing_and_its_task_is_done_by_another() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        for step in [Step::Decoded, Step::Encoded, Step::Dropped] {
            for place in 0..3 {
                let mark = folder.path(&format!("{step:?}{place}"));
                let total = SharedMutex::new(0).unwrap();
                let (to, from) = channel(4).unwrap();
                let numbers = SharedSlice::from_slice(&[1, 2, 3]).unwrap();
                let mut bundle =
                    Bundle { before: None, total: total.clone(), between: None, numbers, to, behind: None };
                bundle.set(place, Fuse { step, of_host: false, mark: mark.clone() });
                let back = pool.submit(delayed!(add_up(bundle))).join().unwrap().unwrap();
                assert!(mark.exists(), "{step:?} {place}: nothing has died");
                let runs = if step == Step::Decoded { 1 } else { 2 };
                assert_eq!(*total.try_lock().unwrap().unwrap(), 6 * runs, "{step:?} {place}");
                assert_eq!(*back.numbers, [1, 2, 3]);
                drop(back);
                // The sender that has died is gone, too. The one that lives may not have dropped its handle yet.
                assert!(from.recv_timeout(LONG).unwrap_err().is_disconnected(), "{step:?} {place}");
            }
        }
    });
}

#[worker]
fn read(shared: &Shared<(Option<Fuse>, SharedMutex<u64>, Option<Fuse>)>) -> Result<u64, RemoteError> {
    Ok(*shared.1.lock()?)
}

#[worker]
fn add_one(total: &SharedMutex<u64>) -> Result<(), RemoteError> {
    *total.lock()? += 1;
    Ok(())
}

#[test]
fn a_worker_that_dies_while_it_forgets_is_replaced_and_no_task_is_lost() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        for is_first in [true, false] {
            let mark = folder.path(&format!("forgot-{is_first}"));
            let total = SharedMutex::new(5).unwrap();
            let fuse = |wanted| {
                let fuse = Fuse { step: Step::Dropped, of_host: false, mark: mark.clone() };
                (is_first == wanted).then_some(fuse)
            };
            let shared = Shared::new(&(fuse(true), total.clone(), fuse(false))).unwrap();
            assert_eq!(pool.submit(delayed!(read(&shared))).join().unwrap().unwrap(), 5);
            drop(shared);
            until_exists(&mark);
            pool.submit(delayed!(add_one(&total))).join().unwrap().unwrap();
            assert_eq!(*total.try_lock().unwrap().unwrap(), 6);
        }
    });
}

/// Has a worker of its own hold the lock, and dies while it hands out a bundle or drops what is shared.
#[worker]
fn die_as_host(mut bundle: Bundle, place: usize, fuse: Fuse, begun: &Path) -> Result<(), RemoteError> {
    INNER_HOST.store(std::process::id(), Ordering::Relaxed);
    let pool = Pool::new(2)?;
    let _holding = pool.submit(delayed!(hold(&bundle.total, begun)));
    until_exists(begun);
    if fuse.step == Step::Dropped {
        let shared = Shared::new(&(Some(fuse), SharedMutex::new(1)?, None))?;
        pool.submit(delayed!(read(&shared))).join()??;
    } else {
        bundle.set(place, fuse);
        pool.submit(delayed!(add_up(bundle))).join()??;
    }
    Ok(())
}

#[test]
fn a_host_that_dies_while_it_hands_out_or_forgets_leaves_no_worker_and_no_lock() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        for (step, place) in [(Step::Encoded, 0), (Step::Encoded, 1), (Step::Encoded, 2), (Step::Dropped, 0)]
        {
            let name = format!("{step:?}{place}");
            let (mark, begun) = (folder.path(&name), folder.path(&format!("{name}-begun")));
            let total = SharedMutex::new(0).unwrap();
            let (to, from) = channel(4).unwrap();
            let numbers = SharedSlice::from_slice(&[1, 2, 3]).unwrap();
            let bundle =
                Bundle { before: None, total: total.clone(), between: None, numbers, to, behind: None };
            let fuse = Fuse { step, of_host: true, mark: mark.clone() };
            let dying = pool.submit(delayed!(die_as_host(bundle, place, fuse, &begun)));
            assert!(dying.join().unwrap_err().is_crash(), "{name}");
            assert!(mark.exists());
            assert!(total.lock_timeout(LONG).unwrap().is_err(), "{name}: its worker had the lock");
            assert!(from.recv_timeout(LONG).unwrap_err().is_disconnected(), "{name}");
        }
    });
}
