//! A task that forks: the copy of the worker that returns into the library ends at once, whatever it did before, and the original's
//! result is the task's.
#![expect(unsafe_code, reason = "forks, as tasks of others do")]
#![expect(clippy::exit, reason = "a copy of a worker that ends as programs do")]

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use log::LevelFilter;
use nix::{
    libc,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use procession::{Pool, Process, StartMethod, delayed, parallel, report_progress, worker};
use serde::{Deserialize, Serialize};

use crate::{
    alone::alone,
    end::{EXIT_CODE, End},
    event::{is_there, until, until_exists, within},
    leak::workers,
    logs::{COLLECTOR, collect},
    scratch::{Folder, append, numbers},
};

/// The exit code of a copy of a worker that came back into the library, as docs/protocol.md has it.
const COPY_ENDED: i32 = 90;

/// A copy of this process, which has this thread alone.
fn copy() -> ForkResult {
    // SAFETY: the copy asks for nothing that another thread of a worker may have locked but memory, whose locks the C library sees to.
    unsafe { fork() }.expect("a copy of this process")
}

/// Waits for the copy and returns how it ended.
fn end_of(copy: Pid) -> (Option<i32>, Option<i32>) {
    match waitpid(copy, None).expect("it is this process's child") {
        WaitStatus::Exited(_, code) => (Some(code), None),
        WaitStatus::Signaled(_, signal, _) => (None, Some(signal as i32)),
        other => panic!("{other:?}"),
    }
}

/// Adds its number to the file; `forks`: both, the worker and its copy, return from it, and the copy with a number of its own.
#[worker]
fn step(file: &Path, n: u64, forks: bool) -> u64 {
    append(file, n);
    if forks && matches!(copy(), ForkResult::Child) { n + 1000 } else { n }
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// 50 rounds of a task that forks and of 300 behind it.
fn check_rounds(transport: &str) {
    // SAFETY: no other thread of this process reads the environment: there is no pool yet, and the test harness waits for this test.
    unsafe { std::env::set_var("PROCESSION_TRANSPORT", transport) };
    let folder = Folder::new();
    let pool = Pool::builder().jobs(1).start_method(StartMethod::Spawn).build().unwrap();
    let before = pool.submit(delayed!(pid())).join().unwrap();
    for round in 0..50 {
        let file = folder.path(&format!("round-{round}"));
        let tasks = (0..301).map(|n| delayed!(step(&file, n, n == 0)));
        assert!(pool.map(tasks).unwrap().into_iter().eq(0..301), "round {round}");
        assert!(numbers(&file).into_iter().eq(0..301), "round {round}");
    }
    assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), before);
}

#[test]
fn a_task_that_forks_gives_its_own_result_and_each_task_behind_it_runs_once() {
    alone(|| check_rounds("memory"));
}

#[test]
fn a_task_that_forks_gives_its_own_result_over_a_socket_too() {
    alone(|| check_rounds("socket"));
}

/// The action of a copy before it ends, or instead.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Deed {
    Return,
    Strike(End),
    Log,
    Progress,
    Large,
    LogAtExit,
}

impl Deed {
    const ALL: [Self; 11] = [
        Self::Return,
        Self::Strike(End::Panic),
        Self::Strike(End::Exit),
        Self::Strike(End::Abort),
        Self::Strike(End::Segfault),
        Self::Strike(End::Kill),
        Self::Strike(End::StackOverflow),
        Self::Log,
        Self::Progress,
        Self::Large,
        Self::LogAtExit,
    ];

    /// The exit code and the signal that the copy ends with.
    fn leaves(self) -> (Option<i32>, Option<i32>) {
        match self {
            Self::Strike(end) => end.leaves().unwrap_or((Some(COPY_ENDED), None)),
            Self::LogAtExit => (Some(EXIT_CODE), None),
            _ => (Some(COPY_ENDED), None),
        }
    }
}

extern "C" fn log_at_exit() {
    log::error!("from a copy, at exit");
}

/// The copy does its deed and returns; how it ended is the result.
#[worker]
fn watch_copy(deed: Deed) -> (Option<i32>, Option<i32>, Vec<u8>) {
    report_progress(0.25);
    match copy() {
        ForkResult::Parent { child } => {
            let (code, signal) = end_of(child);
            log::info!("from the worker");
            (code, signal, Vec::new())
        }
        ForkResult::Child => {
            match deed {
                Deed::Return | Deed::Large => {}
                Deed::Strike(end) => end.strike(),
                Deed::Log => {
                    log::error!("from a copy");
                    std::thread::spawn(|| log::error!("from a thread of a copy")).join().unwrap();
                }
                Deed::Progress => report_progress(1.0),
                Deed::LogAtExit => {
                    // SAFETY: the function takes nothing, returns nothing, and does not unwind.
                    unsafe { libc::atexit(log_at_exit) };
                    std::process::exit(EXIT_CODE);
                }
            }
            (None, None, vec![1; if matches!(deed, Deed::Large) { 8 << 20 } else { 8 }])
        }
    }
}

