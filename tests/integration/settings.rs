//! The settings of `parallel!`: what each does, and that it does it for its call alone.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    pty::{Winsize, openpty},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use procession::{
    Error, Jobs, Pool, Process, RemoteError, StartMethod, TaskError, delayed, parallel, report_progress,
    rng_seed, worker,
};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    event::{take_time, until, until_exists, within},
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
        // This thread's alone, which is the one that asks.
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        assert_eq!((jobs(Jobs::All), jobs(Jobs::from(-1)), jobs(Jobs::AllBut(1))), (1, 1, 1));
        assert_eq!(jobs(Jobs::from(3)), 3, "who says a number gets it");
        assert_eq!(Pool::builder().build().unwrap().jobs(), 1, "nobody has said one");
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

/// What the tasks of a call draw that this task makes.
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
fn all_threads_of_a_task_draw_the_same_and_nobody_else_does() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let draws = parallel!(pool = &pool, seed = 5; draw_elsewhere() for _ in 0..DRAWS).unwrap();
        assert_eq!(draws, parallel!(pool = &pool, seed = 5; draw() for _ in 0..DRAWS).unwrap());
    });
}

/// What this task's own calls draw, one after the other.
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
            // What a call with a seed draws, and how many calls went before it, is nobody's business, but it is a call.
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
fn each_call_of_a_task_draws_other_numbers_whatever_its_worker_has_done_before() {
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

/// In a process that plays a scene: its name.
const SCENE: &str = "PROCESSION_TESTS_SCENE";

/// What the tests below look at from without. Under Fork a second thread is refused, and a test has two.
#[test]
fn scene() {
    let Ok(name) = std::env::var(SCENE) else { return };
    let pool = Pool::builder().jobs(2).start_method(StartMethod::Spawn).build().unwrap();
    let verbose = |n: u32, tasks: u64| {
        let results = parallel!(pool = &pool, verbose = n, batch = 5; double(n) for n in 0..tasks).unwrap();
        assert_eq!(results.len() as u64, tasks);
    };
    match &*name {
        "now and then" => verbose(1, 100),
        "each batch" => verbose(10, 40),
        "each task" => verbose(50, 12),
        "nothing" => verbose(0, 100),
        "by default" => {
            pool.map((0..12).map(|n| delayed!(double(n)))).unwrap();
        }
        "a generator" => {
            parallel!(pool = &pool, verbose = 50; double(n) for n in 0..9 if n % 3 == 0).unwrap();
        }
        "a tuple" => {
            parallel!(pool = &pool, verbose = 10; double(1), double(2)).unwrap();
        }
        "a failure" => {
            parallel!(pool = &pool, verbose = 1; strike_if(n, 0, End::Panic) for n in 0..40).unwrap_err();
        }
        "failures" => {
            parallel!(pool = &pool, verbose = 1, on_error = collect; strike_if(n, 3, End::Exit) for n in 0..40)
                .unwrap();
        }
        "steps" => {
            parallel!(pool = &pool, verbose = 50; step_by_step() for _ in 0..2).unwrap();
        }
        "a bar" => {
            parallel!(pool = &pool, progress = "doubling"; double(n) for n in 0..500).unwrap();
        }
        "a bar of steps" => {
            parallel!(pool = &pool, progress = true; step_by_step() for _ in 0..2).unwrap();
        }
        "a bar that fails" => {
            parallel!(pool = &pool, progress = "striking"; strike_if(n, 70, End::Panic) for n in 0..500)
                .unwrap_err();
        }
        "a bar with failures" => {
            let outcomes = parallel!(pool = &pool, progress = "striking", on_error = collect; strike_if(n, 70, End::Panic) for n in 0..500);
            assert_eq!(outcomes.unwrap().len(), 500);
        }
        "a bar among records" => {
            log::set_logger(&PRINTER).unwrap();
            log::set_max_level(log::LevelFilter::Info);
            parallel!(pool = &pool, progress = "speaking", batch = 1; speak(n) for n in 0..RECORDS).unwrap();
        }
        "a bar among lines" => {
            parallel!(pool = &pool, progress = "tel\x1b[2Jling", verbose = 50, batch = 1; speak(n) for n in 0..RECORDS)
                .unwrap();
        }
        "a bar while a logger waits" => {
            log::set_logger(&WAITER).unwrap();
            log::set_max_level(log::LevelFilter::Info);
            let drawing = std::thread::spawn(|| {
                until("the logger waits", || WAITER.waits.load(Ordering::Relaxed));
                parallel!(pool = &WAITER.pool, progress = "doubling", batch = 1; double(n) for n in 0..100)
                    .unwrap();
                WAITER.drawn.store(true, Ordering::Relaxed);
            });
            parallel!(pool = &pool, progress = "speaking", batch = 1; speak(n) for n in 0..3).unwrap();
            drawing.join().unwrap();
        }
        other => panic!("no scene {other}"),
    }
}

/// Waits until another call's bar was drawn to its end, and for tasks meanwhile.
struct Waiter {
    pool: LazyLock<Pool>,
    waits: AtomicBool,
    drawn: AtomicBool,
}

static WAITER: Waiter = Waiter {
    pool: LazyLock::new(|| {
        Pool::builder().jobs(1).start_method(StartMethod::Spawn).build().expect("there is room")
    }),
    waits: AtomicBool::new(false),
    drawn: AtomicBool::new(false),
};

impl log::Log for Waiter {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.waits.store(true, Ordering::Relaxed);
        let is_drawn = || {
            let doubled = self.pool.submit(delayed!(double(4))).join();
            doubled.is_ok_and(|n| n == 8) && self.drawn.load(Ordering::Relaxed)
        };
        let outcome = if within(Duration::from_secs(30), is_drawn) { "after" } else { "without" };
        PRINTER.log(
            &log::Record::builder().args(format_args!("{} {outcome} the other bar", record.args())).build(),
        );
    }

    fn flush(&self) {}
}

