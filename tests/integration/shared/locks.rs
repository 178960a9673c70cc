//! Locks and other types by which tasks wait for each other.

use std::{sync::atomic::Ordering, time::Duration};

use procession::{
    OwnerDied, Pool, Process, RemoteError, Shared, SharedAtomicBool, SharedAtomicI64, SharedAtomicU64,
    SharedAtomicUsize, SharedBarrier, SharedCondvar, SharedEvent, SharedMutex, SharedRwLock, SharedSemaphore,
    delayed, parallel, worker,
};
use serde::{Deserialize, Serialize};

use crate::alone::alone;

/// How often each task changes something.
const TIMES: u64 = 500;

/// What the tasks of a test change together.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    owner: String,
    balance: SharedMutex<[u64; 2]>,
    payments: SharedAtomicU64,
}

impl Account {
    fn new() -> Self {
        let balance = SharedMutex::new([0; 2]).unwrap();
        Self { owner: "a".to_owned(), balance, payments: SharedAtomicU64::new(0).unwrap() }
    }

    fn has(&self, payments: u64) {
        assert_eq!(*self.balance.lock().unwrap(), [payments; 2]);
        assert_eq!(self.payments.load(Ordering::Relaxed), payments);
    }
}

#[worker]
fn pay(account: &Account) -> Result<(), RemoteError> {
    assert_eq!(account.owner, "a");
    for _ in 0..TIMES {
        let mut both = account.balance.lock()?;
        both[0] += 1;
        // Another one that had the lock now would see that they differ.
        assert_eq!(both[0], both[1] + 1);
        both[1] += 1;
        drop(both);
        account.payments.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[worker]
fn open(owner: &str) -> Result<(Account, SharedEvent), RemoteError> {
    let account = Account { owner: owner.to_owned(), ..Account::new() };
    Ok((account, SharedEvent::new()?))
}

#[worker]
fn pay_by_others(account: Account, tasks: usize) -> Result<(), RemoteError> {
    let pool = Pool::new(2)?;
    parallel!(pool = &pool; pay(&account)? for _ in 0..tasks)?;
    Ok(())
}

#[test]
fn tasks_exclude_each_other_wherever_they_run() {
    alone(|| {
        let (pool, account) = (Pool::new(3).unwrap(), Account::new());
        parallel!(pool = &pool; pay(&account)? for _ in 0..6).unwrap();
        account.has(6 * TIMES);
        delayed!(pay(&account)).call().unwrap().unwrap();
        Process::spawn(delayed!(pay(&account))).unwrap().join().unwrap().unwrap();
        Pool::in_process().submit(delayed!(pay(&account))).join().unwrap().unwrap();
        pay(&account).unwrap();
        account.has(10 * TIMES);
    });
}

#[test]
fn a_lock_within_a_shared_value_is_the_same_lock() {
    alone(|| {
        let (pool, account) = (Pool::new(2).unwrap(), Account::new());
        let shared = Shared::new(&account).unwrap();
        parallel!(pool = &pool; pay(&shared)? for _ in 0..4).unwrap();
        pay(&shared).unwrap();
        account.has(5 * TIMES);
        drop(account);
        parallel!(pool = &pool; pay(&shared)? for _ in 0..1).unwrap();
        shared.has(6 * TIMES);
    });
}

#[test]
fn a_worker_hands_a_lock_on_to_workers_of_its_own() {
    alone(|| {
        let (pool, account) = (Pool::new(1).unwrap(), Account::new());
        pool.submit(delayed!(pay_by_others(account.clone(), 3))).join().unwrap().unwrap();
        account.has(3 * TIMES);
    });
}

#[worker]
fn change(prices: &SharedRwLock<[u64; 2]>) -> Result<(), RemoteError> {
    for round in 0..TIMES {
        if round % 8 == 0 {
            let mut both = prices.write()?;
            both[0] += 1;
            both[1] += 1;
        } else {
            let both = prices.read()?;
            assert_eq!(both[0], both[1]);
        }
    }
    Ok(())
}

#[test]
fn readers_see_what_a_writer_has_written_and_nothing_half_done() {
    alone(|| {
        let (pool, prices) = (Pool::new(3).unwrap(), SharedRwLock::new([0; 2]).unwrap());
        let handles: Vec<_> = (0..6).map(|_| pool.submit(delayed!(change(&prices)))).collect();
        change(&prices).unwrap();
        handles.into_iter().for_each(|handle| handle.join().unwrap().unwrap());
        assert_eq!(*prices.read().unwrap(), [7 * TIMES.div_ceil(8); 2]);
    });
}

#[worker]
fn connect(connections: &SharedSemaphore, open: &SharedAtomicUsize, too_many: &SharedAtomicBool) {
    for _ in 0..TIMES {
        let _connection = connections.acquire();
        too_many.fetch_or(open.fetch_add(1, Ordering::SeqCst) >= 2, Ordering::SeqCst);
        open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn as_many_tasks_have_a_permit_as_there_are_and_no_more() {
    alone(|| {
        let pool = Pool::new(4).unwrap();
        let connections = SharedSemaphore::new(2).unwrap();
        let (open, too_many) = (SharedAtomicUsize::new(0).unwrap(), SharedAtomicBool::new(false).unwrap());
        parallel!(pool = &pool; connect(&connections, &open, &too_many) for _ in 0..8).unwrap();
        assert!(!too_many.load(Ordering::SeqCst));
        assert_eq!(connections.available_permits(), 2);
        assert!(SharedSemaphore::new(0).is_err() && SharedSemaphore::new(1 << 20).is_err());
    });
}

#[worker]
fn panic_with(total: &SharedMutex<u64>) {
    let _held = total.lock();
    panic!("a task that holds a lock");
}

#[test]
fn a_panic_frees_the_lock_and_nobody_is_told() {
    alone(|| {
        let (pool, total) = (Pool::new(1).unwrap(), SharedMutex::new(1).unwrap());
        assert!(pool.submit(delayed!(panic_with(&total))).join().unwrap_err().is_panic());
        assert_eq!(*total.lock().unwrap(), 1);
    });
}

#[test]
fn whoever_does_not_wait_long_is_turned_away() {
    alone(|| {
        let short = Duration::from_millis(2);
        let mutex = SharedMutex::new(0_u8).unwrap();
        let held = mutex.lock().unwrap();
        assert!(mutex.try_lock().is_none() && mutex.lock_timeout(short).is_none());
        drop(held);
        assert!(mutex.try_lock().is_some() && mutex.lock_timeout(short).is_some());

        let lock = SharedRwLock::new(0_u8).unwrap();
        let reads = (lock.read().unwrap(), lock.try_read().unwrap().unwrap());
        assert!(lock.try_write().is_none() && lock.write_timeout(short).is_none());
        assert!(lock.read_timeout(short).is_some(), "those that gave up keep nobody out");
        drop(reads);
        let writes = lock.write().unwrap();
        assert!(lock.try_read().is_none() && lock.read_timeout(short).is_none());
        assert!(lock.try_write().is_none());
        drop(writes);

        let semaphore = SharedSemaphore::new(1).unwrap();
        let permit = semaphore.acquire();
        assert!(semaphore.try_acquire().is_none() && semaphore.acquire_timeout(short).is_none());
        drop(permit);
        assert!(semaphore.try_acquire().is_some());

        let barrier = SharedBarrier::new(2).unwrap();
        assert!(barrier.wait_timeout(short).is_none());
        assert!(barrier.wait_timeout(short).is_none(), "the first one does not count any more");
        assert!(!SharedEvent::new().unwrap().wait_timeout(short));
        let (_guard, waited) =
            SharedCondvar::new().unwrap().wait_timeout(mutex.lock().unwrap(), short).unwrap();
        assert!(waited.timed_out());
    });
}

/// Each error converts, as it does in functions of users.
fn add(total: &SharedMutex<u64>) -> procession::Result<()> {
    *total.lock()? += 1;
    Ok(())
}

fn add_otherwise(total: &SharedMutex<u64>) -> Result<(), Box<dyn std::error::Error>> {
    *total.lock()? += 1;
    *total.lock().unwrap_or_else(OwnerDied::into_inner) += 1;
    Ok(())
}

#[test]
fn a_lock_is_taken_in_functions_with_errors_of_each_kind() {
    alone(|| {
        let total = SharedMutex::new(0).unwrap();
        add(&total).unwrap();
        add_otherwise(&total).unwrap();
        assert_eq!(*total.lock().unwrap(), 3);
    });
}

#[worker]
fn count_down(left: SharedAtomicI64, done: SharedEvent) {
    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
        done.set();
    }
}

#[test]
fn an_event_that_a_task_sets_ends_a_wait() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (left, done) = (SharedAtomicI64::new(5).unwrap(), SharedEvent::new().unwrap());
        let handles: Vec<_> =
            (0..5).map(|_| pool.submit(delayed!(count_down(left.clone(), done.clone())))).collect();
        done.wait();
        assert!(done.is_set() && done.wait_timeout(Duration::ZERO));
        done.clear();
        assert!(!done.is_set());
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

#[worker]
fn meet(barrier: &SharedBarrier, rounds: &SharedAtomicUsize) -> Result<usize, RemoteError> {
    let mut led = 0;
    for round in 0..20 {
        rounds.fetch_add(1, Ordering::Relaxed);
        led += usize::from(barrier.wait()?.is_leader());
        assert!(rounds.load(Ordering::Relaxed) >= 3 * (round + 1), "the others have not come");
    }
    Ok(led)
}

#[worker]
fn produce(items: &SharedMutex<u64>, more: &SharedCondvar) -> Result<(), RemoteError> {
    for _ in 0..TIMES {
        *items.lock()? += 1;
        more.notify_one();
    }
    Ok(())
}

#[worker]
fn consume(items: &SharedMutex<u64>, more: &SharedCondvar) -> Result<(), RemoteError> {
    for _ in 0..TIMES {
        let mut items = more.wait_while(items.lock()?, |items| *items == 0)?;
        *items -= 1;
    }
    Ok(())
}

#[test]
fn tasks_wait_for_each_other_at_a_barrier_and_for_a_condition() {
    alone(|| {
        let pool = Pool::new(4).unwrap();
        let (barrier, rounds) = (SharedBarrier::new(3).unwrap(), SharedAtomicUsize::new(0).unwrap());
        let handles: Vec<_> = (0..2).map(|_| pool.submit(delayed!(meet(&barrier, &rounds)))).collect();
        let mut led = meet(&barrier, &rounds).unwrap();
        led += handles.into_iter().map(|handle| handle.join().unwrap().unwrap()).sum::<usize>();
        assert_eq!(led, 20, "one leads in each round");

        let (items, more) = (SharedMutex::new(0).unwrap(), SharedCondvar::new().unwrap());
        let consumers: Vec<_> = (0..2).map(|_| pool.submit(delayed!(consume(&items, &more)))).collect();
        let producers: Vec<_> = (0..2).map(|_| pool.submit(delayed!(produce(&items, &more)))).collect();
        producers.into_iter().chain(consumers).for_each(|handle| handle.join().unwrap().unwrap());
        assert_eq!(*items.lock().unwrap(), 0);
    });
}

#[test]
fn workers_that_end_in_peace_break_nothing() {
    alone(|| {
        let pool = Pool::builder().jobs(2).max_tasks_per_worker(1).build().unwrap();
        let (barrier, rounds) = (SharedBarrier::new(3).unwrap(), SharedAtomicUsize::new(0).unwrap());
        for _ in 0..3 {
            rounds.store(0, Ordering::Relaxed);
            let handles: Vec<_> = (0..2).map(|_| pool.submit(delayed!(meet(&barrier, &rounds)))).collect();
            meet(&barrier, &rounds).unwrap();
            handles.into_iter().for_each(|handle| _ = handle.join().unwrap().unwrap());
        }
        drop(pool);
        assert!(barrier.wait_timeout(Duration::ZERO).is_none(), "it is whole");
    });
}

#[test]
fn what_a_task_returns_is_what_others_change() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (account, event) = pool.submit(delayed!(open("a"))).join().unwrap().unwrap();
        parallel!(pool = &pool; pay(&account)? for _ in 0..4).unwrap();
        account.has(4 * TIMES);
        event.set();
        assert!(event.is_set());
        let (account, _) = Process::spawn(delayed!(open("a"))).unwrap().join().unwrap().unwrap();
        parallel!(pool = &pool; pay(&account)? for _ in 0..2).unwrap();
        account.has(2 * TIMES);
    });
}

#[worker]
fn many_locks(count: u64) -> Vec<SharedMutex<u64>> {
    (0..count).map(|n| SharedMutex::new(n).expect("there is memory")).collect()
}

#[test]
fn a_result_with_too_many_locks_is_an_error_that_says_how_many_there_may_be() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let locks = pool.submit(delayed!(many_locks(100))).join().unwrap();
        assert_eq!(*locks[99].lock().unwrap(), 99);
        if std::env::var_os("PROCESSION_IN_PROCESS").is_none() {
            let error = pool.submit(delayed!(many_locks(101))).join().unwrap_err().to_string();
            assert!(error.contains("101 shared objects") && error.contains("can name 100"), "{error}");
        }
    });
}
