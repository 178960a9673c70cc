//! One function in a process of its own: it starts at once, ends by itself or is ended, tells how, and leaves nothing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a process writes is told apart here")]

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use log::{LevelFilter, Log, Metadata, Record};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};
use procession::{
    Output, Pool, Process, RemoteError, StartMethod, TaskError, delayed, is_worker, parallel, worker,
    worker_index,
};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};

use crate::{
    alone::{alone, alone_in_one_thread, alone_with_warm_pool},
    end::End,
    event::{block_on, is_there, take_time, until, until_exists},
    leak::{Snapshot, descriptors, templates, threads},
    scratch::{Folder, append, numbers},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn who() -> (u32, bool, Option<usize>, bool) {
    (std::process::id(), is_worker(), worker_index(), procession::task_id().is_some())
}

#[worker]
fn strike(end: End) {
    end.strike()
}

#[worker]
fn begin_and_wait(begun: &Path, go: &Path) -> u32 {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
    std::process::id()
}

/// Ends only by force.
#[worker]
#[expect(unsafe_code, reason = "a process that SIGTERM does not end")]
fn ignore_sigterm(begun: &Path) {
    // SAFETY: to ignore a signal installs no handler.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.expect("SIGTERM may be ignored");
    std::fs::write(begun, "").expect("a file of the test's");
    loop {
        std::thread::park();
    }
}

#[worker]
fn many_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| n as u8).collect()
}

#[worker]
fn many_words(n: u32) -> Vec<String> {
    (0..n).map(|n| n.to_string()).collect()
}

#[worker]
fn count(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[worker]
fn refuse() -> Result<u32, RemoteError> {
    Err(RemoteError::msg("not today"))
}

/// Does not cross.
#[derive(Debug, Deserialize)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it would rather stay"))
    }
}

#[worker]
fn take_stubborn(stubborn: Stubborn) {
    let Stubborn = stubborn;
}

#[worker]
fn give_stubborn() -> Stubborn {
    Stubborn
}

/// A process that waits for the file that comes back with it.
fn waiting(folder: &Folder) -> (Process<u32>, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let (begun, go) = (folder.path(&format!("begun {n}")), folder.path(&format!("go {n}")));
    let process = Process::spawn(delayed!(begin_and_wait(&begun, &go))).unwrap();
    until_exists(&begun);
    (process, go)
}

fn code(process: &Process<impl Sized>) -> Option<i32> {
    process.exit_status().and_then(|exit| exit.code())
}

/// The process's own copy of what it is made from is not its affair.
fn is_fork() -> bool {
    std::env::var_os("PROCESSION_START_METHOD").is_some_and(|method| method == "fork")
}

#[test]
fn a_function_runs_in_a_process_of_its_own_which_then_ends() {
    alone(|| {
        let mut process = Process::spawn(delayed!(who())).unwrap();
        let id = process.id();
        assert_ne!(id, std::process::id());
        assert_eq!(process.join().unwrap(), (id, true, None, true));
        assert!(!process.is_alive() && !is_there(id));
        assert_eq!(code(&process), Some(0));
        assert_eq!(process.exit_status().unwrap().signal(), None);
        assert_eq!(process.id(), id, "and still has its number");
    });
}

#[test]
fn a_process_is_alive_until_it_has_ended() {
    alone(|| {
        let folder = Folder::new();
        let (mut process, go) = waiting(&folder);
        assert!(process.is_alive() && process.exit_status().is_none() && is_there(process.id()));
        assert!(process.join_timeout(Duration::ZERO).is_none());
        assert!(process.join_timeout(Duration::from_millis(20)).is_none(), "not yet, ask again");
        std::fs::write(go, "").unwrap();
        assert_eq!(process.join_timeout(Duration::from_secs(60)).unwrap().unwrap(), process.id());
        assert!(!process.is_alive());
    });
}

#[test]
fn a_result_is_given_once_and_asking_again_is_an_error() {
    alone(|| {
        let mut process = Process::spawn(delayed!(echo(1))).unwrap();
        assert_eq!(process.join().unwrap(), 1);
        let check = |error: TaskError| {
            assert!(error.is_lost(), "{error}");
            assert!(error.to_string().contains("already taken"), "{error}");
        };
        check(process.join().unwrap_err());
        check(process.join_timeout(Duration::ZERO).unwrap().unwrap_err());
        check(block_on(&mut process).unwrap_err());
        assert_eq!(code(&process), Some(0));

        let mut process = Process::spawn(delayed!(strike(End::Exit))).unwrap();
        assert!(process.join().unwrap_err().is_crash());
        check(process.join().unwrap_err());
    });
}

