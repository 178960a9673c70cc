//! What workers find around them: environment, folder, niceness, CPUs, threads of libraries, name; and where their output goes.

use std::{collections::BTreeSet, path::Path};

use procession::{Builder, Pool, delayed, worker};

use crate::alone::alone;

#[worker]
fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

/// A field of each thread's `stat`, counted as in proc(5).
fn of_each_thread(field: usize) -> BTreeSet<String> {
    let threads = std::fs::read_dir("/proc/self/task").expect("a process's threads are listed");
    let stats = threads.map(|thread| {
        let stat =
            std::fs::read_to_string(thread.expect("a thread").path().join("stat")).expect("a live thread");
        // The second field is a name in parentheses, whatever that holds.
        let after_name = stat.rsplit_once(')').expect("a name").1.to_owned();
        after_name.split_whitespace().nth(field - 3).expect("fields enough").to_owned()
    });
    stats.collect()
}

/// The niceness of this process's threads.
#[worker]
fn niceness() -> BTreeSet<i32> {
    of_each_thread(19).iter().map(|nice| nice.parse().expect("a number")).collect()
}

/// The lists of CPUs that this process's threads may use.
#[worker]
fn affinity() -> BTreeSet<String> {
    let threads = std::fs::read_dir("/proc/self/task").expect("a process's threads are listed");
    threads.map(|thread| cpus_of(&thread.expect("a thread").path())).collect()
}

fn cpus_of(thread: &Path) -> String {
    let status = std::fs::read_to_string(thread.join("status")).expect("a live thread");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("a list of CPUs").trim().to_owned()
}

/// Each CPU of a list such as `0-3,8`.
fn each_of(list: &str) -> Vec<u32> {
    let ranges = list.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().expect("a number")..=last.parse().expect("a number")
    });
    ranges.collect()
}

/// The names of this process and of the thread that serves, and its arguments.
#[worker]
fn names() -> (String, String, Vec<String>) {
    let name = |path| std::fs::read_to_string(path).expect("a live process").trim_end().to_owned();
    (name("/proc/self/comm"), name("/proc/thread-self/comm"), std::env::args().collect())
}

fn refused(builder: Builder) -> String {
    builder.build().expect_err("it cannot be had").to_string()
}

#[test]
fn a_variable_that_was_removed_is_not_there() {
    alone(|| {
        assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
        let pool = Pool::builder()
            .jobs(1)
            .env("KEPT", "1")
            .env("GONE", "1")
            .env_remove("GONE")
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("NEVER_WAS")
            .env_remove("BACK")
            .env("BACK", "2")
            .build()
            .unwrap();
        let get = |name: &str| pool.submit(delayed!(variable(name.to_owned()))).join().unwrap();
        assert_eq!(get("KEPT").as_deref(), Some("1"));
        assert_eq!(get("GONE"), None);
        assert_eq!(get("CARGO_MANIFEST_DIR"), None);
        assert_eq!(get("NEVER_WAS"), None);
        assert_eq!(get("BACK").as_deref(), Some("2"));
        assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok(), "this process keeps its own");
    });
}

#[test]
fn workers_are_so_much_nicer_than_their_host() {
    alone(|| {
        let own = *niceness().first().unwrap();
        for add in [1, 5, 19] {
            let pool = Pool::builder().jobs(2).nice(add).build().unwrap();
            let expected = BTreeSet::from([(own + add).min(19)]);
            assert_eq!(pool.broadcast(delayed!(niceness())).unwrap(), [expected.clone(), expected]);
        }
        let pool = Pool::builder().jobs(1).build().unwrap();
        assert_eq!(pool.submit(delayed!(niceness())).join().unwrap(), BTreeSet::from([own]));
        assert_eq!(niceness(), BTreeSet::from([own]), "the host stays as it was");
    });
}

#[test]
fn workers_are_pinned_to_the_hosts_cpus_in_turn() {
    alone(|| {
        let list = cpus_of(Path::new("/proc/thread-self"));
        let cpus = each_of(&list);
        let jobs = cpus.len() + 1;
        let pool = Pool::builder().jobs(jobs).pin_cpus(true).build().unwrap();
        let places = pool.broadcast(delayed!(affinity())).unwrap();
        for (place, cpu) in places.into_iter().zip(cpus.iter().cycle()) {
            assert_eq!(place, BTreeSet::from([cpu.to_string()]));
        }
        let pool = Pool::builder().jobs(1).pin_cpus(false).build().unwrap();
        assert_eq!(pool.submit(delayed!(affinity())).join().unwrap(), BTreeSet::from([list]));
    });
}

