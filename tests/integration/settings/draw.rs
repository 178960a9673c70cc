//! Random numbers: the same for the same seed, on any number of workers.

use std::{collections::BTreeSet, path::Path};

use procession::{Pool, Process, delayed, parallel, rng_seed, worker};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    scratch::Folder,
};

#[worker]
fn draw() -> u64 {
    rng_seed()
}

/// Asked on another thread of the task, and again.
#[worker]
fn draw_elsewhere() -> u64 {
    let there = std::thread::spawn(rng_seed).join().expect("it only asks");
    assert_eq!(there, rng_seed());
    there
}

/// Returns what the tasks of a call within this task draw.
#[worker]
fn draw_within(n: usize) -> Vec<u64> {
    parallel!(draw() for _ in 0..n).expect("it runs here")
}

const DRAWS: usize = 12;

#[test]
fn draws_are_the_same_on_any_number_of_workers() {
    alone(|| {
        let pools = || [1, 2, 4].map(|jobs| Pool::new(jobs).unwrap()).into_iter().chain([Pool::in_process()]);
        let draw = |pool: &Pool, seed| parallel!(pool = pool, seed = seed; draw() for _ in 0..DRAWS).unwrap();
        let expected = draw(&Pool::in_process(), 42);
        assert_eq!(expected.iter().collect::<BTreeSet<_>>().len(), DRAWS, "each task has its own");
        for pool in pools() {
            assert_eq!(draw(&pool, 42), expected);
            assert_ne!(draw(&pool, 43), expected);
            let one_by_one =
                parallel!(pool = &pool, seed = 42, batch = 1, jobs = 1; draw() for _ in 0..DRAWS);
            assert_eq!(one_by_one.unwrap(), expected);
            let mut unordered =
                parallel!(pool = &pool, seed = 42, order = unordered; draw() for _ in 0..DRAWS).unwrap();
            unordered.sort_unstable();
            let mut sorted = expected.clone();
            sorted.sort_unstable();
            assert_eq!(unordered, sorted);
        }
        let without: Vec<Vec<u64>> =
            pools().map(|pool| pool.map((0..DRAWS).map(|_| delayed!(draw()))).unwrap()).collect();
        assert!(without.windows(2).all(|pair| pair[0] == pair[1]), "without a seed, too");
    });
}

#[test]
fn draws_of_imap_of_submit_and_of_nested_calls_are_the_same_on_any_number_of_workers() {
    alone(|| {
        let built =
            |jobs: usize| Pool::builder().jobs(jobs).seed(7).initializer(delayed!(draw())).build().unwrap();
        let all = |pool: Pool| {
            let tasks = || (0..DRAWS).map(|_| delayed!(draw()));
            let lazy: Vec<u64> = pool.imap(tasks()).map(Result::unwrap).collect();
            let mut unordered: Vec<(usize, u64)> =
                pool.imap_unordered(tasks()).map(|(n, draw)| (n, draw.unwrap())).collect();
            unordered.sort_unstable();
            let unordered: Vec<u64> = unordered.into_iter().map(|(_, draw)| draw).collect();
            pool.broadcast(delayed!(draw())).unwrap();
            let handles: Vec<_> = tasks().map(|task| pool.submit(task)).collect();
            let single: Vec<u64> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
            let nested = parallel!(pool = &pool; draw_within(3) for _ in 0..4).unwrap();
            [vec![lazy, unordered, single], nested].concat()
        };
        let draws = all(built(1));
        assert_eq!(draws, all(built(3)));
        let different: BTreeSet<&u64> = draws.iter().flatten().collect();
        assert_eq!(different.len(), 3 * DRAWS + 3 * 4, "no two tasks draw the same");
    });
}

#[test]
fn all_threads_of_a_task_draw_the_same_and_no_other_task_does() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let draws = parallel!(pool = &pool, seed = 5; draw_elsewhere() for _ in 0..DRAWS).unwrap();
        assert_eq!(draws, parallel!(pool = &pool, seed = 5; draw() for _ in 0..DRAWS).unwrap());
    });
}

/// Returns what two calls within this task draw, one after the other.
#[worker]
fn draw_twice_within() -> [Vec<u64>; 2] {
    [(); 2].map(|()| parallel!(draw() for _ in 0..2).expect("it runs here"))
}