#[test]
fn whatever_ends_a_process_is_told_by_name() {
    alone(|| {
        for end in [End::Panic, End::Exit, End::Abort, End::Segfault, End::Kill, End::StackOverflow] {
            let mut process = Process::builder().name("doomed").spawn(delayed!(strike(end))).unwrap();
            let error = process.join().unwrap_err();
            let words = error.to_string();
            assert!(words.contains(end.words()) && words.contains("in process `doomed`"), "{words}");
            assert_eq!(error.is_panic(), end == End::Panic, "{words}");
            assert_eq!(error.is_crash(), end != End::Panic, "{words}");
            assert_eq!((error.worker_pid(), error.attempts()), (Some(process.id()), 1), "{words}");
            let exit = process.exit_status().map(|exit| (exit.code(), exit.signal()));
            // A panic ends the process as it ends any Rust program.
            assert_eq!(exit, end.leaves().or(Some((Some(101), None))), "{words}");
        }
    });
}

#[test]
fn an_err_is_a_result_and_no_failure_of_the_process() {
    alone(|| {
        let mut process = Process::spawn(delayed!(refuse())).unwrap();
        assert_eq!(process.join().unwrap().unwrap_err().to_string(), "not today");
        assert_eq!(code(&process), Some(0));
    });
}

#[test]
fn a_terminated_process_fails_as_a_crash_by_sigterm() {
    alone(|| {
        let folder = Folder::new();
        let (mut process, _) = waiting(&folder);
        process.terminate().unwrap();
        let error = process.join().unwrap_err();
        assert!(error.is_crash() && error.to_string().contains("killed by SIGTERM"), "{error}");
        assert_eq!(error.exit().unwrap().signal(), Some(Signal::SIGTERM as i32));
        assert_eq!(process.exit_status(), error.exit());
        // It has ended: nobody is signalled.
        process.terminate().unwrap();
        process.kill().unwrap();
        assert_eq!(process.exit_status(), error.exit());
    });
}

#[test]
fn a_process_that_ignores_sigterm_lives_until_it_is_killed() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        let mut process = Process::spawn(delayed!(ignore_sigterm(&begun))).unwrap();
        until_exists(&begun);
        process.terminate().unwrap();
        assert!(process.join_timeout(Duration::from_millis(50)).is_none() && process.is_alive());
        process.kill().unwrap();
        let error = process.join().unwrap_err();
        assert!(error.is_crash() && error.to_string().contains("SIGKILL"), "{error}");
    });
}

#[test]
fn a_process_that_is_ended_as_it_starts_fails_by_that_signal() {
    alone(|| {
        for n in 0..20 {
            let mut process =
                Process::spawn(delayed!(begin_and_wait(Path::new("/never"), Path::new("/never")))).unwrap();
            if n % 2 == 0 {
                process.terminate().unwrap()
            } else {
                process.kill().unwrap()
            }
            let error = process.join().unwrap_err();
            let words = if n % 2 == 0 { "SIGTERM" } else { "SIGKILL" };
            assert!(error.is_crash() && error.to_string().contains(words), "{error}");
            assert!(error.attempts() <= 1, "{error}");
        }
    });
}

#[test]
fn a_process_that_somebody_else_kills_is_seen_to_have_ended() {
    alone(|| {
        let folder = Folder::new();
        let (mut process, _) = waiting(&folder);
        kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGKILL).unwrap();
        until("it has ended", || !process.is_alive());
        assert_eq!(process.exit_status().unwrap().signal(), Some(Signal::SIGKILL as i32));
        assert!(process.join().unwrap_err().is_crash());
    });
}

