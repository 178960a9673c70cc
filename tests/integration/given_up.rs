//! A pool that was given up fails all that it is given as fast as it is given, with the cause, and is tried again when it should be.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procession::{Pool, StartMethod, delayed, parallel, worker};

use crate::{
    alone::{alone, alone_in_one_thread},
    end::End,
    event::{is_there, until},
    scratch::{Folder, append, numbers},
};

/// Tasks of each lazy call: a pause of half a second between two windows of them would take minutes.
const TASKS: u64 = 500;
/// All calls together take less.
const AT_ONCE: Duration = Duration::from_secs(10);

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn template() -> u32 {
    std::os::unix::process::parent_id()
}

#[worker]
fn strike(end: End) {
    end.strike()
}

#[worker]
fn strike_so_often(file: &Path, most: usize) {
    append(file, 1);
    if numbers(file).len() <= most {
        End::Exit.strike()
    }
}

/// Makes every kind of call, each of which fails with these words.
fn check_every_call(pool: &Pool, words: &str) {
    let start = Instant::now();
    let tasks = || (0..TASKS).map(|n| delayed!(echo(n)));
    let outcomes: Vec<_> = pool.imap(tasks()).chunk_size(1).collect();
    assert_eq!(outcomes.len() as u64, TASKS);
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(words), "imap: {error}");
        assert_eq!(error.task_index(), Some(index), "{error}");
    }
    let outcomes: Vec<_> = pool.imap_unordered(tasks()).chunk_size(1).collect();
    assert_eq!(outcomes.len() as u64, TASKS);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_err()));
    let error = pool.map(tasks()).unwrap_err();
    assert!(error.to_string().contains(words), "map: {error}");
    let error = parallel!(pool = pool; echo(n) for n in 0..TASKS).unwrap_err();
    assert!(error.to_string().contains(words), "parallel!: {error}");
    let error = pool.broadcast(delayed!(echo(1))).unwrap_err();
    assert!(error.to_string().contains(words), "broadcast: {error}");
    // One after the other, and all at the same time.
    for n in 0..50 {
        let error = pool.submit(delayed!(echo(n))).join().unwrap_err();
        assert!(error.to_string().contains(words), "submit: {error}");
    }
    let handles: Vec<_> = tasks().map(|task| pool.submit(task)).collect();
    assert!(handles.into_iter().all(|handle| handle.join().is_err()));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn every_call_fails_at_once_in_a_pool_whose_starts_have_failed_too_often() {
    alone(|| {
        let builder = Pool::builder().jobs(2).initializer(delayed!(strike(End::Exit)));
        let pool = builder.max_restarts(2, Duration::from_secs(1000)).build().unwrap();
        assert!(pool.submit(delayed!(echo(1))).join().is_err());
        check_every_call(&pool, "failed starts in ");
    });
}

#[test]
fn every_call_fails_at_once_in_a_pool_whose_launches_are_refused() {
    alone_in_one_thread(|| {
        let pool = Pool::builder().jobs(2).start_method(StartMethod::Fork).build().unwrap();
        let template = pool.submit(delayed!(template())).join().unwrap();
        kill(Pid::from_raw(template.cast_signed()), Signal::SIGKILL).unwrap();
        until("the template is reaped", || !is_there(template));
        until("no worker serves", || {
            pool.submit(delayed!(strike(End::Kill))).join().is_err_and(|error| error.is_lost())
        });
        check_every_call(&pool, "cannot be replaced");
    });
}

#[test]
fn a_lazy_call_goes_on_once_the_pool_that_was_given_up_is_tried_again() {
    alone(|| {
        let there = Folder::new();
        let file = there.path("attempts");
        let builder = Pool::builder().jobs(1).initializer(delayed!(strike_so_often(&file, 3)));
        let pool = builder.max_restarts(2, Duration::from_secs(1)).build().unwrap();
        let mut outcomes = pool.imap((0..).map(|n| delayed!(echo(n))));
        let error = outcomes.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("gave up after 3 failed starts"), "{error}");
        until("a task has a result", || outcomes.next().unwrap().is_ok());
        assert_eq!(numbers(&file).len(), 4);
    });
}