#[test]
fn libraries_in_workers_are_told_how_many_threads_to_start() {
    alone(|| {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let get = |pool: &Pool, name: &str| pool.submit(delayed!(variable(name.to_owned()))).join().unwrap();
        let names = [
            "RAYON_NUM_THREADS",
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMEXPR_NUM_THREADS",
        ];
        let names = names.iter().filter(|name| std::env::var_os(name).is_none());
        for name in names {
            for (jobs, share) in [(1, cpus), (2, (cpus / 2).max(1)), (cpus * 3, 1)] {
                let pool = Pool::builder().jobs(jobs).build().unwrap();
                assert_eq!(get(&pool, name), Some(share.to_string()), "{name} with {jobs} workers");
            }
            let pool = Pool::builder().jobs(1).inner_threads(7).build().unwrap();
            assert_eq!(get(&pool, name).as_deref(), Some("7"));
            let pool = Pool::builder().jobs(1).inner_threads(7).env(*name, "3").build().unwrap();
            assert_eq!(get(&pool, name).as_deref(), Some("3"), "what `env` says counts in any case");
            let pool = Pool::builder().jobs(1).env_remove(*name).build().unwrap();
            assert_eq!(get(&pool, name), None, "and what `env_remove` says");
        }
    });
}

/// In a worker whose environment sets a number of threads: what its own pool's workers have of it.
#[worker]
fn inherited(inner_threads: Option<usize>) -> Option<String> {
    let builder = Pool::builder().jobs(1);
    let builder = match inner_threads {
        Some(threads) => builder.inner_threads(threads),
        None => builder,
    };
    let pool = builder.build().expect("a pool in a worker");
    pool.submit(delayed!(variable("OMP_NUM_THREADS".to_owned()))).join().expect("a variable")
}

#[test]
fn what_the_hosts_environment_says_of_threads_goes_before_the_default_only() {
    alone(|| {
        let pool = Pool::builder().jobs(1).env("OMP_NUM_THREADS", "11").build().unwrap();
        assert_eq!(pool.submit(delayed!(inherited(None))).join().unwrap().as_deref(), Some("11"));
        assert_eq!(pool.submit(delayed!(inherited(Some(5)))).join().unwrap().as_deref(), Some("5"));
    });
}

#[test]
fn a_worker_is_listed_by_its_pools_name_and_its_place() {
    alone(|| {
        let arguments: Vec<String> = std::env::args().collect();
        let pool = Pool::builder().jobs(2).name("scoring").build().unwrap();
        for (place, (process, thread, args)) in pool.broadcast(delayed!(names())).unwrap().iter().enumerate()
        {
            assert_eq!((process, thread), (&format!("scoring-{place}"), &format!("scoring-{place}")));
            assert_eq!(args, &arguments, "the program's arguments are the program's");
        }
        let pool = Pool::builder().jobs(1).name("a name of more than fifteen bytes").build().unwrap();
        assert_eq!(pool.submit(delayed!(names())).join().unwrap().0, "a name of mor-0");
        let program = std::env::current_exe().unwrap();
        let program: String = program.file_name().unwrap().to_string_lossy().chars().take(15).collect();
        let pool = Pool::builder().jobs(1).build().unwrap();
        assert_eq!(
            pool.submit(delayed!(names())).join().unwrap().0,
            program,
            "without a name, the program's"
        );
    });
}

#[test]
fn surroundings_that_cannot_be_had_are_refused_when_the_pool_is_built() {
    alone(|| {
        assert!(refused(Pool::builder().nice(20)).contains("nice(20)"));
        assert!(refused(Pool::builder().nice(-21)).contains("-20 to 19"));
        assert!(refused(Pool::builder().inner_threads(0)).contains("inner_threads(0)"));
        assert!(refused(Pool::builder().env_remove("A=B")).contains("env_remove(\"A=B\")"));
        assert!(refused(Pool::builder().env_remove("")).contains("not empty"));
        assert!(refused(Pool::builder().env("A", "nul\0")).contains("zero byte"));
        assert!(refused(Pool::builder().env(procession_tests::MARKER, "3")).contains("procession's own"));
    });
}