#[test]
fn a_result_larger_than_any_buffer_waits_here_and_its_process_ends_though_nobody_joins() {
    const LEN: usize = 64 << 20;
    alone(|| {
        let mut bytes = Process::spawn(delayed!(many_bytes(LEN))).unwrap();
        let mut words = Process::spawn(delayed!(many_words(1_000_000))).unwrap();
        until("both have ended", || !bytes.is_alive() && !words.is_alive());
        assert!(!is_there(bytes.id()) && code(&bytes) == Some(0));
        let bytes = bytes.join().unwrap();
        assert!(bytes.len() == LEN && bytes.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        assert_eq!(words.join().unwrap().last().unwrap(), "999999");
        let mut count = Process::spawn(delayed!(count(bytes))).unwrap();
        assert_eq!(count.join().unwrap(), LEN, "and an argument so large arrives");
    });
}

#[test]
fn a_dropped_process_is_killed_and_collected() {
    alone(|| {
        let folder = Folder::new();
        let before = Snapshot::take();
        for _ in 0..5 {
            let (process, _) = waiting(&folder);
            let id = process.id();
            drop(process);
            assert!(!is_there(id));
            before.assert_same_now();
            // As it starts.
            let process = Process::spawn(delayed!(echo(1))).unwrap();
            let id = process.id();
            drop(process);
            assert!(!is_there(id));
            before.assert_same_now();
        }
    });
}

#[test]
fn a_detached_process_runs_on_and_is_collected_by_somebody() {
    alone(|| {
        let folder = Folder::new();
        let before = Snapshot::take();
        let (process, go) = waiting(&folder);
        let id = process.id();
        process.detach();
        assert!(is_there(id));
        // Others come and go meanwhile.
        assert_eq!(Process::spawn(delayed!(echo(3))).unwrap().join().unwrap(), 3);
        assert!(is_there(id));
        std::fs::write(go, "").unwrap();
        until("it is collected", || !is_there(id));
        until("nobody watches any more", || threads().len() == before.threads.len());
        until("nothing is left", || descriptors() == before.descriptors);
    });
}

#[test]
fn a_detached_process_ends_with_its_parent() {
    // What is asserted is that it ends with the process.
    alone_with_warm_pool(|| {
        let folder = Folder::new();
        waiting(&folder).0.detach();
        // In a static it is dropped by nobody.
        static KEPT: OnceLock<Process<u32>> = OnceLock::new();
        assert!(KEPT.set(waiting(&folder).0).is_ok());
    });
}

#[test]
fn the_descriptor_becomes_readable_at_the_end() {
    fn is_readable(process: &Process<u32>, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    }
    alone(|| {
        let folder = Folder::new();
        let (process, go) = waiting(&folder);
        assert!(!is_readable(&process, PollTimeout::ZERO));
        std::fs::write(go, "").unwrap();
        assert!(is_readable(&process, PollTimeout::from(60_000u16)));
        // Whoever has been told so can ask.
        assert!(!process.is_alive());
        assert_eq!(code(&process), Some(0));
        assert!(is_readable(&process, PollTimeout::ZERO), "and stays so");
    });
}

#[test]
fn a_process_is_a_future_and_is_killed_if_that_is_dropped() {
    alone(|| {
        assert_eq!(block_on(Process::spawn(delayed!(echo(4))).unwrap()).unwrap(), 4);
        let folder = Folder::new();
        let (mut process, _) = waiting(&folder);
        let id = process.id();
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(std::pin::Pin::new(&mut process).poll(&mut context).is_pending());
        drop(process);
        assert!(!is_there(id));
    });
}

#[test]
fn a_process_may_be_sent_to_another_thread_and_joined_there() {
    alone(|| {
        let mut process = Process::spawn(delayed!(echo(6))).unwrap();
        let joined = std::thread::spawn(move || process.join().unwrap());
        assert_eq!(joined.join().unwrap(), 6);
    });
}

#[test]
fn a_hundred_processes_cost_one_thread() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let before = threads().len();
        let mut processes: Vec<_> = (0..if is_fork() { 20 } else { 100 })
            .map(|n| {
                let begun = folder.path(&format!("begun {n}"));
                Process::spawn(delayed!(begin_and_wait(&begun, &go))).unwrap()
            })
            .collect();
        assert_eq!(threads().len(), before + 1);
        std::fs::write(go, "").unwrap();
        let pids: BTreeSet<u32> = processes.iter_mut().map(|process| process.join().unwrap()).collect();
        assert!(pids.into_iter().eq(processes.iter().map(Process::id).collect::<BTreeSet<_>>()));
        let ids: Vec<u32> = processes.iter().map(Process::id).collect();
        assert!(ids.into_iter().all(|id| !is_there(id)));
    });
}

