//! The settings of `parallel!`: what each does, and that it does it for its call alone.

use std::{collections::BTreeSet, path::Path, time::Duration};

use procession::{Error, Jobs, Pool, RemoteError, TaskError, delayed, parallel, worker};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    event::{take_time, until_exists},
    scratch::Folder,
};

#[worker]
fn double(n: u64) -> u64 {
    2 * n
}

#[worker]
fn halve(n: u64) -> Result<u64, RemoteError> {
    if n.is_multiple_of(2) { Ok(n / 2) } else { Err(RemoteError::msg(format!("{n} is odd"))) }
}

#[worker]
fn strike_if(n: u64, which: u64, end: End) -> u64 {
    if n == which {
        end.strike()
    }
    n
}

#[worker]
fn worker_index_after(micros: u64) -> usize {
    take_time(Duration::from_micros(micros));
    procession::worker_index().expect("a task runs in a worker")
}

#[worker]
fn wait_if_first(n: u64, go: &Path) -> u64 {
    if n == 0 {
        until_exists(go);
    }
    n
}

#[worker]
fn open(n: u64, gate: &Path) -> u64 {
    if n == 9 {
        std::fs::write(gate, "").expect("a file of the test's");
    } else if n == 0 {
        until_exists(gate);
    }
    n
}

#[test]
fn jobs_bounds_the_workers_of_a_call() {
    alone(|| {
        let pool = Pool::new(3).unwrap();
        for (jobs, most) in [(Jobs::from(1), 1), (Jobs::from(2usize), 2), (Jobs::from(64u32), 3)] {
            let places =
                parallel!(pool = &pool, jobs = jobs, batch = 1; worker_index_after(2000) for _ in 0..30)
                    .unwrap();
            let places: BTreeSet<usize> = places.into_iter().collect();
            assert!(places.len() <= most, "{jobs}: {places:?}");
        }
        for wrong in [0, 1_000_000] {
            let error = parallel!(pool = &pool, jobs = wrong; double(n) for n in 0..3).unwrap_err();
            assert!(error.to_string().contains(&format!("jobs = {wrong}")), "{error}");
        }
    });
}

#[test]
fn unordered_results_come_as_they_are_ready_and_each_comes_once() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(2).unwrap();
        // The first task ends after the last has begun.
        let gate = folder.path("gate");
        let results =
            parallel!(pool = &pool, batch = 1, order = unordered; open(n, &gate) for n in 0..10).unwrap();
        assert_ne!(results[0], 0, "{results:?}");
        assert_eq!(results.iter().copied().collect::<BTreeSet<_>>(), (0..10).collect());
        assert_eq!(results.len(), 10);
        let results = parallel!(pool = &pool, order(unordered); double(n) for n in 0..5000).unwrap();
        assert_eq!(results.into_iter().collect::<BTreeSet<_>>(), (0..5000).map(|n| 2 * n).collect());
        let results = parallel!(pool = &pool, order = ordered; double(n) for n in 0..500).unwrap();
        assert!(results.into_iter().eq((0..500).map(|n| 2 * n)));
    });
}

#[test]
fn stop_is_the_first_failure_and_collect_is_all_of_them() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for end in [End::Panic, End::Exit, End::Segfault] {
            let error =
                parallel!(pool = &pool, on_error = stop; strike_if(n, 7, end) for n in 0..20).unwrap_err();
            assert!(error.to_string().contains("task 7"), "{error}");
            let outcomes: Vec<Result<u64, TaskError>> =
                parallel!(pool = &pool, on_error = collect; strike_if(n, 7, end) for n in 0..20).unwrap();
            for (n, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    Ok(value) => assert_eq!((*value, n != 7), (n as u64, true)),
                    Err(error) => assert_eq!((error.task_index(), n), (Some(7), 7)),
                }
            }
            assert_eq!(outcomes.len(), 20);
        }
        let outcomes = parallel!(pool = &pool, on_error(collect), order(unordered); strike_if(n, 7, End::Panic) for n in 0..20).unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
        assert_eq!(outcomes.len(), 20);
    });
}

