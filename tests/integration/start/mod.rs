//! Start methods: what a template loads once is there in every worker, replaced ones included. Whatever ends a template, the pool's
//! calls return a result or an error that says why.

mod copy;
mod preload;

use std::{
    cell::Cell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procession::{Builder, Pool, RemoteError, StartMethod, TaskError, delayed, worker};

use self::preload::use_threads;
use crate::{
    alone::{alone, alone_in_one_thread},
    end::{EXIT_CODE, End},
    event::{is_there, take_time, until, until_exists},
    leak::{children, settle, templates, workers},
    scratch::{Folder, append, numbers},
};

/// The data that a preload leaves for the workers.
static LOADED: OnceLock<Vec<u64>> = OnceLock::new();

thread_local! {
    static ON_THIS_THREAD: Cell<u32> = const { Cell::new(0) };
}

#[worker]
fn load(runs: &Path, value: u64) {
    append(runs, std::process::id());
    LOADED.get_or_init(|| vec![value; 1000]);
    ON_THIS_THREAD.set(7);
}

/// Returns what was loaded, this process, and its parent.
#[worker]
fn look() -> (Option<u64>, u32, u32) {
    let loaded = LOADED.get().and_then(|loaded| loaded.last().copied());
    (loaded, std::process::id(), std::os::unix::process::parent_id())
}

#[worker]
fn thread_local() -> u32 {
    ON_THIS_THREAD.get()
}

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn strike(end: End) {
    end.strike()
}

#[worker]
fn wait_for(begun: &Path, go: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
}

fn server() -> Builder {
    Pool::builder().start_method(StartMethod::ForkServer).max_restarts(4, Duration::from_secs(30))
}

/// Runs the body under each method that has a template.
fn with_each_template(body: impl Fn(StartMethod)) {
    [StartMethod::ForkServer, StartMethod::Fork].into_iter().for_each(body);
}

#[test]
fn a_preload_runs_once_in_the_template_and_every_worker_sees_what_it_loaded() {
    alone_in_one_thread(|| {
        with_each_template(|method| {
            let there = Folder::new();
            let runs = there.path("runs");
            let preload = delayed!(load(&runs, 42));
            let pool = Pool::builder().jobs(3).start_method(method).preload(preload).build().unwrap();
            let seen = pool.broadcast(delayed!(look())).unwrap();
            let [template] = templates()[..] else { panic!("one template, not {:?}", templates()) };
            assert!(seen.iter().all(|(loaded, ..)| *loaded == Some(42)), "{seen:?}");
            assert!(seen.iter().all(|(.., parent)| *parent == template), "{template} {seen:?}");
            let pids: BTreeSet<u32> = seen.iter().map(|(_, pid, _)| *pid).collect();
            assert_eq!(pids, workers());
            assert_eq!(numbers(&runs), [u64::from(template)], "{method}");
            assert_eq!(
                pool.submit(delayed!(thread_local())).join().unwrap(),
                7,
                "on the preload's own thread"
            );
            assert_eq!(LOADED.get(), None, "and nothing of it is here");
        });
    });
}

#[test]
fn replaced_workers_come_from_the_template_that_has_loaded() {
    alone_in_one_thread(|| {
        with_each_template(|method| {
            let there = Folder::new();
            let runs = there.path("runs");
            let preload = delayed!(load(&runs, 5));
            let pool = Pool::builder().jobs(1).start_method(method).preload(preload).build().unwrap();
            let mut pids = BTreeSet::new();
            for end in [End::Kill, End::Exit, End::Segfault, End::Abort, End::StackOverflow] {
                let (loaded, pid, _) = pool.submit(delayed!(look())).join().unwrap();
                assert!(loaded == Some(5) && pids.insert(pid), "{method} {end:?}");
                let error = pool.submit(delayed!(strike(end))).join().unwrap_err();
                let exit = error.exit().map(|exit| (exit.code(), exit.signal()));
                assert_eq!(exit, end.leaves(), "{method}: {error}");
                assert!(error.to_string().contains(end.words()), "{method}: {error}");
                assert_eq!(error.worker_pid(), Some(pid));
                assert!(!is_there(pid), "{method}: it was reaped");
            }
            assert_eq!(numbers(&runs).len(), 1, "{method}");
        });
    });
}

#[test]
fn a_worker_that_is_killed_while_it_waits_to_be_wanted_is_not_given_out() {
    alone(|| {
        let pool = server().jobs(1).build().unwrap();
        for _ in 0..3 {
            let (_, serving, template) = pool.submit(delayed!(look())).join().unwrap();
            settle();
            let next = children_of_but(template, serving);
            kill(Pid::from_raw(next.cast_signed()), Signal::SIGKILL).unwrap();
            until("it is gone", || !is_there(next));
            assert!(pool.submit(delayed!(strike(End::Exit))).join().unwrap_err().is_crash());
            assert_ne!(pool.submit(delayed!(look())).join().unwrap().1, next);
        }
    });
}

/// The only other child.
fn children_of_but(parent: u32, one: u32) -> u32 {
    let all = crate::leak::children_of(parent);
    let [other] = all.into_keys().filter(|pid| *pid != one).collect::<Vec<_>>()[..] else {
        panic!("two children")
    };
    other
}

#[test]
fn a_template_that_is_killed_is_made_again_and_tasks_that_run_go_on() {
    alone(|| {
        let there = Folder::new();
        let (runs, begun, go) = (there.path("runs"), there.path("begun"), there.path("go"));
        let pool = server().jobs(2).preload(delayed!(load(&runs, 9))).build().unwrap();
        let running = pool.submit(delayed!(wait_for(&begun, &go)));
        until_exists(&begun);
        let [template] = templates()[..] else { panic!("one template") };
        kill(Pid::from_raw(template.cast_signed()), Signal::SIGKILL).unwrap();
        until("the template is reaped", || !is_there(template));
        // The other place is filled by a worker of another template.
        let seen: Vec<_> = (0..20).map(|_| pool.submit(delayed!(look())).join().unwrap()).collect();
        assert!(seen.iter().all(|(loaded, ..)| *loaded == Some(9)), "{seen:?}");
        assert_eq!(numbers(&runs).len(), 2);
        std::fs::write(&go, "").unwrap();
        running.join().expect("its worker has not noticed");
        // The exit status of an orphan is unknown, but not the fact that it has ended.
        let errors: Vec<_> =
            (0..4).map(|_| pool.submit(delayed!(strike(End::Kill))).join().unwrap_err()).collect();
        assert!(errors.iter().all(TaskError::is_crash), "{errors:?}");
        assert_eq!(pool.submit(delayed!(look())).join().unwrap().0, Some(9));
        assert_eq!(numbers(&runs).len(), 2);
    });
}

#[test]
fn a_pool_whose_template_is_gone_fails_every_task_immediately() {
    alone_in_one_thread(|| {
        let pool = Pool::builder().jobs(1).chunk_size(1).start_method(StartMethod::Fork).build().unwrap();
        let (_, _, template) = pool.submit(delayed!(look())).join().unwrap();
        kill(Pid::from_raw(template.cast_signed()), Signal::SIGKILL).unwrap();
        until("the template is reaped", || !is_there(template));
        assert!(pool.submit(delayed!(strike(End::Kill))).join().unwrap_err().is_crash());
        let start = Instant::now();
        let outcomes: Vec<_> = pool.imap((0..500).map(|_| delayed!(look()))).collect();
        assert!(outcomes.len() == 500 && outcomes.iter().all(|outcome| outcome.is_err()));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    });
}

#[test]
fn a_copy_of_this_process_that_is_killed_leaves_its_workers_and_an_error_for_the_next() {
    alone_in_one_thread(|| {
        let pool = Pool::builder().jobs(1).start_method(StartMethod::Fork).build().unwrap();
        let (_, pid, template) = pool.submit(delayed!(look())).join().unwrap();
        kill(Pid::from_raw(template.cast_signed()), Signal::SIGKILL).unwrap();
        until("the template is reaped", || !is_there(template));
        assert_eq!(pool.submit(delayed!(look())).join().unwrap().1, pid, "its worker serves on");
        assert!(pool.submit(delayed!(strike(End::Kill))).join().unwrap_err().is_crash());
        let error = pool.submit(delayed!(look())).join().unwrap_err();
        let words = error.to_string();
        assert!(
            error.is_lost() && words.contains("SIGKILL") && words.contains("cannot be replaced"),
            "{words}"
        );
    });
}

#[test]
fn tasks_can_be_submitted_while_a_slow_preload_runs_and_the_pool_then_ends_promptly() {
    alone(|| {
        let there = Folder::new();
        let (begun, never) = (there.path("begun"), there.path("never"));
        let pool = server().jobs(2).preload(delayed!(wait_for(&begun, &never))).build().unwrap();
        let start = Instant::now();
        let handles: Vec<_> = (0..100).map(|n| pool.submit(delayed!(echo(n)))).collect();
        until_exists(&begun);
        assert!(handles.iter().all(|handle| !handle.is_finished()));
        drop(pool);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        assert_eq!(children().len(), 0);
    });
}

#[test]
fn a_process_that_waits_for_a_slow_preload_sleeps() {
    alone(|| {
        let there = Folder::new();
        let (begun, go) = (there.path("begun"), there.path("go"));
        let pool = server().jobs(2).preload(delayed!(wait_for(&begun, &go))).build().unwrap();
        let handle = pool.submit(delayed!(echo(1)));
        until_exists(&begun);
        let before = cpu_ticks();
        take_time(Duration::from_millis(500));
        let spent = cpu_ticks() - before;
        std::fs::write(&go, "").unwrap();
        assert_eq!(handle.join().unwrap(), 1);
        assert!(spent < 10, "{spent} ticks of a hundredth of a second");
    });
}

/// Returns the CPU time that this process has used.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_preload_has_the_pools_environment_and_folder_and_workers_have_them_once() {
    #[worker]
    fn note(name: &Path) {
        let variable = std::env::var("START_TEST").unwrap_or_default();
        std::fs::write(name, variable).expect("a folder of the test's");
    }
    #[worker]
    fn folder() -> (PathBuf, String) {
        let variable = std::env::var("START_TEST").unwrap_or_default();
        (std::env::current_dir().expect("a folder"), variable)
    }
    alone_in_one_thread(|| {
        with_each_template(|method| {
            let there = Folder::new();
            std::env::set_current_dir(there.root()).unwrap();
            std::fs::create_dir("below").unwrap();
            let pool = Pool::builder()
                .jobs(1)
                .start_method(method)
                .env("START_TEST", "of the pool")
                .current_dir("below")
                .preload(delayed!(note(Path::new("noted"))))
                .build()
                .unwrap();
            let (folder, variable) = pool.submit(delayed!(folder())).join().unwrap();
            assert_eq!(folder, there.path("below").canonicalize().unwrap(), "{method}");
            assert_eq!(variable, "of the pool");
            assert_eq!(std::fs::read_to_string("below/noted").unwrap(), "of the pool");
            assert!(std::env::var("START_TEST").is_err());
            std::env::set_current_dir("/").unwrap();
        });
    });
}

