//! Handles: joined in any order, by any thread, or awaited.

use std::time::{Duration, Instant};

use procession::{Pool, delayed};

use super::{begin_and_wait, echo, initialize::note_pid, strike, wait_for};
use crate::{
    alone::alone,
    end::End,
    event::{block_on, until, until_exists},
    scratch::{Folder, numbers},
};

#[test]
fn threads_submit_side_by_side() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let pool = &pool;
                scope.spawn(move || {
                    let numbers = thread * 1000..thread * 1000 + 200;
                    let handles: Vec<_> = numbers.clone().map(|n| pool.submit(delayed!(echo(n)))).collect();
                    assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(numbers));
                });
            }
        });
    });
}

#[test]
fn handles_may_be_joined_in_any_order_and_by_other_threads() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let handles: Vec<_> = (0..100).map(|n| pool.submit(delayed!(echo(n)))).collect();
        let back: Vec<u64> = handles.into_iter().rev().map(|handle| handle.join().unwrap()).collect();
        assert!(back.into_iter().eq((0..100).rev()));
        let handles: Vec<_> = (0..50).map(|n| pool.submit(delayed!(echo(n)))).collect();
        std::thread::scope(|scope| {
            for (n, handle) in (0..).zip(handles) {
                scope.spawn(move || assert_eq!(handle.join().unwrap(), n));
            }
        });
    });
}

#[test]
fn handles_are_futures_that_complete_on_any_executor() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for n in 0..200 {
            assert_eq!(block_on(pool.submit(delayed!(echo(n)))).unwrap(), n);
        }
        let handles: Vec<_> = (0..200).map(|n| pool.submit(delayed!(echo(n)))).collect();
        let all = block_on(async move {
            let mut all = Vec::new();
            for handle in handles {
                all.push(handle.await.unwrap());
            }
            all
        });
        assert!(all.into_iter().eq(0..200));
        let error = block_on(pool.submit(delayed!(strike(End::Segfault)))).unwrap_err();
        assert!(error.is_crash());
    });
}

#[test]
fn futures_and_waiting_threads_share_a_pool() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for n in 0..100 {
                        let handle = pool.submit(delayed!(echo(n)));
                        let result = if thread % 2 == 0 { block_on(handle) } else { handle.join() };
                        assert_eq!(result.unwrap(), n);
                    }
                });
            }
        });
    });
}

#[test]
fn join_timeout_may_be_called_again_after_it_has_expired() {
    alone(|| {
        let there = Folder::new();
        let go = there.path("go");
        let pool = Pool::new(1).unwrap();
        let mut handle = pool.submit(delayed!(wait_for(&go)));
        for millis in [0, 1, 30] {
            let (start, timeout) = (Instant::now(), Duration::from_millis(millis));
            assert!(handle.join_timeout(timeout).is_none());
            assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
        }
        assert!(!handle.is_finished());
        std::fs::write(&go, "").unwrap();
        assert_eq!(handle.join_timeout(Duration::MAX).unwrap().unwrap(), 1);
    });
}

#[test]
fn a_handle_becomes_finished_even_if_no_thread_waits() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let handle = pool.submit(delayed!(echo(5)));
        until("it is finished", || handle.is_finished());
        assert_eq!(handle.join().unwrap(), 5);
        let handle = pool.submit(delayed!(strike(End::Kill)));
        until("its end is noticed", || handle.is_finished());
        assert!(handle.join().unwrap_err().is_crash());
    });
}

#[test]
fn dropping_a_handle_cancels_nothing() {
    alone(|| {
        let there = Folder::new();
        let file = there.path("ran");
        let pool = Pool::new(1).unwrap();
        for _ in 0..10 {
            drop(pool.submit(delayed!(note_pid(&file))));
        }
        until("all of them have run", || numbers(&file).len() == 10);
    });
}

#[test]
fn handles_of_a_pool_that_has_ended_are_errors() {
    alone(|| {
        let there = Folder::new();
        let (begun, never) = (there.path("begun"), there.path("never"));
        let pool = Pool::new(1).unwrap();
        let done = pool.submit(delayed!(echo(1)));
        until("one has ended", || done.is_finished());
        let running = pool.submit(delayed!(begin_and_wait(&begun, &never)));
        let queued: Vec<_> = (0..5).map(|n| pool.submit(delayed!(echo(n)))).collect();
        let future = pool.submit(delayed!(echo(6)));
        until_exists(&begun);
        drop(pool);
        assert_eq!(done.join().unwrap(), 1, "a result that was there stays");
        assert!(running.join().unwrap_err().is_cancelled());
        for handle in queued {
            assert!(handle.is_finished());
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled() && error.to_string().contains("pool has ended"), "{error}");
        }
        future.cancel();
        assert!(block_on(future).unwrap_err().is_cancelled());
    });
}