#[test]
fn processes_are_named_by_their_function_and_a_number_or_as_was_said() {
    alone(|| {
        let (a, b) = (Process::spawn(delayed!(echo(1))).unwrap(), Process::spawn(delayed!(echo(1))).unwrap());
        for name in [a.name(), b.name()] {
            let number = name.strip_prefix("echo-").expect("the function's name first");
            assert!(number.parse::<u32>().is_ok(), "{name}");
        }
        assert_ne!(a.name(), b.name());
        let named = Process::builder().name("server").spawn(delayed!(echo(1))).unwrap();
        assert_eq!(named.name(), "server");
        let words = format!("{named:?}");
        assert!(words.contains("server") && words.contains(&named.id().to_string()), "{words}");
    });
}

#[worker]
fn look_around() -> (Option<String>, PathBuf) {
    (std::env::var("OF_THIS_TEST").ok(), std::env::current_dir().expect("a folder"))
}

/// Name among processes, niceness, how many CPUs, and a variable that a library reads.
#[worker]
fn look_at_oneself() -> (String, i64, usize, Option<String>) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is there");
    let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok());
    let name = std::fs::read_to_string("/proc/self/comm").expect("/proc is there");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    (name.trim().to_owned(), nice.expect("a number"), cpus, std::env::var("RAYON_NUM_THREADS").ok())
}

#[test]
fn each_process_has_the_surroundings_that_its_builder_was_told() {
    alone(|| {
        let folder = Folder::new();
        let own = std::env::current_dir().unwrap();
        let here = folder.root().canonicalize().unwrap();
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let builder = || Process::builder().start_method(method);
            let mut processes = [
                builder().env("OF_THIS_TEST", "1").spawn(delayed!(look_around())).unwrap(),
                builder().current_dir(&here).spawn(delayed!(look_around())).unwrap(),
                builder().env("OF_THIS_TEST", "2").current_dir("/").spawn(delayed!(look_around())).unwrap(),
                builder().spawn(delayed!(look_around())).unwrap(),
            ];
            let value = |n: &str| Some(n.to_owned());
            let expected = [
                (value("1"), own.clone()),
                (None, here.clone()),
                (value("2"), "/".into()),
                (None, own.clone()),
            ];
            for (process, expected) in processes.iter_mut().zip(expected) {
                assert_eq!(process.join().unwrap(), expected, "{method}");
            }
        }
        let builder = Process::builder().name("server").nice(3).pin_cpus(true).inner_threads(7);
        let seen = builder.spawn(delayed!(look_at_oneself())).unwrap().join().unwrap();
        assert_eq!(seen, ("server".to_owned(), look_at_oneself().1 + 3, 1, Some("7".to_owned())));
        let builder = Process::builder().env("OF_THIS_TEST", "1").env_remove("OF_THIS_TEST");
        assert_eq!(builder.spawn(delayed!(look_around())).unwrap().join().unwrap(), (None, own));
        assert!(
            Process::builder()
                .nice(100)
                .spawn(delayed!(echo(1)))
                .unwrap_err()
                .to_string()
                .contains("nice(100)")
        );
        for (name, words) in [("", "env(\"\")"), ("A=B", "env(\"A=B\")")] {
            let error = Process::builder().env(name, "1").spawn(delayed!(echo(1))).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let nowhere = folder.path("nowhere");
        let error =
            Process::builder().current_dir(&nowhere).spawn(delayed!(echo(1))).unwrap_err().to_string();
        assert!(error.contains("current_dir(") && error.contains("nowhere\"): No such file"), "{error}");
    });
}

static FOUND_HERE: AtomicU32 = AtomicU32::new(0);

#[worker]
fn what_is_here() -> u32 {
    FOUND_HERE.load(Ordering::Relaxed)
}

#[test]
fn by_fork_a_process_has_what_its_parent_had_at_its_spawn() {
    alone_in_one_thread(|| {
        let spawn =
            || Process::builder().start_method(StartMethod::Fork).spawn(delayed!(what_is_here())).unwrap();
        FOUND_HERE.store(5, Ordering::Relaxed);
        let mut five = spawn();
        FOUND_HERE.store(6, Ordering::Relaxed);
        let mut six = spawn();
        let mut none =
            Process::builder().start_method(StartMethod::Spawn).spawn(delayed!(what_is_here())).unwrap();
        assert_eq!((five.join().unwrap(), six.join().unwrap(), none.join().unwrap()), (5, 6, 0));
        assert_eq!((code(&five), code(&six)), (Some(0), Some(0)));
    });
}