#[test]
fn collect_with_a_question_mark_has_the_functions_own_errors() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let outcomes: Vec<Result<u64, RemoteError>> =
            parallel!(pool = &pool, on_error = collect; halve(n)? for n in 0..6).unwrap();
        let words: Vec<String> = outcomes
            .into_iter()
            .map(|o| o.map_or_else(|error| error.to_string(), |n| n.to_string()))
            .collect();
        assert_eq!(words, ["0", "1 is odd", "1", "3 is odd", "2", "5 is odd"]);
        let error: Error =
            parallel!(pool = &pool, on_error = collect, jobs = 0; halve(n)? for n in 0..6).unwrap_err();
        assert!(error.to_string().contains("jobs = 0"), "{error}");
    });
}

#[test]
fn the_members_of_a_tuple_may_fail_one_by_one() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (good, bad) =
            parallel!(pool = &pool, on_error = collect; double(4), strike_if(1, 1, End::Panic)).unwrap();
        assert_eq!(good.unwrap(), 8);
        assert!(bad.unwrap_err().is_panic());
        let (alone,) = parallel!(pool = &pool, on_error = collect; double(4)).map(|one| (one,)).unwrap();
        assert_eq!(alone.unwrap(), 8);
        let error = parallel!(pool = &pool; double(4), strike_if(1, 1, End::Exit)).unwrap_err();
        assert!(error.to_string().contains("exit code 7"), "{error}");
    });
}

/// Ends its process the first `times` that it runs.
#[worker]
fn fail_at_first(folder: &Path, times: usize) -> usize {
    let runs = std::fs::read_dir(folder).expect("the test's folder").count();
    std::fs::write(folder.join(runs.to_string()), "").expect("a file of the test's");
    if runs < times {
        End::Exit.strike();
    }
    runs
}

#[test]
fn retries_of_a_call_go_before_those_of_its_pool() {
    alone(|| {
        let folder = Folder::new();
        let fresh = |name: &str| {
            let path = folder.path(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let more = fresh("more");
        assert_eq!(parallel!(pool = &pool, retries = 3; fail_at_first(&more, 3)).unwrap(), 3);
        let none = fresh("none");
        assert!(parallel!(pool = &pool, retries = 0; fail_at_first(&none, 1) for _ in 0..1).is_err());
        let own = fresh("own");
        assert_eq!(parallel!(pool = &pool; fail_at_first(&own, 1) for _ in 0..1).unwrap(), [1]);
    });
}

#[test]
fn a_batch_may_be_found_by_measuring() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let results = parallel!(pool = &pool, batch = auto; double(n) for n in 0..100).unwrap();
        assert_eq!(results.len(), 100);
        let error = parallel!(pool = &pool, batch = 0; double(n) for n in 0..100).unwrap_err();
        assert!(error.to_string().contains("batch = 0"), "{error}");
    });
}

#[test]
fn a_timeout_is_any_duration_and_its_units_need_no_import() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (secs, limit) = (60u64, Some(Duration::from_secs(60)));
        let run = |results: procession::Result<Vec<u64>>| assert_eq!(results.unwrap(), [0, 2]);
        run(parallel!(pool = &pool, timeout = secs(60); double(n) for n in 0..2));
        run(parallel!(pool = &pool, timeout = secs(59.5) + millis(500); double(n) for n in 0..2));
        run(parallel!(pool = &pool, timeout = mins(1); double(n) for n in 0..2));
        // A variable of that name is the user's own.
        run(parallel!(pool = &pool, timeout = Duration::from_secs(secs); double(n) for n in 0..2));
        run(parallel!(pool = &pool, timeout = limit; double(n) for n in 0..2));
        let error = parallel!(pool = &pool, timeout = secs(0); double(n) for n in 0..2).unwrap_err();
        assert!(error.to_string().contains("timeout = 0"), "{error}");
    });
}

#[test]
fn all_settings_stand_side_by_side() {
    alone_with_warm_pool(|| {
        let results =
            parallel!(jobs = 2, batch = 4, timeout = secs(60), retries = 1, verbose = 0; double(n) for n in 0..20)
                .unwrap();
        assert!(results.into_iter().eq((0..20).map(|n| 2 * n)));
    });
}

#[test]
fn a_function_may_be_named_as_a_setting_is() {
    #[worker]
    fn order(n: u64) -> u64 {
        n
    }
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let unordered = 3;
        assert_eq!(parallel!(pool = &pool; order(unordered) for _ in 0..1).unwrap(), [3]);
        assert_eq!(parallel!(pool = &pool; order(unordered), order(4)).unwrap(), (3, 4));
        assert_eq!(delayed!(order(5)).call().unwrap(), 5);
    });
}
