//! Preloads that fail, and what they are allowed to do.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use procession::{Pool, RemoteError, StartMethod, TaskError, delayed, worker};

use super::{LOADED, echo, look, server, wait_for};
use crate::{
    alone::{alone, alone_in_one_thread},
    end::End,
    event::{take_time, until_exists},
    leak::children,
    scratch::{Folder, append, numbers},
};

#[worker]
fn strike_in_the_template(attempts: &Path, end: End) {
    append(attempts, std::process::id());
    end.strike()
}

#[worker]
fn return_an_error(attempts: &Path, say: bool) -> Result<Vec<u8>, RemoteError> {
    append(attempts, std::process::id());
    if say { Err(RemoteError::msg("out of corn")) } else { Ok(vec![1]) }
}

#[worker]
fn return_a_number_as_error(attempts: &Path) -> Result<(), u8> {
    append(attempts, std::process::id());
    Err(3)
}

#[worker]
fn leave_a_thread_behind(attempts: &Path) {
    append(attempts, std::process::id());
    std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
}

#[worker]
pub(super) fn use_threads() {
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| take_time(Duration::from_millis(1)))))
    });
    LOADED.get_or_init(|| vec![1]);
}

/// Checks that calls fail with this message if the preload fails in this way.
fn check_failing_preload(attempts: &Path, pool: &Pool, words: &[&str]) {
    let start = Instant::now();
    let check = |error: TaskError| {
        let text = error.to_string();
        assert!(error.is_lost() && error.attempts() == 0, "{text}");
        assert!(words.iter().all(|words| text.contains(words)), "{text}");
        assert!(
            text.contains("no worker could be started") && text.contains("after 5 failed starts in "),
            "{text}"
        );
    };
    let handles: Vec<_> = (0..10).map(|n| pool.submit(delayed!(echo(n)))).collect();
    handles.into_iter().for_each(|handle| check(handle.join().unwrap_err()));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(numbers(attempts).len(), 5, "the attempts are bounded");
    check(pool.submit(delayed!(echo(1))).join().unwrap_err());
    check(pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap_err().into_task_error().unwrap());
    assert_eq!(numbers(attempts).len(), 5, "it is not tried again");
    assert_eq!(children().len(), 0, "and nothing is left of them");
}

#[test]
fn a_preload_that_panics_is_the_error_of_calls_with_its_message_after_bounded_attempts() {
    alone(|| {
        let there = Folder::new();
        let attempts = there.path("attempts");
        let pool = server()
            .jobs(2)
            .preload(delayed!(strike_in_the_template(&attempts, End::Panic)))
            .build()
            .unwrap();
        check_failing_preload(
            &attempts,
            &pool,
            &["strike_in_the_template` panicked", End::Panic.words(), "integration/end.rs:"],
        );
    });
}

#[test]
fn a_preload_that_ends_its_process_is_the_error_of_calls_with_the_cause() {
    alone(|| {
        for end in [End::Exit, End::Abort, End::Segfault, End::Kill] {
            let there = Folder::new();
            let attempts = there.path("attempts");
            let pool =
                server().jobs(2).preload(delayed!(strike_in_the_template(&attempts, end))).build().unwrap();
            check_failing_preload(&attempts, &pool, &["preload", end.words()]);
        }
    });
}

#[test]
fn a_preload_that_returns_an_error_is_the_error_of_calls_with_its_message() {
    alone(|| {
        let there = Folder::new();
        let attempts = there.path("attempts");
        let pool = server().jobs(1).preload(delayed!(return_an_error(&attempts, true))).build().unwrap();
        check_failing_preload(&attempts, &pool, &["return_an_error` returned an error: out of corn"]);
        let attempts = there.path("other attempts");
        let pool = server().jobs(1).preload(delayed!(return_a_number_as_error(&attempts))).build().unwrap();
        check_failing_preload(&attempts, &pool, &["return_a_number_as_error` returned an error"]);
        let attempts = there.path("success");
        let pool = server().jobs(1).preload(delayed!(return_an_error(&attempts, false))).build().unwrap();
        assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
    });
}

#[test]
fn a_preload_that_leaves_threads_behind_is_an_error() {
    alone(|| {
        let there = Folder::new();
        let attempts = there.path("attempts");
        let pool = server().jobs(1).preload(delayed!(leave_a_thread_behind(&attempts))).build().unwrap();
        check_failing_preload(&attempts, &pool, &["leave_a_thread_behind", "1 more thread", "join them"]);
    });
}

#[test]
fn a_preload_may_start_threads_that_it_joins() {
    alone(|| {
        let pool = server().jobs(1).preload(delayed!(use_threads())).build().unwrap();
        assert_eq!(pool.submit(delayed!(look())).join().unwrap().0, Some(1));
    });
}

#[test]
fn a_preload_that_takes_longer_than_the_start_timeout_is_an_error() {
    alone(|| {
        let there = Folder::new();
        let (begun, never) = (there.path("begun"), there.path("never"));
        let pool = server()
            .jobs(2)
            .start_timeout(Duration::from_millis(100))
            .preload(delayed!(wait_for(&begun, &never)))
            .build()
            .unwrap();
        let error = pool.submit(delayed!(echo(1))).join().unwrap_err();
        assert!(error.is_lost() && error.to_string().contains("not ready within 100ms"), "{error}");
        until_exists(&begun);
        assert_eq!(children().len(), 0);
    });
}

#[test]
fn a_failed_preload_of_a_copy_of_this_process_is_not_tried_again() {
    alone_in_one_thread(|| {
        let there = Folder::new();
        let attempts = there.path("attempts");
        let preload = delayed!(strike_in_the_template(&attempts, End::Panic));
        let pool = Pool::builder().jobs(1).start_method(StartMethod::Fork).preload(preload).build().unwrap();
        let error = pool.submit(delayed!(echo(1))).join().unwrap_err().to_string();
        assert!(error.contains(End::Panic.words()) && error.contains("cannot be replaced"), "{error}");
        assert_eq!(numbers(&attempts).len(), 1);
    });
}