#[test]
fn by_fork_server_processes_come_from_one_template() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let processes: Vec<_> = (0..5)
            .map(|n| {
                let begun = folder.path(&format!("begun {n}"));
                Process::builder()
                    .start_method(StartMethod::ForkServer)
                    .spawn(delayed!(begin_and_wait(&begun, &go)))
                    .unwrap()
            })
            .collect();
        assert_eq!(templates().len(), 1);
        std::fs::write(&go, "").unwrap();
        for mut process in processes {
            assert_eq!(process.join().unwrap(), process.id());
            assert!(!is_there(process.id()));
        }
        // Killed, it is made again.
        let keep = Process::spawn(delayed!(echo(1))).unwrap();
        for template in templates() {
            // One that was made for a single copy may have left by itself.
            let killed = kill(Pid::from_raw(template.cast_signed()), Signal::SIGKILL);
            assert!(killed.is_ok() || killed == Err(nix::errno::Errno::ESRCH));
        }
        let again = Process::builder().start_method(StartMethod::ForkServer).spawn(delayed!(echo(2)));
        assert_eq!(again.unwrap().join().unwrap(), 2);
        drop(keep);
    });
}

#[test]
fn values_that_do_not_cross_are_errors_of_the_call() {
    alone(|| {
        let error = Process::spawn(delayed!(take_stubborn(Stubborn))).unwrap_err();
        let error = error.into_task_error().unwrap();
        assert!(
            error.is_codec() && error.to_string().contains("`integration::process::Stubborn`"),
            "{error}"
        );
        let mut process = Process::spawn(delayed!(give_stubborn())).unwrap();
        let error = process.join().unwrap_err();
        assert!(
            error.is_codec() && error.to_string().contains("`integration::process::Stubborn`"),
            "{error}"
        );
        assert_eq!(code(&process), Some(101));
    });
}

#[worker]
fn nest() -> (u32, Vec<u32>, u32) {
    let pids = parallel!(who() for _ in 0..3).expect("it runs here");
    let mut inner = Process::spawn(delayed!(who())).expect("a process of a process");
    (std::process::id(), pids.into_iter().map(|(pid, ..)| pid).collect(), inner.join().expect("who it is").0)
}

#[test]
fn a_process_runs_a_parallel_itself_and_may_have_processes() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for (outer, here, inner) in [
            Process::spawn(delayed!(nest())).unwrap().join().unwrap(),
            pool.submit(delayed!(nest())).join().unwrap(),
        ] {
            assert!(here == [outer; 3] && inner != outer && outer != std::process::id());
        }
    });
}

/// How deep it goes, and why no deeper.
#[worker]
fn dive() -> (u32, String) {
    match Process::spawn(delayed!(dive())) {
        Ok(mut process) => match process.join() {
            Ok((deep, why)) => (deep + 1, why),
            Err(error) => (0, error.to_string()),
        },
        Err(error) => (0, error.to_string()),
    }
}

#[test]
fn processes_of_processes_have_a_depth_limit() {
    alone(|| {
        let (deep, why) = Process::spawn(delayed!(dive())).unwrap().join().unwrap();
        assert!((3..20).contains(&deep) && why.contains("workers deep"), "{deep}: {why}");
    });
}

/// One of a tree: starts its two children, waits for them, and notes its end.
#[worker]
fn grow(name: u32, levels: u32, ends: &Path) -> u32 {
    let mut children: Vec<_> = (0..if levels > 1 { 2 } else { 0 })
        .map(|n| Process::spawn(delayed!(grow(name * 2 + n, levels - 1, ends))).expect("room for a child"))
        .collect();
    let below: u32 = children.iter_mut().map(|child| child.join().expect("it ends well")).sum();
    append(ends, name);
    below + 1
}

