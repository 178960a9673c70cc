//! The surroundings of workers: environment, folder, niceness, CPUs, threads of libraries, name; and the destination of their output.

#![expect(unsafe_code, reason = "changes the environment, in a process of the test's own")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use procession::{Builder, Pool, Process, StartMethod, delayed, parallel, worker};

use crate::{
    alone::{alone, alone_in_one_thread, alone_with_warm_pool},
    scratch::Folder,
};

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
        // The second field is a name in parentheses, which may contain anything.
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
        assert!(std::env::var("PATH").is_ok());
        let pool = Pool::builder()
            .jobs(1)
            .env("KEPT", "1")
            .env("GONE", "1")
            .env_remove("GONE")
            .env_remove("PATH")
            .env_remove("NEVER_WAS")
            .env_remove("BACK")
            .env("BACK", "2")
            .build()
            .unwrap();
        let get = |name: &str| pool.submit(delayed!(variable(name.to_owned()))).join().unwrap();
        assert_eq!(get("KEPT").as_deref(), Some("1"));
        assert_eq!(get("GONE"), None);
        assert_eq!(get("PATH"), None);
        assert_eq!(get("NEVER_WAS"), None);
        assert_eq!(get("BACK").as_deref(), Some("2"));
        assert!(std::env::var("PATH").is_ok(), "this process keeps its own");
    });
}

