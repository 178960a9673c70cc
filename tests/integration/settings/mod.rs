//! The settings of `parallel!`: what each does, and that it does it for its call alone.

mod draw;
mod verbose;

use std::{collections::BTreeSet, path::Path, time::Duration};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
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
        assert!(error.to_string().contains("timeout = secs(0)"), "{error}");
    });
}

/// Longer than any test waits.
#[worker]
fn stay_if(n: u64, which: u64) -> u64 {
    if n == which {
        take_time(Duration::from_secs(3600));
    }
    n
}

#[test]
fn a_timeout_of_a_call_ends_its_own_tasks_only() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let outcomes =
            parallel!(pool = &pool, timeout = millis(300), on_error = collect; stay_if(n, 3) for n in 0..20);
        for (n, outcome) in outcomes.unwrap().into_iter().enumerate() {
            match outcome {
                Ok(value) => assert!(value == n as u64 && n != 3),
                Err(error) => assert!(n == 3 && error.is_timeout(), "{error}"),
            }
        }
        let error = parallel!(pool = &pool, timeout = secs(0.3); stay_if(n, 0) for n in 0..2).unwrap_err();
        assert!(error.to_string().contains("timed out"), "{error}");
        // A pool's own limit holds unless the call has one.
        let hasty = Pool::builder().jobs(1).task_timeout(Duration::from_millis(1)).build().unwrap();
        let patient = parallel!(pool = &hasty, timeout = mins(5); worker_index_after(200_000) for _ in 0..1);
        assert_eq!(patient.unwrap(), [0]);
    });
}

#[test]
fn jobs_are_the_cpus_that_affinity_allows() {
    alone(|| {
        let all = std::thread::available_parallelism().unwrap().get();
        let jobs = |jobs: Jobs| Pool::builder().jobs(jobs).build().unwrap().jobs();
        assert_eq!((jobs(Jobs::All), jobs(Jobs::from(-1))), (all, all));
        let mut one = CpuSet::new();
        let allowed = sched_getaffinity(Pid::this()).unwrap();
        one.set((0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap()).unwrap();
        // Only those of this thread, which makes the call.
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        assert_eq!((jobs(Jobs::All), jobs(Jobs::from(-1)), jobs(Jobs::AllBut(1))), (1, 1, 1));
        assert_eq!(jobs(Jobs::from(3)), 3, "who says a number gets it");
        assert_eq!(Pool::builder().build().unwrap().jobs(), 1, "no setting says how many");
    });
}

#[test]
fn jobs_are_counted_in_whole_numbers_of_any_type() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let one = |results: procession::Result<Vec<u64>>| assert_eq!(results.unwrap(), [2]);
        one(parallel!(pool = &pool, jobs = 1u8; double(1) for _ in 0..1));
        one(parallel!(pool = &pool, jobs = 1i64; double(1) for _ in 0..1));
        one(parallel!(pool = &pool, jobs = std::num::NonZeroUsize::MIN; double(1) for _ in 0..1));
        one(parallel!(pool = &pool, jobs = Jobs::AllBut(1); double(1) for _ in 0..1));
        one(parallel!(pool = &pool, jobs = "all but 1".parse::<Jobs>().unwrap(); double(1) for _ in 0..1));
    });
}

#[test]
fn all_settings_stand_side_by_side() {
    alone_with_warm_pool(|| {
        let results =
            parallel!(jobs = 2, batch = 4, timeout = secs(60), retries = 1, verbose = 0, progress = false, seed = 1,
                order = ordered, on_error = stop; double(n) for n in 0..20)
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
