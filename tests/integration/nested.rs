//! Calls from within a worker.

use std::path::Path;

use procession::{Pool, RemoteError, delayed, is_worker, parallel, worker, worker_index};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    event::{is_there, until, until_exists},
    scratch::Folder,
};

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn nested_pids(n: usize) -> Result<(u32, Vec<u32>), RemoteError> {
    Ok((std::process::id(), parallel!(pid() for _ in 0..n)?))
}

#[worker]
fn nested_tuple() -> Result<(u32, u32, u32), RemoteError> {
    let (a, b) = parallel!(pid(), pid())?;
    Ok((std::process::id(), a, b))
}

#[worker]
fn pool_in_a_worker(jobs: usize) -> Result<(u32, Vec<u32>), RemoteError> {
    let pool = Pool::new(jobs)?;
    Ok((std::process::id(), pool.broadcast(delayed!(pid()))?))
}

/// Starts a pool within, and returns how many there are below it.
#[worker]
fn dive() -> Result<u32, String> {
    let pool = Pool::new(1).map_err(|error| error.to_string())?;
    match pool.submit(delayed!(dive())).join().map_err(|error| error.to_string())? {
        Ok(depth) => Ok(depth + 1),
        Err(words) if words.contains("is the limit") => Ok(1),
        Err(words) => Err(words),
    }
}

#[worker]
fn crash_amid_workers(file: &Path) -> Result<(), RemoteError> {
    let pool = Pool::new(2)?;
    let pids = pool.broadcast(delayed!(pid()))?;
    std::fs::write(file, format!("{} {}", pids[0], pids[1]))?;
    End::Kill.strike()
}

#[worker]
fn panicking(n: u32) -> u32 {
    assert_ne!(n, 3, "three is too many");
    n
}

#[worker]
fn nested_failure() -> Result<Vec<u32>, RemoteError> {
    parallel!(panicking(n) for n in 0..10).map_err(RemoteError::from)
}

#[worker]
fn who() -> (bool, Option<usize>, bool) {
    (is_worker(), worker_index(), procession::task_id().is_some())
}

#[worker]
fn who_within() -> Result<Vec<(bool, Option<usize>, bool)>, RemoteError> {
    Ok(parallel!(who() for _ in 0..1)?)
}

/// Returns the default number of workers of a pool that is created here, and of rayon's threads; then the same within its workers.
#[worker]
fn shares(deeper: bool) -> Result<Vec<(usize, Option<String>)>, RemoteError> {
    let pool = Pool::builder().build()?;
    let mut shares = vec![(pool.jobs(), std::env::var("RAYON_NUM_THREADS").ok())];
    if deeper {
        shares.extend(pool.submit(delayed!(shares(false))).join()??);
    }
    Ok(shares)
}

#[test]
fn pools_and_threads_within_take_no_more_than_was_given() {
    alone(|| {
        let all = std::thread::available_parallelism().unwrap().get();
        for jobs in [1, all, 2 * all] {
            let pool = Pool::new(jobs).unwrap();
            let share = (all / jobs).max(1);
            let outer = (share, Some(share.to_string()));
            // The inner pool has as many workers as its worker was given CPUs: there is one for each.
            let inner = (1, Some("1".to_owned()));
            let found = pool.submit(delayed!(shares(true))).join().unwrap().unwrap();
            assert_eq!(found, [outer, inner], "{jobs} workers on {all} CPUs");
        }
        // Unless more is asked for.
        let pool =
            Pool::builder().jobs(all).inner_threads(2 * all).env("PROCESSION_JOBS", "3").build().unwrap();
        let found = pool.submit(delayed!(shares(false))).join().unwrap().unwrap();
        assert_eq!(found, [(3, Some((2 * all).to_string()))]);
    });
}

#[test]
fn a_parallel_within_a_worker_runs_there() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (outer, inner) = pool.submit(delayed!(nested_pids(100))).join().unwrap().unwrap();
        assert_ne!(outer, std::process::id());
        assert_eq!(inner, [outer; 100]);
        let (outer, a, b) = pool.submit(delayed!(nested_tuple())).join().unwrap().unwrap();
        assert_eq!((a, b), (outer, outer));
    });
}

#[test]
fn a_parallel_of_parallels_neither_deadlocks_nor_multiplies() {
    alone_with_warm_pool(|| {
        let results = parallel!(nested_pids(n) for n in 0..40).unwrap();
        for (n, result) in results.into_iter().enumerate() {
            let (outer, inner) = result.unwrap();
            assert_eq!(inner, vec![outer; n]);
        }
    });
}

#[test]
fn a_failure_of_a_nested_call_is_reported_outside() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(nested_failure())).join().unwrap().unwrap_err();
        assert!(error.to_string().contains("three is too many"), "{error}");
        assert!(error.to_string().contains("task 3 of"), "{error}");
    });
}

#[test]
fn a_worker_may_have_a_pool_of_its_own() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            let (outer, inner) = pool.submit(delayed!(pool_in_a_worker(2))).join().unwrap().unwrap();
            assert!(inner.len() == 2 && !inner.contains(&outer) && inner[0] != inner[1], "{outer} {inner:?}");
            inner.into_iter().for_each(|pid| assert!(!is_there(pid), "it ended with its pool"));
        }
    });
}

#[test]
fn workers_of_a_worker_end_with_it() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("pids");
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(crash_amid_workers(&file))).join().unwrap_err();
        assert!(error.is_crash(), "{error}");
        until_exists(&file);
        for pid in std::fs::read_to_string(&file).unwrap().split(' ') {
            let pid = pid.parse().unwrap();
            // The process that adopts them reaps them.
            until("the inner workers end", || !is_there(pid));
        }
    });
}

#[test]
fn pools_in_pools_have_a_depth_limit() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let depth = pool.submit(delayed!(dive())).join().unwrap().unwrap();
        assert!((3..20).contains(&depth), "{depth} deep");
    });
}

#[test]
fn a_nested_task_knows_where_it_runs() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let within = pool.submit(delayed!(who_within())).join().unwrap().unwrap();
        assert_eq!(within, [(true, Some(0), true)]);
        assert_eq!(pool.submit(delayed!(who())).join().unwrap(), (true, Some(0), true));
        assert_eq!(who(), (false, None, false));
    });
}
