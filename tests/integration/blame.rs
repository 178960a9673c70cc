//! A crash fails the task that ran, and no other. Each task is started the number of times that was promised.

use std::path::Path;

use procession::{Pool, delayed, worker};

use crate::{
    alone::alone,
    end::{EXIT_CODE, End},
    scratch::{Folder, append, numbers},
};

/// Notes that it has begun, and strikes if its number is that of the culprit.
#[worker]
fn note(log: &Path, n: u64, culprit: u64) -> u64 {
    append(log, n);
    if n == culprit {
        End::Segfault.strike();
    }
    n
}

/// Notes that it has begun, and strikes as long as it has been begun fewer times than this.
#[worker]
fn succeed_at(log: &Path, attempt: usize) -> usize {
    append(log, 0);
    let attempts = numbers(log).len();
    if attempts < attempt {
        End::Exit.strike();
    }
    attempts
}

#[worker]
fn panic_after_a_note(log: &Path) {
    append(log, 0);
    End::Panic.strike()
}

#[worker]
fn strike(end: End) {
    end.strike()
}

fn check_one_crash_among_many(jobs: usize, chunk: usize, tasks: u64, culprit: u64) {
    let folder = Folder::new();
    let log = folder.path("begun");
    let pool = Pool::builder().jobs(jobs).chunk_size(chunk).build().unwrap();
    let results: Vec<_> = pool.imap((0..tasks).map(|n| delayed!(note(&log, n, culprit)))).collect();
    assert_eq!(results.len() as u64, tasks);
    for (n, result) in (0..).zip(results) {
        if n == culprit {
            let error = result.unwrap_err();
            assert!(error.is_crash(), "{error}");
            assert_eq!(error.task_index(), Some(n as usize));
            assert_eq!(error.attempts(), 1);
        } else {
            assert_eq!(result.expect("only the culprit fails"), n);
        }
    }
    assert_eq!(numbers(&log), (0..tasks).collect::<Vec<_>>(), "each began once");
}

#[test]
fn tasks_behind_the_crashed_one_run_elsewhere_and_none_twice() {
    alone(|| check_one_crash_among_many(1, 20, 60, 5));
}

#[test]
fn the_first_of_a_batch_may_crash() {
    alone(|| check_one_crash_among_many(1, 20, 20, 0));
}

#[test]
fn the_last_of_a_batch_may_crash() {
    alone(|| check_one_crash_among_many(1, 20, 20, 19));
}

#[test]
fn two_workers_with_full_batches_blame_one_task() {
    alone(|| check_one_crash_among_many(2, 50, 400, 123));
}

#[test]
fn submitted_tasks_behind_a_crash_run_once() {
    alone(|| {
        let folder = Folder::new();
        let log = folder.path("begun");
        let pool = Pool::new(1).unwrap();
        let handles: Vec<_> = (0..50).map(|n| pool.submit(delayed!(note(&log, n, 10)))).collect();
        let failed: Vec<usize> = handles
            .into_iter()
            .map(|handle| handle.join())
            .enumerate()
            .filter(|(_, r)| r.is_err())
            .map(|(n, _)| n)
            .collect();
        assert_eq!(failed, [10]);
        assert_eq!(numbers(&log), (0..50).collect::<Vec<_>>());
    });
}

#[test]
fn many_crashes_in_a_row_are_each_blamed_on_their_own_task() {
    alone(|| {
        let pool = Pool::builder().jobs(2).chunk_size(8).build().unwrap();
        let ends = [End::Exit, End::Abort, End::Segfault, End::Kill, End::Panic];
        let results: Vec<_> = pool.imap((0..40).map(|n| delayed!(strike(ends[n % 5])))).collect();
        for (n, result) in results.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert!(error.to_string().contains(ends[n % 5].words()), "task {n}: {error}");
            assert_eq!(error.task_index(), Some(n));
        }
    });
}

#[test]
fn a_crash_without_retries_is_one_attempt() {
    alone(|| {
        let folder = Folder::new();
        let log = folder.path("begun");
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(succeed_at(&log, 2))).join().unwrap_err();
        assert_eq!((error.attempts(), numbers(&log).len()), (1, 1));
    });
}

#[test]
fn each_retry_is_exactly_one_more_attempt() {
    alone(|| {
        for retries in [1, 3] {
            let folder = Folder::new();
            let log = folder.path("begun");
            let pool = Pool::builder().jobs(1).retries(retries).build().unwrap();
            let error = pool.submit(delayed!(succeed_at(&log, 100))).join().unwrap_err();
            assert_eq!(error.attempts(), retries + 1);
            assert_eq!(error.exit().and_then(|exit| exit.code()), Some(EXIT_CODE));
            assert_eq!(numbers(&log).len(), retries as usize + 1);
            assert!(error.to_string().contains(&format!("after {} attempts", retries + 1)), "{error}");
        }
    });
}

#[test]
fn a_retry_that_succeeds_is_a_success() {
    alone(|| {
        let folder = Folder::new();
        let log = folder.path("begun");
        let pool = Pool::builder().jobs(1).retries(2).build().unwrap();
        assert_eq!(pool.submit(delayed!(succeed_at(&log, 3))).join().unwrap(), 3);
        let another = folder.path("in a map");
        let attempts = pool.map((0..1).map(|_| delayed!(succeed_at(&another, 2)))).unwrap();
        assert_eq!(attempts, [2]);
    });
}

#[test]
fn a_panic_is_not_retried() {
    alone(|| {
        let folder = Folder::new();
        let log = folder.path("begun");
        let pool = Pool::builder().jobs(1).retries(5).build().unwrap();
        let error = pool.submit(delayed!(panic_after_a_note(&log))).join().unwrap_err();
        assert!(error.is_panic());
        assert_eq!(numbers(&log).len(), 1);
    });
}

/// Notes its number; those that are named in the list end their process then.
#[worker]
fn note_or_strike(log: &Path, n: u64, every: u64, end: End) -> u64 {
    append(log, n);
    if n % every == every / 2 { end.strike() } else { n }
}

#[test]
fn crashes_among_thousands_of_short_tasks_cost_those_tasks_alone_and_every_other_runs_once() {
    alone(|| {
        const TASKS: u64 = 6_000;
        for (end, every) in [(End::Kill, 97), (End::Abort, 251), (End::Exit, 613)] {
            let folder = Folder::new();
            let log = folder.path("log");
            let pool = Pool::new(2).unwrap();
            let outcomes =
                pool.imap_unordered((0..TASKS).map(|n| delayed!(note_or_strike(&log, n, every, end))));
            let mut seen = vec![0; TASKS as usize];
            for (index, outcome) in outcomes {
                seen[index] += 1;
                match outcome {
                    Ok(value) => assert!(value == index as u64 && value % every != every / 2),
                    Err(error) => assert!(
                        error.is_crash() && index as u64 % every == every / 2 && error.attempts() == 1,
                        "{error}"
                    ),
                }
            }
            assert!(seen.iter().all(|times| *times == 1), "every task has one outcome");
            assert!(numbers(&log).into_iter().eq(0..TASKS), "every task ran once");
        }
    });
}