#[test]
fn each_call_without_a_seed_draws_other_numbers_on_any_number_of_workers() {
    alone(|| {
        let all = |pool: Pool| {
            let tasks = || (0..DRAWS).map(|_| delayed!(draw()));
            let mut draws = vec![pool.map(tasks()).unwrap(), pool.map(tasks()).unwrap()];
            draws.push(pool.imap(tasks()).map(Result::unwrap).collect());
            draws.push(parallel!(pool = &pool; draw() for _ in 0..DRAWS).unwrap());
            // The numbers of a call with a seed do not depend on the calls before it, but it counts as a call.
            let seeded = parallel!(pool = &pool, seed = 42; draw() for _ in 0..DRAWS).unwrap();
            let pair: (u64, u64) = parallel!(pool = &pool; draw(), draw()).unwrap();
            draws.push(vec![pair.0, pair.1]);
            let singles: Vec<_> = tasks().map(|task| pool.submit(task)).collect();
            draws.push(singles.into_iter().map(|handle| handle.join().unwrap()).collect());
            // Of each broadcast, the first worker's: there are as many as there are workers.
            draws.push([(); 2].map(|()| pool.broadcast(delayed!(draw())).unwrap()[0]).to_vec());
            draws.push(pool.map(tasks()).unwrap());
            (seeded, draws)
        };
        let expected = all(Pool::in_process());
        let drawn: Vec<u64> = expected.1.iter().flatten().copied().collect();
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len(), "no two tasks draw the same");
        for jobs in [1, 3] {
            assert_eq!(all(Pool::new(jobs).unwrap()), expected, "{jobs} workers");
        }
        let of_seed = |seed| all(Pool::builder().jobs(2).seed(seed).build().unwrap());
        let (seeded, of_seven) = of_seed(7);
        assert_eq!(of_seed(7).1, of_seven);
        assert_eq!(seeded, expected.0, "a call's own seed goes before its pool's");
        let drawn: BTreeSet<u64> = drawn.into_iter().collect();
        let outside = |draws: &[Vec<u64>]| draws.iter().flatten().all(|draw| !drawn.contains(draw));
        assert!(outside(&of_seven), "each seed has numbers of its own");
    });
}

#[test]
fn each_call_of_a_task_draws_other_numbers_regardless_of_its_workers_past() {
    alone(|| {
        let within = |jobs: usize| {
            let pool = Pool::new(jobs).unwrap();
            parallel!(pool = &pool, batch = 1; draw_twice_within() for _ in 0..DRAWS).unwrap()
        };
        let expected = within(1);
        let different: BTreeSet<&u64> = expected.iter().flatten().flatten().collect();
        assert_eq!(different.len(), DRAWS * 4, "no two tasks draw the same");
        assert_eq!(within(3), expected);
    });
}

#[test]
fn each_process_draws_other_numbers() {
    alone(|| {
        let draws: BTreeSet<u64> =
            (0..3).map(|_| Process::spawn(delayed!(draw())).unwrap().join().unwrap()).collect();
        assert_eq!(draws.len(), 3);
    });
}

#[test]
fn two_calls_on_the_processs_own_pool_draw_different_numbers() {
    alone_with_warm_pool(|| {
        let draw = || parallel!(draw() for _ in 0..DRAWS).unwrap();
        assert_eq!(rng_seed(), draw()[0], "outside: the first task of the first call without a seed");
        assert_ne!(draw(), draw());
    });
}

#[test]
fn a_task_that_is_started_again_draws_the_same() {
    #[worker]
    fn draw_at_second(path: &Path) -> u64 {
        if std::fs::exists(path).expect("the test's folder") {
            return rng_seed();
        }
        std::fs::write(path, rng_seed().to_string()).expect("a file of the test's");
        End::Kill.strike()
    }
    alone(|| {
        let folder = Folder::new();
        let path = folder.path("drawn");
        let pool = Pool::new(2).unwrap();
        let [drawn] =
            parallel!(pool = &pool, retries = 1, seed = 9; draw_at_second(&path) for _ in 0..1).unwrap()[..]
        else {
            panic!("one task")
        };
        assert_eq!(std::fs::read_to_string(&path).unwrap(), drawn.to_string());
    });
}
