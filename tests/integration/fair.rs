//! Callers share a pool fairly, and no task waits while a worker is idle.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use procession::{Pool, delayed, parallel, worker};

use crate::{
    alone::alone,
    event::{take_time, until},
    scratch::{Folder, append, numbers},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn take(millis: u64) {
    take_time(Duration::from_millis(millis));
}

/// Task `last` notes nothing and waits until all the others have noted their numbers.
#[worker]
fn wait_for_the_others(file: &Path, n: u64, last: u64, all: usize) -> u64 {
    if n == last {
        until("all the others have run", || numbers(file).len() == all - 1);
    } else {
        append(file, n);
    }
    n
}

/// Fails if another that shares the file runs at the same time.
#[worker]
fn be_alone(file: &Path) {
    std::fs::OpenOptions::new().write(true).create_new(true).open(file).expect("no other task runs");
    take_time(Duration::from_millis(2));
    std::fs::remove_file(file).expect("no other task has removed it");
}

fn check_no_task_waits_behind(long: u64, all: u64, chunk: Option<usize>) {
    let folder = Folder::new();
    let file = folder.path("ran");
    let mut pool = Pool::builder().jobs(2);
    if let Some(chunk) = chunk {
        pool = pool.chunk_size(chunk);
    }
    let pool = pool.build().unwrap();
    let tasks = (0..all).map(|n| delayed!(wait_for_the_others(&file, n, long, all as usize)));
    assert_eq!(pool.map(tasks).unwrap(), (0..all).collect::<Vec<_>>());
    assert_eq!(numbers(&file).len() as u64, all - 1, "each ran once");
}

#[test]
fn no_short_task_waits_behind_a_long_first_one() {
    alone(|| check_no_task_waits_behind(0, 6, None));
}

#[test]
fn no_short_task_waits_behind_a_long_one_among_quick_ones() {
    // By then batches are large, for the tasks are quick.
    alone(|| check_no_task_waits_behind(300, 304, None));
}

#[test]
fn no_short_task_waits_behind_a_long_one_in_a_batch_of_the_callers_size() {
    alone(|| {
        check_no_task_waits_behind(0, 50, Some(50));
        check_no_task_waits_behind(30, 100, Some(25));
        check_no_task_waits_behind(49, 50, Some(50));
    });
}

#[test]
fn no_submitted_task_waits_behind_a_long_one() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("ran");
        let pool = Pool::new(2).unwrap();
        let handles: Vec<_> =
            (0..200).map(|n| pool.submit(delayed!(wait_for_the_others(&file, n, 20, 200)))).collect();
        assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(0..200));
    });
}

#[test]
fn a_short_task_submitted_during_a_long_call_is_not_last() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (read, over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let input = (0..100_000).inspect(|&n| read.store(n, Ordering::Relaxed));
                assert_eq!(pool.map(input.map(|n| delayed!(echo(n)))).unwrap().len(), 100_000);
                over.store(true, Ordering::Relaxed);
            });
            until("the call is under way", || read.load(Ordering::Relaxed) > 5_000);
            for n in 0..5 {
                assert_eq!(pool.submit(delayed!(echo(n))).join().unwrap(), n);
            }
            assert!(!over.load(Ordering::Relaxed), "five short tasks took as long as the call");
        });
    });
}

#[test]
fn a_short_call_beside_a_long_one_is_over_first() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (read, over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let input = (0..400).inspect(|&n| read.store(n, Ordering::Relaxed));
                pool.map(input.map(|_| delayed!(take(3)))).unwrap();
                over.store(true, Ordering::Relaxed);
            });
            until("the call is under way", || read.load(Ordering::Relaxed) > 10);
            pool.map((0..20).map(|_| delayed!(take(3)))).unwrap();
            assert!(!over.load(Ordering::Relaxed), "the short call waited for the long one");
        });
    });
}

#[test]
fn many_callers_and_threads_share_one_pool() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..20 {
                        let from = thread * 1000 + round;
                        match thread % 3 {
                            0 => assert!(
                                pool.map((from..from + 50).map(|n| delayed!(echo(n))))
                                    .unwrap()
                                    .into_iter()
                                    .eq(from..from + 50)
                            ),
                            1 => assert!(
                                pool.imap((from..from + 50).map(|n| delayed!(echo(n))))
                                    .map(Result::unwrap)
                                    .eq(from..from + 50)
                            ),
                            _ => assert_eq!(pool.submit(delayed!(echo(from))).join().unwrap(), from),
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn a_call_uses_no_more_workers_than_it_was_given() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("busy");
        let pool = Pool::new(3).unwrap();
        parallel!(pool = &pool, jobs = 1; be_alone(&file) for _ in 0..40).unwrap();
    });
}

/// Runs for this time. Returns the pid, and the start and the end by a clock that all processes share.
#[worker]
fn take_and_report(micros: u64) -> (u32, Duration, Duration) {
    let begun = now();
    take_time(Duration::from_micros(micros));
    (std::process::id(), begun, now())
}