const RECORDS: u64 = 60;

#[worker]
fn speak(n: u64) -> u64 {
    log::info!("record {n} from a worker");
    take_time(Duration::from_millis(5));
    n
}

/// Prints as most loggers do.
struct Printer;

static PRINTER: Printer = Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    #[expect(clippy::print_stderr, reason = "that is where loggers print")]
    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}", record.args());
    }

    fn flush(&self) {}
}

/// Says how far it is, and more than can be.
#[worker]
fn step_by_step() {
    report_progress(f32::NAN);
    report_progress(0.25);
    take_time(Duration::from_millis(60));
    report_progress(0.5);
    report_progress(2);
    std::thread::spawn(|| report_progress(1.0)).join().expect("it only speaks");
}

fn command(scene: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "settings::scene", "--nocapture", "--test-threads=1"])
        .env(SCENE, scene)
        // What is told is told of two workers.
        .env_remove("PROCESSION_IN_PROCESS")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The lines that a scene prints on stderr, without how long it took.
fn lines_of(command: &mut Command) -> Vec<String> {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    words.lines().map(str::to_owned).collect()
}

/// The counts that the lines tell of.
fn counts(lines: &[String]) -> Vec<usize> {
    let count = |line: &String| line.split("Done ").nth(1)?.split_whitespace().next()?.parse().ok();
    lines.iter().filter_map(count).collect()
}

#[test]
fn verbose_says_more_the_larger_it_is() {
    assert_eq!(lines_of(&mut command("nothing")), [""; 0]);
    let lines = lines_of(&mut command("now and then"));
    assert!(lines[0].starts_with("[Parallel(jobs=2)]: 2 workers"), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.starts_with("[Parallel(jobs=2)]: Done 100 out of 100 | elapsed: "), "{lines:?}");
    assert!(last.ends_with("s finished"), "{lines:?}");
    let seldom = counts(&lines);
    assert!(seldom.len() <= 5 && seldom.is_sorted(), "{lines:?}");
    let lines = lines_of(&mut command("each batch"));
    assert_eq!(counts(&lines), [5, 10, 15, 20, 25, 30, 35, 40], "{lines:?}");
    assert!(
        lines[1].contains("Done   5 out of  40 | elapsed: ") && lines[1].contains(" remaining: "),
        "{lines:?}"
    );
    assert_eq!(counts(&lines_of(&mut command("each task"))), (1..=12).collect::<Vec<_>>());
}

#[test]
fn verbose_of_calls_that_are_not_told_is_in_the_environment() {
    assert_eq!(lines_of(&mut command("by default")), [""; 0]);
    let counted = counts(&lines_of(command("by default").env("PROCESSION_VERBOSE", "50")));
    assert_eq!(counted, (1..=12).collect::<Vec<_>>());
    assert_eq!(lines_of(command("nothing").env("PROCESSION_VERBOSE", "50")), [""; 0]);
    let output =
        command("by default").env("PROCESSION_VERBOSE", "loud").stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("PROCESSION_VERBOSE=loud"), "{words}");
}

#[test]
fn verbose_tells_of_inputs_without_a_length_of_tuples_of_failures_and_of_steps() {
    let lines = lines_of(&mut command("a generator"));
    assert_eq!(counts(&lines), [1, 2, 3], "{lines:?}");
    assert!(lines.last().unwrap().contains("Done   3 out of   3 | "), "{lines:?}");
    assert_eq!(counts(&lines_of(&mut command("a tuple"))).last(), Some(&2));
    let lines = lines_of(&mut command("a failure"));
    assert!(
        lines.last().unwrap().contains("out of  40, 1 failed | ")
            && lines.last().unwrap().ends_with(" stopped"),
        "{lines:?}"
    );
    let lines = lines_of(&mut command("failures"));
    assert!(lines.last().unwrap().contains("Done  40 out of  40, 1 failed | "), "{lines:?}");
    let lines = lines_of(&mut command("steps"));
    for step in ["Task   0 at  25.0 %", "Task   1 at 100.0 %"] {
        assert!(lines.iter().any(|line| line.contains(step)), "{step}: {lines:?}");
    }
}

/// A terminal is so wide.
const COLUMNS: u16 = 120;