#[test]
fn workers_have_the_requested_niceness() {
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
fn variables_limit_the_threads_of_libraries_in_workers() {
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
fn the_hosts_environment_overrides_only_the_default_number_of_threads() {
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
fn impossible_surroundings_are_refused_when_the_pool_is_built() {
    alone(|| {
        assert!(refused(Pool::builder().nice(20)).contains("nice(20)"));
        assert!(refused(Pool::builder().nice(-21)).contains("-20 to 19"));
        assert!(refused(Pool::builder().inner_threads(0)).contains("inner_threads(0)"));
        assert!(refused(Pool::builder().env_remove("A=B")).contains("env_remove(\"A=B\")"));
        assert!(refused(Pool::builder().env_remove("")).contains("not empty"));
        assert!(refused(Pool::builder().env("A", "nul\0")).contains("zero byte"));
        assert!(
            refused(Pool::builder().env(procession_tests::MARKER, "3")).contains("reserved for procession")
        );
    });
}

#[worker]
fn look_around(name: String) -> (PathBuf, Option<String>, u32) {
    (std::env::current_dir().unwrap(), std::env::var(name).ok(), std::process::id())
}

#[worker]
fn crash() {
    std::process::abort();
}

const MOMENT: &str = "PROCESSION_TESTS_MOMENT";
const LATER: &str = "PROCESSION_TESTS_LATER";

/// Sets both variables of this process and its directory.
fn move_to(folder: &Path, moment: &str) {
    // SAFETY: the tests that call it run in a process of their own, in which nothing else reads or writes the environment meanwhile.
    unsafe { std::env::set_var(MOMENT, moment) };
    if moment == "later" {
        // SAFETY: as above.
        unsafe { std::env::set_var(LATER, moment) };
    }
    std::env::set_current_dir(folder).unwrap();
}

#[test]
fn all_workers_of_a_pool_have_the_environment_and_the_directory_of_when_it_was_built() {
    alone_in_one_thread(|| {
        let folder = Folder::new();
        let (before, later) = (folder.path("before"), folder.path("later"));
        [&before, &later].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        for method in [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork] {
            // SAFETY: as in `move_to`.
            unsafe { std::env::remove_var(LATER) };
            move_to(&before, "before");
            let pool = Pool::builder().jobs(2).start_method(method).build().unwrap();
            let relative = Pool::builder().jobs(1).current_dir("../later").build().unwrap();
            if method != StartMethod::Spawn {
                // Its template is there before the host moves.
                pool.submit(delayed!(look_around(MOMENT.to_owned()))).join().unwrap();
            }
            move_to(&later, "later");
            let mut pids = BTreeSet::new();
            for _ in 0..3 {
                for (folder, moment, pid) in pool.broadcast(delayed!(look_around(MOMENT.to_owned()))).unwrap()
                {
                    assert_eq!((folder, moment.as_deref()), (before.clone(), Some("before")), "{method:?}");
                    pids.insert(pid);
                }
                for (_, later, _) in pool.broadcast(delayed!(look_around(LATER.to_owned()))).unwrap() {
                    assert_eq!(later, None, "{method:?}: a variable that was set later is not there");
                }
                assert!(pool.submit(delayed!(crash())).join().unwrap_err().is_crash());
            }
            assert!(pids.len() > 2, "replacements are among them");
            let (folder, _, _) = relative.submit(delayed!(look_around(MOMENT.to_owned()))).join().unwrap();
            assert_eq!(folder, later, "a relative path is one from where the pool was built");
            drop((pool, relative));
            let mut process =
                Process::builder().start_method(method).spawn(delayed!(look_around(MOMENT.to_owned())));
            let (folder, moment, _) = process.as_mut().unwrap().join().unwrap();
            assert_eq!(
                (folder, moment.as_deref()),
                (later.clone(), Some("later")),
                "{method:?}: at its spawn"
            );
        }
        std::env::set_current_dir("/").unwrap();
    });
}

#[test]
fn a_template_that_is_made_again_has_the_surroundings_of_when_the_pool_was_built() {
    alone(|| {
        let folder = Folder::new();
        let (before, later) = (folder.path("before"), folder.path("later"));
        [&before, &later].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        move_to(&before, "before");
        let pool = Pool::builder().jobs(1).start_method(StartMethod::ForkServer).build().unwrap();
        // No worker is there yet, and no template.
        move_to(&later, "later");
        let (folder, moment, _) = pool.submit(delayed!(look_around(MOMENT.to_owned()))).join().unwrap();
        assert_eq!((folder, moment.as_deref()), (before, Some("before")));
        drop(pool);
        std::env::set_current_dir("/").unwrap();
    });
}

#[test]
fn the_processs_own_pool_has_the_surroundings_of_its_first_use() {
    alone_with_warm_pool(|| {
        let folder = Folder::new();
        let (before, later) = (folder.path("before"), folder.path("later"));
        [&before, &later].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        move_to(&before, "before");
        assert!(parallel!(jobs = 1; crash() for _ in 0..1).is_err());
        move_to(&later, "later");
        let (folder, moment, _) = parallel!(look_around(MOMENT.to_owned())).unwrap();
        assert_eq!((folder, moment.as_deref()), (before, Some("before")));
        std::env::set_current_dir("/").unwrap();
    });
}

#[test]
fn a_directory_that_was_renamed_is_kept_by_the_workers_that_begin_in_it() {
    alone(|| {
        let folder = Folder::new();
        let (old, new) = (folder.path("old"), folder.path("new"));
        std::fs::create_dir(&old).unwrap();
        std::env::set_current_dir(&old).unwrap();
        let pool = Pool::builder().start_method(procession::StartMethod::Spawn).jobs(1).build().unwrap();
        std::fs::rename(&old, &new).unwrap();
        let look = || pool.submit(delayed!(look_around(MOMENT.to_owned()))).join();
        assert_eq!(look().unwrap().0, new);
        std::env::set_current_dir("/").unwrap();
        assert!(pool.submit(delayed!(crash())).join().unwrap_err().is_crash());
        let error = look().unwrap_err().to_string();
        assert!(error.contains(old.to_str().unwrap()), "the error names it: {error}");
    });
}

#[test]
fn no_worker_begins_in_another_directory_of_the_same_name() {
    alone(|| {
        let folder = Folder::new();
        let (named, moved) = (folder.path("named"), folder.path("moved"));
        std::fs::create_dir(&named).unwrap();
        std::env::set_current_dir(&named).unwrap();
        let pool = Pool::builder().start_method(procession::StartMethod::Spawn).jobs(1).build().unwrap();
        let look = || pool.submit(delayed!(look_around(MOMENT.to_owned()))).join();
        assert_eq!(look().unwrap().0, named);
        std::env::set_current_dir("/").unwrap();
        std::fs::rename(&named, &moved).unwrap();
        std::fs::create_dir(&named).unwrap();
        assert!(pool.submit(delayed!(crash())).join().unwrap_err().is_crash());
        let error = look().unwrap_err().to_string();
        assert!(error.contains(named.to_str().unwrap()), "the error names it: {error}");
        assert!(error.contains("another folder is there by now"), "{error}");
    });
}

#[worker]
fn umask() -> u32 {
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(old);
    old.bits()
}

#[test]
fn umask_is_that_of_when_a_worker_starts() {
    alone(|| {
        let pool = Pool::builder().jobs(1).start_method(StartMethod::Spawn).build().unwrap();
        let set = |bits| nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(bits));
        let before = set(0o27);
        assert_eq!(pool.submit(delayed!(umask())).join().unwrap(), 0o27);
        set(0o77);
        assert_eq!(pool.submit(delayed!(umask())).join().unwrap(), 0o27, "the worker keeps it");
        assert!(pool.submit(delayed!(crash())).join().unwrap_err().is_crash());
        assert_eq!(pool.submit(delayed!(umask())).join().unwrap(), 0o77, "its replacement starts later");
        set(before.bits());
    });
}