/// Every deed, and the result of all of them.
fn check_deeds(pool: &Pool) {
    let before = pool.submit(delayed!(pid())).join().unwrap();
    for deed in Deed::ALL {
        let (code, signal, rest) = pool.submit(delayed!(watch_copy(deed))).join().unwrap();
        assert_eq!((code, signal), deed.leaves(), "{deed:?}");
        assert!(rest.is_empty(), "{deed:?}: this is the copy's");
        assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), before, "{deed:?}");
    }
    let said: Vec<String> = COLLECTOR.take().into_iter().map(|seen| seen.words).collect();
    assert_eq!(said, vec!["from the worker"; Deed::ALL.len()]);
    // Wants progress.
    let told = parallel!(pool = pool, verbose = 50; watch_copy(Deed::Progress) for _ in 0..1).unwrap();
    assert_eq!(told[0].0, Some(COPY_ENDED));
}

#[test]
fn nothing_that_a_copy_of_a_worker_does_reaches_the_host() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        check_deeds(&pool);
    });
}

#[test]
fn nothing_that_a_copy_of_a_worker_does_reaches_the_host_under_a_memory_limit() {
    alone(|| {
        let builder = Pool::builder().jobs(1).start_method(StartMethod::ForkServer);
        let pool = builder.memory_limit(512 << 20).build().unwrap();
        collect(LevelFilter::Info);
        check_deeds(&pool);
    });
}

/// The copy overflows its stack, which is seen to the end; then the worker ends.
#[worker]
fn strike_after_its_copy(end: End) {
    match copy() {
        ForkResult::Parent { child } => {
            end_of(child);
            end.strike()
        }
        ForkResult::Child => End::StackOverflow.strike(),
    }
}

#[test]
fn a_crash_of_a_copy_is_not_the_cause_of_its_originals_end() {
    alone(|| {
        let pool = Pool::builder().jobs(1).memory_limit(512 << 20).build().unwrap();
        for end in [End::Exit, End::Abort, End::Kill, End::Segfault] {
            let error = pool.submit(delayed!(strike_after_its_copy(end))).join().unwrap_err();
            assert!(error.is_crash() && error.to_string().contains(end.words()), "{error}");
            assert!(!error.to_string().contains("overflow"), "{error}");
        }
    });
}

/// The worker ends at once; its copy, whose pid is in the file, runs on. `apart`: in a session of its own, as a daemon does.
#[worker]
fn leave_a_copy(file: &Path, go: &Path, end: Option<End>, apart: bool) {
    match copy() {
        ForkResult::Parent { .. } => {
            until("the copy is there", || !numbers(file).is_empty());
            if let Some(end) = end {
                end.strike();
            }
        }
        ForkResult::Child => {
            if apart {
                nix::unistd::setsid().unwrap();
            }
            append(file, std::process::id());
            until_exists(go);
        }
    }
}

#[test]
fn a_worker_that_ends_while_its_copy_runs_on_is_seen_to_have_ended_and_the_copy_ends_with_it() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        for end in [End::Exit, End::Abort, End::Kill] {
            let file = folder.path(&format!("{end:?}"));
            let start = Instant::now();
            let task = delayed!(leave_a_copy(&file, &folder.path("go"), Some(end), false));
            let error = pool.submit(task).join().unwrap_err();
            assert!(error.is_crash() && error.to_string().contains(end.words()), "{error}");
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            let copy = u32::try_from(numbers(&file)[0]).unwrap();
            until("the copy is gone", || !is_there(copy));
            assert_eq!(pool.map((0..9).map(|n| delayed!(step(&file, n, false)))).unwrap().len(), 9);
        }
    });
}

#[test]
fn a_copy_in_a_session_of_its_own_holds_up_nothing_and_ends_when_it_returns() {
    alone(|| {
        let folder = Folder::new();
        let (file, go) = (folder.path("pid"), folder.path("go"));
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(leave_a_copy(&file, &go, None, true))).join().unwrap();
        let copy = u32::try_from(numbers(&file)[0]).unwrap();
        // The worker exits in good order, although another process holds its end of the connection.
        pool.join().unwrap();
        assert!(workers().is_empty());
        assert!(is_there(copy));
        std::fs::write(go, "").unwrap();
        until("the copy is gone", || !is_there(copy));
    });
}

/// Becomes a daemon, as servers do: the process that was the worker ends, and its copy continues.
#[worker]
fn become_a_daemon(file: &Path) -> u32 {
    // SAFETY: the copy has one thread, and asks for nothing that another may have locked.
    assert_eq!(unsafe { libc::daemon(1, 1) }, 0);
    append(file, std::process::id());
    std::process::id()
}

#[test]
fn a_task_that_becomes_a_daemon_has_ended_its_worker_and_its_copy_leaves() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("pid");
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(become_a_daemon(&file))).join().unwrap_err();
        assert!(error.is_crash() && error.exit().and_then(|exit| exit.code()) == Some(0), "{error}");
        assert!(
            pool.map((0..9).map(|n| delayed!(step(&folder.path("steps"), n, false)))).unwrap().len() == 9
        );
        // The daemon was killed with its worker's group, or had a session of its own by then, and has ended by itself.
        until("the daemon is gone", || numbers(&file).iter().all(|&pid| !is_there(pid.try_into().unwrap())));
    });
}