fn now() -> Duration {
    let time =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    Duration::from(time)
}

/// Numbers over three orders of magnitude, from `least` on: each step of the scale as often as any other, in an order that looks random
/// and is always the same.
fn spread(least: u64, many: u64) -> Vec<u64> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut times: Vec<u64> =
        (0..many).map(|n| (least as f64 * 1000f64.powf(n as f64 / many as f64)) as u64).collect();
    for n in (1..times.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        times.swap(n, (random >> 33) as usize % (n + 1));
    }
    times
}

/// The time in which an idle worker gets tasks from another: the pauses before tasks are taken back, with room for a loaded machine.
const SHARING: Duration = Duration::from_millis(60);

fn check_ends_together(workers: usize, chunk: Option<usize>) {
    let mut pool = Pool::builder().jobs(workers);
    if let Some(chunk) = chunk {
        pool = pool.chunk_size(chunk);
    }
    let pool = pool.build().unwrap();
    pool.broadcast(delayed!(take(1))).unwrap();
    let told = pool.map(spread(20, 300).into_iter().map(|micros| delayed!(take_and_report(micros)))).unwrap();
    // As they were measured: on a loaded machine a task takes longer than it asked for.
    let longest = told.iter().map(|(_, begun, ended)| *ended - *begun).max().unwrap();
    let mut last = std::collections::BTreeMap::new();
    for (pid, _, ended) in told {
        let end = last.entry(pid).or_insert(ended);
        *end = ended.max(*end);
    }
    assert_eq!(last.len(), workers, "every worker had something to do");
    let (first, last) = (last.values().min().unwrap(), last.values().max().unwrap());
    assert!(
        *last - *first <= longest + SHARING,
        "a worker was idle {:?} before another had done its last task; the longest task took {longest:?}",
        *last - *first
    );
}

#[test]
fn workers_end_within_one_longest_task_of_each_other() {
    alone(|| {
        check_ends_together(2, None);
        check_ends_together(4, None);
        // All of them are queued at one worker at first.
        check_ends_together(2, Some(300));
    });
}

/// Returns at once if there are no `all`; else notes its number and waits until all have.
#[worker]
fn meet(file: &Path, n: u64, all: u64) -> u64 {
    if all > 0 {
        append(file, n);
        until("all of them run", || numbers(file).len() as u64 == all);
    }
    n
}

#[test]
fn tasks_that_wait_for_each_other_all_run_at_once_after_quick_ones_of_the_same_function() {
    alone(|| {
        let workers = 8;
        let folder = Folder::new();
        let pool = Pool::new(workers).unwrap();
        pool.broadcast(delayed!(echo(1))).unwrap();
        for round in 0..3 {
            let file = folder.path(&format!("met-{round}"));
            let quick = (0..3_000).map(|n| delayed!(meet(&file, n, 0)));
            assert_eq!(pool.map(quick).unwrap().len(), 3_000);
            let slow = (0..workers as u64).map(|n| delayed!(meet(&file, n, workers as u64)));
            assert!(pool.map(slow).unwrap().into_iter().eq(0..workers as u64));
            let file = folder.path(&format!("met-one-by-one-{round}"));
            let quick: Vec<_> = (0..500).map(|n| pool.submit(delayed!(meet(&file, n, 0)))).collect();
            quick.into_iter().for_each(|handle| assert!(handle.join().is_ok()));
            let all = workers as u64;
            let slow: Vec<_> = (0..all).map(|n| pool.submit(delayed!(meet(&file, n, all)))).collect();
            assert!(slow.into_iter().map(|handle| handle.join().unwrap()).eq(0..all));
        }
    });
}

/// Notes its process, and sleeps. If `all` is not 0, waits until as many processes have noted themselves.
#[worker]
fn sleep_beside(file: &Path, all: usize) {
    append(file, std::process::id());
    take_time(Duration::from_millis(3));
    let noted = || numbers(file).into_iter().collect::<BTreeSet<_>>().len();
    until("every worker has a task", || noted() >= all);
}

#[test]
fn every_worker_of_a_crowd_has_its_part_of_tasks_that_sleep() {
    alone(|| {
        let workers = 16;
        let pool = Pool::new(workers).unwrap();
        pool.broadcast(delayed!(echo(1))).unwrap();
        assert_eq!(pool.map((0..3_000).map(|n| delayed!(echo(n)))).unwrap().len(), 3_000);
        let folder = Folder::new();
        let file = folder.path("pids");
        // On a busy machine the system may run the last worker when most tasks have been done. Those at the end wait for it.
        let tasks = (0..400).map(|n| delayed!(sleep_beside(&file, if n < 300 { 0 } else { workers })));
        assert_eq!(pool.map(tasks).unwrap().len(), 400);
    });
}
