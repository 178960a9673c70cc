//! The table of crashes: wherever a task is when its process ends, and however it ends, that task alone fails, with the cause by
//! name, and the pool serves on.

use std::{path::Path, thread::scope, time::Duration};

use nix::sys::socket::{Shutdown, shutdown};
use procession::{Pool, Task, delayed, is_worker, worker};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    alone::alone,
    end::End,
    event::{is_there, take_time, until, until_exists},
    scratch::Folder,
};

/// The moment in a task at which it happens.
#[derive(Clone, Copy, Debug)]
enum Moment {
    DecodeArgument,
    Run,
    EncodeResult,
    AfterTheResult,
}

/// Strikes when a worker decodes it.
#[derive(Debug, Serialize)]
struct OnDecode(End);

impl<'de> Deserialize<'de> for OnDecode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let end = End::deserialize(deserializer)?;
        if is_worker() { end.strike() } else { Ok(Self(end)) }
    }
}

/// Strikes when a worker encodes it.
#[derive(Debug, Deserialize)]
struct OnEncode(End);

impl Serialize for OnEncode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if is_worker() { self.0.strike() } else { self.0.serialize(serializer) }
    }
}

#[worker]
fn decode(trap: OnDecode) -> OnEncode {
    unreachable!("{trap:?} was decoded")
}

#[worker]
fn strike(end: End) -> OnEncode {
    end.strike()
}

#[worker]
fn encode(end: End) -> OnEncode {
    OnEncode(end)
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// Leaves a thread behind that strikes once the file is there, and notes in another how far it came.
#[worker]
fn leave_behind(end: End, go: &Path, gone: &Path) -> u32 {
    let (go, gone) = (go.to_owned(), gone.to_owned());
    std::thread::spawn(move || {
        /// Reports that the thread has unwound.
        struct Note(std::path::PathBuf);
        impl Drop for Note {
            fn drop(&mut self) {
                let _ = std::fs::write(&self.0, "");
            }
        }
        let _note = Note(gone);
        until_exists(&go);
        end.strike()
    });
    std::process::id()
}

fn check(moment: Moment, end: End) {
    let folder = Folder::new();
    let pool = Pool::new(1).unwrap();
    let before = pool.submit(delayed!(pid())).join().unwrap();
    let task: Task<OnEncode> = match moment {
        Moment::DecodeArgument => delayed!(decode(OnDecode(end))),
        Moment::Run => delayed!(strike(end)),
        Moment::EncodeResult => delayed!(encode(end)),
        Moment::AfterTheResult => return check_after_the_result(&pool, &folder, end),
    };
    let error = pool.submit(task).join().expect_err("the task fails");
    let words = error.to_string();
    assert!(words.contains(end.words()), "{words}");
    assert_eq!(error.worker_pid(), Some(before), "{words}");
    assert_eq!(error.attempts(), 1, "{words}");
    let after = pool.submit(delayed!(pid())).join().expect("the pool serves on");
    match end.leaves() {
        None => {
            assert!(error.is_panic() && error.exit().is_none(), "{error:?}");
            assert_eq!(after, before, "a panic costs no process");
        }
        Some((code, signal)) => {
            assert!(error.is_crash(), "{error:?}");
            let exit = error.exit().expect("how the process ended is known");
            assert_eq!((exit.code(), exit.signal()), (code, signal), "{words}");
            assert_ne!(after, before);
            assert!(!is_there(before), "the crashed worker was reaped");
        }
    }
    assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), after, "the new worker stays");
}

fn check_after_the_result(pool: &Pool, folder: &Folder, end: End) {
    let (go, gone) = (folder.path("go"), folder.path("gone"));
    let before =
        pool.submit(delayed!(leave_behind(end, &go, &gone))).join().expect("the task had ended well");
    std::fs::write(&go, "").unwrap();
    if end.leaves().is_some() {
        until("the worker is gone", || !is_there(before));
    } else {
        until_exists(&gone);
    }
    let after = pool.submit(delayed!(pid())).join().expect("a later task runs elsewhere");
    assert_eq!(after == before, end.leaves().is_none(), "{before} {after}");
    assert_eq!(pool.map((0..20).map(|_| delayed!(pid()))).unwrap(), [after; 20]);
}