/// Starts a program by way of a copy that logs before it executes it.
#[worker]
fn log_before_exec() -> bool {
    let mut command = Command::new("/proc/self/exe");
    // SAFETY: none that std asks for: that the copy logs, and takes memory, is what this is for.
    unsafe {
        command.pre_exec(|| {
            log::error!("from a copy, before exec");
            report_progress(0.5);
            Ok(())
        })
    };
    command.arg("--list").output().unwrap().status.success()
}

#[test]
fn a_copy_that_executes_a_program_sends_nothing_before() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        assert_eq!(pool.map((0..3).map(|_| delayed!(log_before_exec()))).unwrap(), [true; 3]);
        assert!(COLLECTOR.take().is_empty());
    });
}

/// Forks, notes how its copy ended, and returns, as the copy does.
#[worker]
fn fork_and_note(file: &Path) {
    if let ForkResult::Parent { child } = copy() {
        append(file, end_of(child).0.unwrap());
    }
}

#[test]
fn initializers_finalizers_and_preloads_may_fork() {
    alone(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let folder = Folder::new();
            let [first, last, before] = ["first", "last", "before"].map(|name| folder.path(name));
            let mut builder = Pool::builder().jobs(1).start_method(method);
            builder = builder.initializer(delayed!(fork_and_note(&first)));
            builder = builder.finalizer(delayed!(fork_and_note(&last)));
            if method == StartMethod::ForkServer {
                builder = builder.preload(delayed!(fork_and_note(&before)));
            }
            let pool = builder.build().unwrap();
            let file = folder.path("steps");
            assert!(pool.map((0..9).map(|n| delayed!(step(&file, n, n == 4)))).unwrap().into_iter().eq(0..9));
            pool.join().unwrap();
            assert!(numbers(&file).into_iter().eq(0..9));
            assert_eq!((numbers(&first), numbers(&last)), (vec![90], vec![90]), "{method:?}");
            assert_eq!(numbers(&before).len(), usize::from(method == StartMethod::ForkServer));
        }
    });
}

#[worker]
async fn fork_in_a_future(n: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let forked = copy();
    tokio::task::yield_now().await;
    if matches!(forked, ForkResult::Child) { n + 1000 } else { n }
}

#[test]
fn an_async_function_may_fork() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        assert!(pool.map((0..20).map(|n| delayed!(fork_in_a_future(n)))).unwrap().into_iter().eq(0..20));
    });
}

/// The copy has a pool of its own, and returns.
#[worker]
fn work_in_a_copy(file: &Path) -> u64 {
    let inner = Pool::new(1).unwrap();
    let sum: u64 = inner.map((0..10).map(|n| delayed!(step(file, n, false)))).unwrap().iter().sum();
    match copy() {
        ForkResult::Parent { child } => {
            assert_eq!(end_of(child), (Some(COPY_ENDED), None));
            assert_eq!(inner.map((10..20).map(|n| delayed!(step(file, n, false)))).unwrap().len(), 10);
            sum
        }
        ForkResult::Child => {
            drop(inner);
            0
        }
    }
}

#[test]
fn a_copy_of_a_worker_that_holds_a_pool_harms_neither_pool() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("steps");
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.submit(delayed!(work_in_a_copy(&file))).join().unwrap(), 45);
        assert!(numbers(&file).into_iter().eq(0..20));
    });
}

#[test]
fn one_function_in_a_process_of_its_own_may_fork() {
    alone(|| {
        let folder = Folder::new();
        let mut process = Process::spawn(delayed!(step(&folder.path("steps"), 7, true))).unwrap();
        assert_eq!(process.join().unwrap(), 7);
        assert_eq!(process.exit_status().and_then(|exit| exit.code()), Some(0));
    });
}

/// A thread of a task that the task leaves behind forks, and so does what it leaves.
#[worker]
fn fork_in_a_thread(file: &Path) -> bool {
    let file = file.to_owned();
    std::thread::spawn(move || {
        if let ForkResult::Parent { child } = copy() {
            // The copy has this thread alone, which ends, and with it the copy.
            within(Duration::from_secs(20), || {
                let ended = waitpid(child, Some(WaitPidFlag::WNOHANG)) != Ok(WaitStatus::StillAlive);
                if ended {
                    append(&file, child);
                }
                ended
            });
            let _ = kill(child, Signal::SIGKILL);
        } else {
            log::error!("from a copy");
        }
    })
    .join()
    .is_ok()
}

#[test]
fn a_copy_of_a_tasks_own_thread_ends_with_it() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("ended");
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        for _ in 0..5 {
            assert!(pool.submit(delayed!(fork_in_a_thread(&file))).join().unwrap());
        }
        assert_eq!(numbers(&file).len(), 5);
        assert!(COLLECTOR.take().is_empty());
    });
}
