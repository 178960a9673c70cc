//! What is lent to a task cannot be accessed until the task has its outcome, and then it is back, whatever has become of the task.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use procession::{Pool, RemoteError, SharedSliceMut, delayed, parallel, worker};

use super::parts::count_up;
use crate::{
    alone::alone,
    end::End,
    event::{is_there, until, until_exists},
    scratch::{Folder, append, is_first, numbers},
};

#[worker]
fn write_when_told(begun: &Path, go: &Path, target: &mut [u64]) {
    target[0] = 1;
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
    target[0] = 2;
}

#[worker]
fn write_for_ever(begun: &Path, target: &mut [u64]) {
    target.fill(1);
    append(begun, std::process::id());
    loop {
        target.iter_mut().for_each(|to| *to += 1);
    }
}

#[worker]
fn end_after_writing(end: End, target: &mut [u64]) {
    target[0] = 7;
    end.strike();
}

#[worker]
fn write_at_second_attempt(file: &Path, target: &mut [u64]) {
    target[0] += 1;
    if is_first(file) {
        End::Kill.strike();
    }
}

#[worker]
fn fail_when(begun: &Path) {
    until_exists(begun);
    panic!("it fails");
}

/// Returns the words of a panic.
fn panic_of<R>(run: impl FnOnce() -> R) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(run)).err()?;
    payload.downcast_ref::<String>().cloned()
}

fn is_lent(slice: &SharedSliceMut<u64>) -> bool {
    panic_of(|| slice.first().copied()).is_some()
}

/// Checks that the processes that wrote have ended, or serve other tasks.
fn assert_ended(begun: &Path) {
    for pid in numbers(begun) {
        let is_there = is_there(u32::try_from(pid).expect("a pid"));
        assert!(!is_there, "{pid} was ended before the parts were back");
    }
}

#[test]
fn what_is_lent_cannot_be_accessed_until_its_task_has_its_outcome() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::new(1).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        let (mut left, right) = out.split_at_mut(4);
        let handle = pool.submit(delayed!(write_when_told(&begun, &go, right)));
        left[0] = 9;
        until_exists(&begun);
        let words = panic_of(|| out[0]).unwrap();
        assert!(words.contains("elements 4..10") && words.contains("lent::write_when_told`"), "{words}");
        assert!(panic_of(|| out.fill(0)).unwrap().contains("write_when_told"));
        // What is not lent can be.
        let again = panic_of(|| out.chunks_mut(4).map(|part| part[0]).collect::<Vec<_>>()).unwrap();
        assert!(again.contains("elements 4..10"), "{again}");
        assert_eq!(out.chunks_mut(4).next().unwrap()[0], 9);
        let twice = panic_of(|| pool.submit(delayed!(count_up(0, &mut out)))).unwrap();
        assert!(twice.contains("write_when_told"), "{twice}");
        assert!(panic_of(move || out.freeze()).unwrap().contains("write_when_told"));
        std::fs::write(&go, "").unwrap();
        handle.join().unwrap();
    });
}

#[test]
fn a_part_is_back_with_the_outcome_even_if_its_handle_was_forgotten() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::new(1).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        std::mem::forget(pool.submit(delayed!(write_when_told(&begun, &go, &mut out))));
        until_exists(&begun);
        assert!(is_lent(&out));
        std::fs::write(&go, "").unwrap();
        until("it is back", || !is_lent(&out));
        assert_eq!(out[0], 2);
    });
}

#[test]
fn a_task_that_never_runs_gives_back_what_it_was_lent() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::builder().jobs(1).build().unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        let task = delayed!(count_up(1, &mut out));
        assert!(is_lent(&out), "it may run at any time");
        drop(task);
        assert_eq!(out[0], 0);

        let (left, right) = out.split_at_mut(5);
        let first = pool.submit(delayed!(write_when_told(&begun, &go, left)));
        let second = pool.submit(delayed!(count_up(1, right)));
        until_exists(&begun);
        second.cancel();
        assert!(second.join().unwrap_err().is_cancelled());
        let (_, right) = out.split_at_mut(5);
        assert_eq!(*right, [0; 5]);
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        assert_eq!(out[0], 1);
    });
}