macro_rules! row {
    ($row:ident $moment:ident) => {
        mod $row {
            use super::*;
            cells! { $moment: panic Panic, exit Exit, abort Abort, segfault Segfault, sigkill Kill, stack_overflow StackOverflow }
        }
    };
}

macro_rules! cells {
    ($moment:ident: $($name:ident $end:ident),*) => { $(
        #[test]
        fn $name() {
            alone(|| check(Moment::$moment, End::$end));
        }
    )* };
}

row! { decode_argument DecodeArgument }
row! { run Run }
row! { encode_result EncodeResult }
row! { after_the_result AfterTheResult }

#[test]
fn a_crash_of_every_worker_at_once_fails_those_tasks_alone() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let ends = [End::Abort, End::Exit, End::Segfault, End::Kill];
        for _ in 0..3 {
            let crashing: Vec<_> = ends.iter().map(|&end| pool.submit(delayed!(strike(end)))).collect();
            let fine: Vec<_> = (0..8).map(|_| pool.submit(delayed!(pid()))).collect();
            for (handle, end) in crashing.into_iter().zip(ends) {
                let error = handle.join().unwrap_err();
                assert!(error.is_crash() && error.to_string().contains(end.words()), "{error}");
            }
            fine.into_iter().for_each(|handle| assert!(handle.join().is_ok()));
        }
    });
}

#[test]
fn a_worker_that_another_process_kills_while_idle_is_replaced() {
    alone(|| {
        use nix::{sys::signal, unistd::Pid};
        let pool = Pool::new(1).unwrap();
        for _ in 0..3 {
            let before = pool.submit(delayed!(pid())).join().unwrap();
            signal::kill(Pid::from_raw(before.cast_signed()), signal::Signal::SIGKILL).unwrap();
            until("the worker is reaped", || !is_there(before));
            assert_ne!(pool.submit(delayed!(pid())).join().unwrap(), before);
        }
    });
}

#[test]
fn a_task_sent_to_a_worker_that_is_being_killed_runs_or_fails_with_the_reason() {
    alone(|| {
        use nix::{sys::signal, unistd::Pid};
        let pool = Pool::new(1).unwrap();
        for _ in 0..30 {
            let before = pool.submit(delayed!(pid())).join().unwrap();
            signal::kill(Pid::from_raw(before.cast_signed()), signal::Signal::SIGKILL).unwrap();
            // It may have begun before the signal took effect. Then the error says so.
            if let Err(error) = pool.submit(delayed!(pid())).join() {
                assert!(error.is_crash() && error.worker_pid() == Some(before), "{error}");
                assert_eq!(error.exit().and_then(|exit| exit.signal()), Some(9), "{error}");
            }
        }
    });
}

/// Notes its number, and gives it back, a few times over, so that replies have some length.
#[worker]
fn note_and_echo(log: &Path, n: u64) -> Vec<u64> {
    crate::scratch::append(log, n);
    vec![n; (n % 50) as usize]
}

#[test]
fn workers_killed_at_any_time_lose_and_duplicate_no_result() {
    alone(|| {
        use nix::{sys::signal, unistd::Pid};
        const ROUNDS: u64 = 200;
        const TASKS: u64 = 150;
        let folder = Folder::new();
        let pool = Pool::new(2).unwrap();
        let (mut killed, mut random) = (0, 1u64);
        for round in 0..ROUNDS {
            let log = folder.path(&round.to_string());
            let victim = pool.broadcast(delayed!(pid())).unwrap()[(round % 2) as usize];
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pause = std::time::Duration::from_micros((random >> 33) % 1_500);
            let outcomes: Vec<_> = std::thread::scope(|scope| {
                scope.spawn(move || {
                    crate::event::take_time(pause);
                    // It lives until then, because nothing else ends it.
                    let _ = signal::kill(Pid::from_raw(victim.cast_signed()), signal::Signal::SIGKILL);
                });
                pool.imap((0..TASKS).map(|n| delayed!(note_and_echo(&log, n)))).collect()
            });
            assert_eq!(outcomes.len(), TASKS as usize);
            let ran = crate::scratch::numbers(&log);
            let mut lost = 0;
            for (n, outcome) in (0..).zip(outcomes) {
                let times = ran.iter().filter(|&&ran| ran == n).count();
                match outcome {
                    Ok(values) => {
                        assert!(values.len() == (n % 50) as usize && values.iter().all(|value| *value == n));
                        assert_eq!(times, 1, "round {round}: task {n}");
                    }
                    Err(error) => {
                        assert!(
                            error.is_crash() && error.worker_pid() == Some(victim),
                            "round {round}: {error}"
                        );
                        assert!(times <= 1, "round {round}: task {n} ran {times} times");
                        lost += 1;
                    }
                }
            }
            assert!(lost <= 1, "round {round}: one task at most was running");
            killed += u64::from(lost > 0);
            std::fs::remove_file(&log).unwrap();
        }
        assert!(killed > 0, "none was killed while it ran something");
    });
}

