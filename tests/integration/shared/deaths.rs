//! Processes that die while they hold what others want.

use std::{path::Path, time::Duration};

use procession::{
    Pool, Process, RemoteError, SharedBarrier, SharedCondvar, SharedEvent, SharedMutex, SharedRwLock,
    SharedSemaphore, StartMethod, delayed, worker,
};
use serde::{Deserialize, Serialize};

use crate::{
    alone::alone,
    end::End,
    event::{until, until_exists},
    scratch::Folder,
};

/// Longer than anything here takes, however busy the machine is.
pub(super) const LONG: Duration = Duration::from_secs(30);

#[worker]
fn die_with(total: &SharedMutex<u64>, end: End, locked: &SharedEvent) {
    let mut total = total.lock();
    if let Ok(total) = &mut total {
        **total += 1;
    }
    locked.set();
    end.strike();
}

#[worker]
fn lock_and_tell(total: &SharedMutex<u64>) -> Result<bool, RemoteError> {
    Ok(total.lock_timeout(LONG).ok_or("the lock is never free")?.is_err())
}

#[test]
fn the_next_holder_is_told_that_the_last_one_has_died_and_no_other_is() {
    alone(|| {
        let pool = Pool::new(3).unwrap();
        let (total, locked) = (SharedMutex::new(0).unwrap(), SharedEvent::new().unwrap());
        for (round, end) in [End::Kill, End::Segfault, End::Exit].into_iter().enumerate() {
            locked.clear();
            let dying = pool.submit(delayed!(die_with(&total, end, &locked)));
            locked.wait();
            let others: Vec<_> = (0..4).map(|_| pool.submit(delayed!(lock_and_tell(&total)))).collect();
            let told = usize::from(total.lock_timeout(LONG).unwrap().is_err());
            let told =
                others.into_iter().map(|other| usize::from(other.join().unwrap().unwrap())).sum::<usize>()
                    + told;
            assert_eq!(told, 1, "{end:?}");
            assert!(dying.join().unwrap_err().is_crash());
            assert_eq!(*total.lock().unwrap(), round as u64 + 1, "what it wrote stays");
        }
    });
}

#[worker]
pub(super) fn hold(total: &SharedMutex<u64>, begun: &Path) {
    let _held = total.lock();
    std::fs::write(begun, "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_task_that_is_stopped_or_a_process_that_is_killed_holds_nothing_any_more() {
    alone(|| {
        let folder = Folder::new();
        let total = SharedMutex::new(0).unwrap();
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(hold(&total, &folder.path("a"))));
        until_exists(&folder.path("a"));
        assert!(total.try_lock().is_none());
        handle.cancel();
        assert!(total.lock_timeout(LONG).unwrap().is_err());

        let mut process = Process::spawn(delayed!(hold(&total, &folder.path("b")))).unwrap();
        until_exists(&folder.path("b"));
        process.kill().unwrap();
        assert!(total.lock_timeout(LONG).unwrap().is_err());
        process.join().unwrap_err();

        // It is killed and reaped by the end of the pool.
        let _handle = pool.submit(delayed!(hold(&total, &folder.path("c"))));
        until_exists(&folder.path("c"));
        drop(pool);
        assert!(total.try_lock().unwrap().is_err());
        assert!(total.lock().is_ok());
    });
}

#[worker]
fn hold_in_inner_pool(total: SharedMutex<u64>, begun: &Path) -> Result<(), RemoteError> {
    let pool = Pool::new(1)?;
    pool.submit(delayed!(hold(&total, begun))).join()?;
    Ok(())
}

#[test]
fn what_no_process_of_ours_reaps_is_found_by_those_that_wait() {
    alone(|| {
        let folder = Folder::new();
        let total = SharedMutex::new(0).unwrap();
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(hold_in_inner_pool(total.clone(), &folder.path("begun"))));
        until_exists(&folder.path("begun"));
        // The pool that would reap the holder dies with its process.
        handle.cancel();
        assert!(total.lock_timeout(LONG).unwrap().is_err());
    });
}

#[worker]
fn die_reading_or_writing(prices: &SharedRwLock<u64>, writes: bool, permits: &SharedSemaphore) {
    let _permit = permits.acquire();
    let held = (!writes).then(|| prices.read());
    if writes && let Ok(mut prices) = prices.write() {
        *prices += 1;
        End::Kill.strike();
    }
    let _ = held.map(std::mem::forget);
    End::Kill.strike();
}

#[test]
fn readers_that_die_keep_no_writer_out_and_a_writer_that_dies_is_told_of() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (prices, permits) = (SharedRwLock::new(0_u64).unwrap(), SharedSemaphore::new(1).unwrap());
        for _ in 0..3 {
            pool.submit(delayed!(die_reading_or_writing(&prices, false, &permits))).join().unwrap_err();
        }
        assert!(prices.write_timeout(LONG).unwrap().is_ok());
        pool.submit(delayed!(die_reading_or_writing(&prices, true, &permits))).join().unwrap_err();
        assert!(prices.read_timeout(LONG).unwrap().is_err());
        assert_eq!(*prices.read().unwrap(), 1);
        assert_eq!(permits.available_permits(), 1);
    });
}