#[test]
fn a_tree_of_seven_processes_ends_in_the_stated_order() {
    alone(|| {
        let folder = Folder::new();
        let ends = folder.path("ends");
        let mut root = Process::spawn(delayed!(grow(1, 3, &ends))).unwrap();
        assert_eq!(root.join().unwrap(), 7);
        assert_eq!(numbers(&ends), [1, 2, 3, 4, 5, 6, 7]);
        let order: Vec<u32> =
            std::fs::read_to_string(&ends).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        let at = |name: u32| order.iter().position(|one| *one == name).unwrap();
        for name in 2..=7 {
            assert!(at(name) < at(name / 2), "{name} was joined by {}: {order:?}", name / 2);
        }
    });
}

/// Leaves two children behind, each of which has a child.
#[worker]
fn leave_behind(levels: u32, pids: &Path) {
    let _children: Vec<_> = (0..if levels > 1 { 2 } else { 0 })
        .map(|_| Process::spawn(delayed!(leave_behind(levels - 1, pids))).expect("room for a child"))
        .collect();
    append(pids, std::process::id());
    loop {
        std::thread::park();
    }
}

#[test]
fn a_tree_that_is_cut_at_its_root_falls() {
    alone(|| {
        let folder = Folder::new();
        let pids = folder.path("pids");
        let root = Process::spawn(delayed!(leave_behind(3, &pids))).unwrap();
        until("all are there", || numbers(&pids).len() == 7);
        root.kill().unwrap();
        for pid in numbers(&pids) {
            until("it falls", || !is_there(u32::try_from(pid).unwrap()));
        }
        drop(root);
    });
}

/// Has `PROCESSION_IN_PROCESS=1` in its environment.
#[worker]
fn spawn_in_process(begun: &Path, go: &Path) {
    let own = std::process::id();
    let mut process = Process::spawn(delayed!(begin_and_wait(begun, go))).unwrap();
    until_exists(begun);
    assert_eq!(process.id(), own);
    assert!(process.is_alive() && process.exit_status().is_none());
    assert!(process.join_timeout(Duration::from_millis(1)).is_none());
    for error in [process.terminate().unwrap_err(), process.kill().unwrap_err()] {
        assert!(error.to_string().contains("PROCESSION_IN_PROCESS=1"), "{error}");
    }
    std::fs::write(go, "").unwrap();
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    assert!(!process.is_alive());
    assert_eq!(process.join().unwrap(), own);
    assert!(process.join().unwrap_err().is_lost());
    assert_eq!(code(&process), Some(0));
    process.terminate().unwrap();
    assert_eq!(block_on(Process::spawn(delayed!(echo(2))).unwrap()).unwrap(), 2);
    let mut process = Process::spawn(delayed!(strike(End::Panic))).unwrap();
    assert!(process.join().unwrap_err().is_panic());
    assert_eq!(code(&process), Some(101));
    Process::spawn(delayed!(echo(2))).unwrap().detach();
}

#[test]
fn in_process_a_function_runs_on_a_thread() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let builder = Process::builder().env("PROCESSION_IN_PROCESS", "1");
        builder.spawn(delayed!(spawn_in_process(&begun, &go))).unwrap().join().unwrap();
    });
}

#[worker]
fn write_and_strike(end: End) {
    println!("on stdout");
    eprintln!("on stderr");
    end.strike()
}

#[test]
fn what_a_process_writes_goes_where_its_builder_was_told() {
    alone(|| {
        for (output, expected) in [(Output::Capture, true), (Output::Log, true), (Output::Null, false)] {
            for end in [End::Panic, End::Abort] {
                let builder = Process::builder().stdout(output).stderr(output);
                let mut process = builder.spawn(delayed!(write_and_strike(end))).unwrap();
                let error = process.join().unwrap_err();
                let has = |words: Option<&str>, what| words.is_some_and(|words| words.contains(what));
                assert_eq!(has(error.stdout_tail(), "on stdout"), expected, "{output:?} {end:?}");
                assert_eq!(has(error.stderr_tail(), "on stderr"), expected, "{output:?} {end:?}");
            }
        }
    });
}

#[worker]
fn write_lines(go: &Path) {
    until_exists(go);
    (0..100).for_each(|n| println!("line {n}"));
}