const SHARED_BYTES: usize = 64 << 20;

#[worker]
fn load_much() {
    LOADED.get_or_init(|| vec![3; SHARED_BYTES / 8]);
}

/// Reads all of it, and returns the memory use of this process: its own part, and all that it has mapped.
#[worker]
fn weigh() -> (usize, usize) {
    let loaded = LOADED.get().expect("it was loaded");
    assert!(loaded.iter().all(|n| *n == 3));
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc is there");
    let kib = |name: &str| -> usize {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    (kib("Pss:") << 10, kib("Rss:") << 10)
}

#[test]
fn the_memory_that_a_template_has_loaded_is_shared_by_its_workers() {
    alone(|| {
        let pool = server().jobs(3).preload(delayed!(load_much())).build().unwrap();
        let _ = pool.broadcast(delayed!(weigh())).unwrap();
        settle();
        for (proportional, resident) in pool.broadcast(delayed!(weigh())).unwrap() {
            assert!(resident >= SHARED_BYTES, "{resident} bytes are mapped");
            // Four or five processes share it.
            assert!(
                proportional < SHARED_BYTES / 2,
                "{proportional} of {resident} bytes are a worker's own part"
            );
        }
    });
}

#[test]
fn a_preload_without_a_template_is_refused_with_a_way_out() {
    alone(|| {
        let build = |method| Pool::builder().start_method(method).preload(delayed!(use_threads())).build();
        let error = build(StartMethod::Spawn).unwrap_err().to_string();
        assert!(error.contains("ForkServer") && error.contains("use_threads"), "{error}");
    });
}

#[test]
fn the_environment_sets_the_start_method_and_a_mistake_is_refused_by_name() {
    #[worker]
    fn build() -> Result<(bool, u32), String> {
        let pool = Pool::new(1).map_err(|error| error.to_string())?;
        let parent = pool.submit(delayed!(look())).join().map_err(|error| error.to_string())?.2;
        Ok((parent == std::process::id(), parent))
    }
    alone(|| {
        let said = |value: &str| {
            let pool = Pool::builder().jobs(1).env("PROCESSION_START_METHOD", value).build().unwrap();
            pool.submit(delayed!(build())).join().unwrap()
        };
        assert!(said("spawn").unwrap().0, "a worker's own worker is its child");
        assert!(!said("forkserver").unwrap().0, "it is its template's");
        assert!(!said("fork").unwrap().0, "a worker is not copied, for it has two threads");
        let error = said("thread").unwrap_err();
        assert!(error.contains("PROCESSION_START_METHOD=thread"), "{error}");
    });
}

#[test]
fn a_preload_runs_once_in_a_pool_that_the_environment_put_in_process() {
    #[worker]
    fn preloaded_here(runs: &Path) -> Vec<Option<u64>> {
        let pool = server().jobs(2).preload(delayed!(load(runs, 4))).build().expect("a pool in a worker");
        pool.map((0..3).map(|_| delayed!(look()))).expect("they run").into_iter().map(|seen| seen.0).collect()
    }
    alone(|| {
        let there = Folder::new();
        let runs = there.path("runs");
        let pool = Pool::builder().jobs(1).env("PROCESSION_IN_PROCESS", "1").build().unwrap();
        assert_eq!(pool.submit(delayed!(preloaded_here(&runs))).join().unwrap(), [Some(4); 3]);
        assert_eq!(numbers(&runs).len(), 1);
    });
}

#[test]
fn a_template_knows_that_it_is_no_ordinary_process() {
    #[worker]
    fn ask(answers: &Path) -> Result<(), RemoteError> {
        // A call that names no pool runs here, and leaves no thread.
        let inner = procession::parallel!(echo(n) for n in 0..3)?;
        append(answers, u32::from(procession::is_worker()));
        append(answers, procession::worker_index().map_or(2, |_| 3));
        inner.into_iter().for_each(|n| append(answers, n + 10));
        Ok(())
    }
    alone(|| {
        let there = Folder::new();
        let answers = there.path("answers");
        let pool = server().jobs(1).preload(delayed!(ask(&answers))).build().unwrap();
        let error = pool.submit(delayed!(strike(End::Exit))).join().unwrap_err();
        assert_eq!(error.exit().and_then(|exit| exit.code()), Some(EXIT_CODE));
        assert_eq!(numbers(&answers), [1, 2, 10, 11, 12]);
    });
}