#[test]
fn a_task_that_fails_names_what_it_may_have_changed() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut out = SharedSliceMut::<u64>::zeroed(10).unwrap();
        for end in [End::Kill, End::Abort, End::Panic] {
            let (_, right) = out.split_at_mut(4);
            let error = pool.submit(delayed!(end_after_writing(end, right))).join().unwrap_err();
            assert_eq!(error.is_crash(), end != End::Panic);
            assert!(
                error
                    .to_string()
                    .ends_with("it may have changed some of the elements 4..10 that it was lent"),
                "{error}"
            );
            assert_eq!(out[4], 7);
            let call = parallel!(pool = &pool; end_after_writing(end, part) for part in out.chunks_mut(10));
            let error = call.unwrap_err().to_string();
            assert!(error.contains("of the elements 0..10 that"), "{error}");
        }
    });
}

#[test]
fn a_task_that_is_retried_is_lent_its_part_again() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let mut out = SharedSliceMut::zeroed(3).unwrap();
        pool.submit(delayed!(write_at_second_attempt(&folder.path("first"), &mut out))).join().unwrap();
        assert_eq!(*out, [2, 0, 0]);
        parallel!(pool = &pool; write_at_second_attempt(&folder.path("second"), part) for part in out.chunks_mut(2)).unwrap();
        assert_eq!(*out, [4, 0, 1]);
    });
}

#[test]
fn a_call_that_fails_returns_when_its_parts_are_back() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        let error = parallel!(pool = &pool; write_for_ever(&begun, &mut out), fail_when(&begun)).unwrap_err();
        assert!(error.to_string().contains("it fails"), "{error}");
        assert!(out[0] > 0);
        assert_ended(&begun);
    });
}

#[test]
fn an_iterator_that_is_dropped_waits_for_its_parts() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        let parts = out.chunks_mut(10).map(|part| delayed!(write_for_ever(&begun, part)));
        let mut results = pool.imap_unordered(parts.chain([delayed!(fail_when(&begun))]));
        assert!(results.next().unwrap().1.unwrap_err().is_panic());
        drop(results);
        assert!(!is_lent(&out));
        assert_ended(&begun);
    });
}

#[test]
fn a_panic_of_the_caller_unwinds_when_the_parts_are_back() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        let parts = out.chunks_mut(5).enumerate().inspect(|(n, _)| {
            if *n == 1 {
                until_exists(&begun);
                panic!("the input is bad");
            }
        });
        let call =
            AssertUnwindSafe(|| parallel!(pool = &pool; write_for_ever(&begun, part) for (_, part) in parts));
        assert!(catch_unwind(call).is_err());
        assert!(!is_lent(&out));
        assert_ended(&begun);
    });
}

#[worker]
fn take(mut slice: SharedSliceMut<u64>) -> u64 {
    slice[0] = 7;
    slice[0]
}

#[worker]
fn return_what_is_lent(begun: &Path, go: &Path) -> Result<SharedSliceMut<u64>, RemoteError> {
    let pool = Box::leak(Box::new(Pool::new(1)?));
    let mut slice = SharedSliceMut::zeroed(2)?;
    std::mem::forget(pool.submit(delayed!(write_when_told(begun, go, &mut slice))));
    until_exists(begun);
    Ok(slice)
}

#[test]
fn what_is_lent_is_not_moved_to_another_task_or_to_the_caller() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::new(2).unwrap();
        let mut slice = SharedSliceMut::zeroed(4).unwrap();
        let handle = pool.submit(delayed!(write_when_told(&begun, &go, &mut slice)));
        until_exists(&begun);
        let words = panic_of(|| pool.submit(delayed!(take(slice))).join()).unwrap();
        assert!(words.contains("write_when_told") && words.contains("has not ended"), "{words}");
        std::fs::write(&go, "").unwrap();
        handle.join().unwrap();

        let (begun, go) = (folder.path("begun-within"), folder.path("go-within"));
        let error = pool.submit(delayed!(return_what_is_lent(&begun, &go))).join().unwrap_err();
        assert!(error.to_string().contains("write_when_told"), "{error}");
    });
}

#[test]
fn the_end_of_a_pool_gives_back_what_its_tasks_were_lent() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let pool = Pool::new(1).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        let (left, right) = out.split_at_mut(5);
        let handles = [left, right].map(|part| pool.submit(delayed!(write_for_ever(&begun, part))));
        until_exists(&begun);
        drop(pool);
        assert!(out[0] > 0 && out[9] == 0);
        assert!(handles.into_iter().all(|handle| handle.join().is_err()));
    });
}