#[worker]
fn take_all(permits: &SharedSemaphore, begun: &Path) {
    let _permits = [permits.acquire(), permits.acquire(), permits.acquire()];
    std::fs::write(begun, "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn the_permits_of_a_process_that_dies_are_given_to_those_that_wait() {
    alone(|| {
        let folder = Folder::new();
        let permits = SharedSemaphore::new(3).unwrap();
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(take_all(&permits, &folder.path("begun"))));
        until_exists(&folder.path("begun"));
        assert!(permits.try_acquire().is_none());
        handle.cancel();
        let got = [permits.acquire(), permits.acquire(), permits.acquire()];
        assert_eq!(permits.available_permits(), 0);
        drop(got);
        assert_eq!(permits.available_permits(), 3);
    });
}

#[worker]
fn meet_once(barrier: &SharedBarrier) -> Result<bool, RemoteError> {
    Ok(barrier.wait().is_ok())
}

#[worker]
fn die_at(_barrier: &SharedBarrier, begun: &Path) {
    until_exists(begun);
    End::Kill.strike();
}

#[test]
fn a_barrier_of_which_a_participant_dies_breaks_for_all() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(3).unwrap();
        let barrier = SharedBarrier::new(4).unwrap();
        let waiting: Vec<_> = (0..2).map(|_| pool.submit(delayed!(meet_once(&barrier)))).collect();
        let dying = pool.submit(delayed!(die_at(&barrier, &folder.path("go"))));
        std::fs::write(folder.path("go"), "").unwrap();
        assert!(barrier.wait().is_err());
        for handle in waiting {
            assert!(!handle.join().unwrap().unwrap());
        }
        assert!(dying.join().unwrap_err().is_crash());
        let error = procession::Error::from(barrier.wait().unwrap_err());
        assert!(error.to_string().contains("the barrier is broken"), "{error}");
    });
}

#[worker]
fn wait_for(items: &SharedMutex<u64>, more: &SharedCondvar) -> Result<(), RemoteError> {
    *items.lock()? += 1;
    let _items = more.wait_while(items.lock()?, |items| *items < 100)?;
    Ok(())
}

#[test]
fn a_process_that_dies_waiting_for_a_condition_takes_no_notification_with_it() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (items, more) = (SharedMutex::new(0).unwrap(), SharedCondvar::new().unwrap());
        let first = pool.submit(delayed!(wait_for(&items, &more)));
        until("it waits", || *items.lock().unwrap() == 1);
        let second = pool.submit(delayed!(wait_for(&items, &more)));
        until("both wait", || *items.lock().unwrap() == 2);
        first.cancel();
        *items.lock().unwrap() = 100;
        more.notify_one();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn locks_work_by_each_start_method() {
    alone(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let pool = Pool::builder().jobs(2).start_method(method).build().unwrap();
            let (total, locked) = (SharedMutex::new(0).unwrap(), SharedEvent::new().unwrap());
            let dying = pool.submit(delayed!(die_with(&total, End::Kill, &locked)));
            assert!(pool.submit(delayed!(lock_after(&total, &locked))).join().unwrap());
            assert!(dying.join().unwrap_err().is_crash());
        }
    });
}

#[worker]
fn lock_after(total: &SharedMutex<u64>, locked: &SharedEvent) -> bool {
    locked.wait();
    total.lock().is_err()
}

/// What a worker makes and returns.
#[derive(Serialize, Deserialize)]
struct Made {
    total: SharedMutex<u64>,
    prices: SharedRwLock<u64>,
    permits: SharedSemaphore,
}

/// Keeps a handle of what it returns, and holds all of it.
#[worker]
fn make_and_hold() -> Result<Made, RemoteError> {
    let made = Made {
        total: SharedMutex::new(0)?,
        prices: SharedRwLock::new(0)?,
        permits: SharedSemaphore::new(1)?,
    };
    let kept: &Made = Box::leak(Box::new(Made {
        total: made.total.clone(),
        prices: made.prices.clone(),
        permits: made.permits.clone(),
    }));
    std::mem::forget((kept.total.lock()?, kept.prices.read()?, kept.permits.acquire()));
    Ok(made)
}

#[worker]
fn die() {
    End::Kill.strike();
}

#[test]
fn what_a_worker_has_made_and_returned_is_repaired_when_it_is_reaped() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let made = pool.submit(delayed!(make_and_hold())).join().unwrap().unwrap();
        assert!(made.total.try_lock().is_none() && made.prices.try_write().is_none());
        pool.submit(delayed!(die())).join().unwrap_err();
        // Nothing here waits, so nothing here looks whether the holder lives.
        assert!(made.total.try_lock().unwrap().is_err());
        assert!(made.prices.try_write().unwrap().is_ok());
        assert_eq!(made.permits.available_permits(), 1);
    });
}