/// What a scene draws on a terminal, each state of the line apart.
fn drawn(scene: &str) -> Vec<String> {
    let states = written(scene);
    states.split(['\r', '\n']).map(str::to_owned).filter(|state| !state.trim().is_empty()).collect()
}

/// What stands on a terminal and above it when the scene has ended.
fn screen(scene: &str) -> Vec<String> {
    let text = written(scene);
    let (mut rows, mut row, mut column): (Vec<Vec<char>>, usize, usize) = (vec![Vec::new()], 0, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "{text:?}");
                let (mut number, mut command) = (String::new(), ' ');
                for c in chars.by_ref() {
                    if c.is_ascii_alphabetic() {
                        command = c;
                        break;
                    }
                    number.push(c);
                }
                let n = number.parse().unwrap_or(1);
                match command {
                    'A' => row = row.saturating_sub(n),
                    'B' => row += n,
                    'C' => column += n,
                    'D' => column = column.saturating_sub(n),
                    'K' if number == "2" => rows[row].clear(),
                    'K' => rows[row].truncate(column),
                    'm' | 'h' | 'l' => {}
                    other => panic!("{number}{other} in {text:?}"),
                }
            }
            c => {
                if column == usize::from(COLUMNS) {
                    (row, column) = (row + 1, 0);
                }
                rows.resize_with(rows.len().max(row + 1), Vec::new);
                let cells = &mut rows[row];
                cells.resize(cells.len().max(column + 1), ' ');
                cells[column] = c;
                column += 1;
            }
        }
        rows.resize_with(rows.len().max(row + 1), Vec::new);
    }
    let lines = rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn records_and_lines_do_not_tear_a_bar() {
    let lines = screen("a bar among records");
    let (bar, records) = lines.split_last().unwrap();
    let mut expected: Vec<String> = (0..RECORDS).map(|n| format!("record {n} from a worker")).collect();
    let mut records = records.to_vec();
    expected.sort_unstable();
    records.sort_unstable();
    assert_eq!(records, expected, "each on a line of its own: {lines:#?}");
    assert!(bar.starts_with("speaking ") && bar.contains(" 100% 60/60 [00:00:0"), "{lines:#?}");
    assert!(bar.contains(", 00:00:00 left, "), "one format of time: {lines:#?}");
    let lines = screen("a bar among lines");
    let (bars, lines): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| !line.starts_with("[Parallel(jobs=2)]: "));
    assert!(bars.len() == 1 && bars[0].starts_with("tel\\u{1b}[2Jling "), "{bars:#?} {lines:#?}");
    assert!(lines.len() as u64 > RECORDS && lines.iter().all(|line| !line.contains("ling")), "{lines:#?}");
}

#[test]
fn a_logger_may_wait_for_tasks_and_for_calls_that_draw_bars() {
    let lines = screen("a bar while a logger waits");
    let (bars, records): (Vec<_>, Vec<_>) = lines.iter().partition(|line| !line.starts_with("record "));
    let mut records = records;
    records.sort_unstable();
    let expected: Vec<String> =
        (0..3).map(|n| format!("record {n} from a worker after the other bar")).collect();
    assert_eq!(records, expected.iter().collect::<Vec<_>>(), "{lines:#?}");
    // Each bar ends full and is drawn whole, the one that ended while a record was printed, too.
    for (label, count) in [("speaking ", " 3/3 ["), ("doubling ", " 100/100 [")] {
        let of_label: Vec<_> = bars.iter().filter(|line| line.starts_with(label)).collect();
        assert!(of_label.len() == 1 && of_label[0].contains(count), "{label}: {lines:#?}");
    }
}

fn written(scene: &str) -> String {
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let slave: OwnedFd = terminal.slave;
    let mut command = command(scene);
    let mut child = command.stderr(slave).spawn().unwrap();
    drop(command);
    let mut bytes = Vec::new();
    // The end is an error: nobody holds the other side any more.
    let _ = File::from(terminal.master).read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_bar_is_drawn_on_a_terminal_and_ends_full() {
    let states = drawn("a bar");
    let last = states.last().unwrap();
    assert!(last.contains("doubling ") && last.contains("500/500") && last.contains("/s"), "{states:#?}");
    assert!(!last.contains("failed"), "{states:#?}");
    let states = drawn("a bar of steps");
    assert!(states.iter().any(|state| state.contains("#0 ") && state.contains('%')), "{states:#?}");
    assert!(states.last().unwrap().contains("2/2"), "{states:#?}");
}

#[test]
fn a_bar_of_a_call_that_fails_stays_where_it_was_and_counts_failures() {
    let states = drawn("a bar that fails");
    let last = states.last().unwrap();
    assert!(last.contains("/500") && last.contains("1 failed stopped"), "{states:#?}");
    let states = drawn("a bar with failures");
    let last = states.last().unwrap();
    assert!(last.contains("500/500") && last.contains("1 failed"), "{states:#?}");
}

#[test]
fn a_bar_is_quiet_where_nobody_sees_it() {
    for scene in ["a bar", "a bar of steps", "a bar that fails"] {
        assert_eq!(lines_of(&mut command(scene)), [""; 0], "{scene}");
    }
}