#[worker]
fn begin_and_wait(begun: &Path, go: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
}

#[worker]
fn strike_once(file: &Path, end: End) {
    if std::fs::File::create_new(file).is_ok() {
        end.strike()
    }
}

/// Returns how many of this process's threads are asleep.
fn sleeping() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(") S ")).count()
}

#[test]
fn a_crash_fails_only_one_of_the_broadcasts_that_wait_for_a_worker() {
    alone(|| {
        let there = Folder::new();
        let (begun, go, struck) = (there.path("begun"), there.path("go"), there.path("struck"));
        let pool = Pool::new(1).unwrap();
        let busy = pool.submit(delayed!(begin_and_wait(&begun, &go)));
        until_exists(&begun);
        let before = sleeping();
        scope(|scope| {
            let strike = || pool.broadcast(delayed!(strike_once(&struck, End::Kill)));
            let strikes: Vec<_> = (0..3).map(|_| scope.spawn(strike)).collect();
            until("all wait", || sleeping() >= before + 3);
            std::fs::write(&go, "").unwrap();
            let outcomes: Vec<_> = strikes.into_iter().map(|strike| strike.join().unwrap()).collect();
            let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
            assert_eq!(failed.len(), 1, "{failed:?}");
        });
        busy.join().unwrap();
    });
}

/// Succeeds in the first worker alone.
#[worker]
fn be_first(file: &Path) -> Result<(), String> {
    std::fs::File::create_new(file).map(drop).map_err(|_| "another was first".to_owned())
}

/// Task 0 has the host believe that its worker has gone, and stays.
#[worker]
fn go_quiet(n: u64) -> u64 {
    if n == 0 {
        for entry in std::fs::read_dir("/proc/self/fd").expect("/proc is there").filter_map(Result::ok) {
            if std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")) {
                let fd = entry.file_name().to_string_lossy().parse().expect("a number");
                let _ = shutdown(fd, Shutdown::Write);
            }
        }
        take_time(Duration::from_secs(60));
    }
    n
}

#[test]
fn a_pool_that_is_given_up_while_a_worker_is_ending_leaves_no_task_waiting() {
    alone(|| {
        let there = Folder::new();
        let first = there.path("first");
        let pool = Pool::builder().jobs(2).initializer(delayed!(be_first(&first))).build().unwrap();
        let outcomes: Vec<_> = pool.imap((0..6).map(|n| delayed!(go_quiet(n)))).chunk_size(3).collect();
        assert_eq!(outcomes.len(), 6);
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    });
}

/// Ends its process the first time that it runs at this place of the pool.
#[worker]
fn strike_once_at_each_place(folder: &Path) -> usize {
    let place = procession::worker_index().expect("a task runs in a worker");
    let struck = folder.join(place.to_string());
    if !struck.exists() {
        std::fs::write(struck, "").expect("a file of the test's");
        End::Kill.strike();
    }
    place
}

#[test]
fn retries_hold_for_a_broadcast_at_each_place() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(2).retries(1).build().unwrap();
        assert_eq!(pool.broadcast(delayed!(strike_once_at_each_place(folder.root()))).unwrap(), [0, 1]);
        let folder = Folder::new();
        let pool = Pool::new(2).unwrap();
        let error = pool.broadcast(delayed!(strike_once_at_each_place(folder.root()))).unwrap_err();
        assert!(
            error.as_task_error().is_some_and(|error| error.is_crash() && error.attempts() == 1),
            "{error}"
        );
    });
}