#[test]
fn lines_of_a_process_become_records_before_its_end() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        log::set_max_level(LevelFilter::Info);
        let mut process = Process::builder().stdout(Output::Log).spawn(delayed!(write_lines(&go))).unwrap();
        log::set_logger(&LOGGER).unwrap();
        std::fs::write(&go, "").unwrap();
        process.join().unwrap();
        let said = std::mem::take(&mut *LOGGER.said.lock().unwrap());
        let lines = said.iter().filter(|words| words.starts_with("line "));
        assert!(
            lines
                .map(|words| words.split(' ').nth(1).unwrap().to_owned())
                .eq((0..100).map(|n| n.to_string())),
            "{said:?}"
        );
    });
}

/// Keeps what it is given, and joins a process when it is told to.
struct Logger {
    said: Mutex<Vec<String>>,
    to_join: Mutex<Option<Process<u64>>>,
}

static LOGGER: Logger = Logger { said: Mutex::new(Vec::new()), to_join: Mutex::new(None) };

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        struct Names(Vec<String>);
        impl<'kvs> log::kv::VisitSource<'kvs> for Names {
            fn visit_pair(
                &mut self,
                name: log::kv::Key<'kvs>,
                value: log::kv::Value<'kvs>,
            ) -> Result<(), log::kv::Error> {
                self.0.push(if name.as_str() == "pid" { format!("pid={value}") } else { name.to_string() });
                Ok(())
            }
        }
        let mut names = Names(Vec::new());
        record.key_values().visit(&mut names).expect("fields that can be read");
        self.said.lock().unwrap().push(format!("{} {}", record.args(), names.0.join(" ")));
        let to_join = self.to_join.lock().unwrap().take();
        if let Some(mut process) = to_join {
            assert_eq!(process.join().unwrap(), 8);
        }
    }

    fn flush(&self) {}
}

#[worker]
fn speak_for_ever(begun: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    loop {
        log::info!("and");
    }
}

#[test]
fn a_process_that_never_stops_talking_keeps_nobody_waiting() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        log::set_max_level(LevelFilter::Info);
        let talker = Process::spawn(delayed!(speak_for_ever(&begun))).unwrap();
        until_exists(&begun);
        for n in 0..5 {
            assert_eq!(Process::spawn(delayed!(echo(n))).unwrap().join().unwrap(), n);
        }
        assert!(talker.is_alive());
        talker.kill().unwrap();
        until("it is seen to have ended", || !talker.is_alive());
    });
}

#[worker]
fn speak(go: &Path, times: u32) {
    until_exists(go);
    (0..times).for_each(|n| log::info!("word {n}"));
}

#[test]
fn what_a_process_logs_is_out_before_its_end_is_seen_and_a_logger_may_join_processes() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        log::set_max_level(LevelFilter::Info);
        let mut process = Process::spawn(delayed!(speak(&go, 100))).unwrap();
        *LOGGER.to_join.lock().unwrap() = Some(Process::spawn(delayed!(echo(8))).unwrap());
        // A copy of a process that has a logger keeps it: so it is set now.
        log::set_logger(&LOGGER).unwrap();
        std::fs::write(&go, "").unwrap();
        process.join().unwrap();
        let said = std::mem::take(&mut *LOGGER.said.lock().unwrap());
        let expected: Vec<String> = (0..100).map(|n| format!("word {n} pid={} task", process.id())).collect();
        assert_eq!(said, expected);
        assert!(LOGGER.to_join.lock().unwrap().is_none(), "and it has joined");
    });
}

#[test]
fn processes_that_run_on_cost_their_parent_no_cpu() {
    alone(|| {
        let folder = Folder::new();
        let waiting: Vec<_> = (0..10).map(|_| waiting(&folder).0).collect();
        let ticks = || {
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
            let rest = stat.rsplit(')').next().unwrap_or_default();
            rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>()
        };
        take_time(Duration::from_millis(50));
        let before = ticks();
        take_time(Duration::from_millis(400));
        assert!(ticks() - before <= 5, "{} hundredths of a second", ticks() - before);
        drop(waiting);
    });
}

#[test]
fn many_threads_start_and_join_processes_at_once() {
    if is_fork() {
        // Only a process with one thread can be copied.
        return;
    }
    alone(|| {
        std::thread::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move || {
                    for i in 0..10 {
                        let mut process = Process::spawn(delayed!(echo(n * 100 + i))).unwrap();
                        assert_eq!(process.join().unwrap(), n * 100 + i);
                    }
                });
            }
        });
    });
}
