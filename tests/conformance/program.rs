//! The promises of every launcher, as a program with one thread: `conformance METHOD PROMISE` keeps the promise or panics.
//!
//! A copy of the host (`StartMethod::Fork`) can be made only of a process with one thread, so the promises are not tests themselves.
//! `main.rs` runs each of them for every start method and transport.
#![expect(clippy::unwrap_used, reason = "a promise that is not kept has failed")]
#![expect(clippy::exit, clippy::print_stdout, reason = "workers that end and write when told to")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::signal::{Signal, kill, raise},
    unistd::Pid,
};
use procession::{Builder, Exit, Output, Pool, Process, StartMethod, TaskError, delayed, worker};

/// The time to wait for something that happens immediately, with room for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A promise and what keeps it.
type Promise = (&'static str, fn(StartMethod));

const PROMISES: &[Promise] = &[
    ("a_worker_starts_within_the_timeout", a_worker_starts_within_the_timeout),
    ("a_worker_that_does_not_start_reports_why", a_worker_that_does_not_start_reports_why),
    ("a_worker_ends_when_its_connection_ends", a_worker_ends_when_its_connection_ends),
    ("a_worker_that_was_killed_is_reported", a_worker_that_was_killed_is_reported),
    ("kill_and_terminate_end_a_process", kill_and_terminate_end_a_process),
    ("the_exit_status_is_reported", the_exit_status_is_reported),
    ("output_is_delivered_completely", output_is_delivered_completely),
    ("memory_use_is_reported", memory_use_is_reported),
    ("a_running_task_can_be_asked_to_end", a_running_task_can_be_asked_to_end),
    ("tasks_that_have_not_begun_survive_their_worker", tasks_that_have_not_begun_survive_their_worker),
    ("workers_end_with_their_host", workers_end_with_their_host),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [method, promise] = &arguments[..] else { panic!("conformance METHOD PROMISE") };
    let method = match &method[..] {
        "spawn" => StartMethod::Spawn,
        "forkserver" => StartMethod::ForkServer,
        "fork" => StartMethod::Fork,
        _ => panic!("there is no start method {method}"),
    };
    let (_, keep) = PROMISES.iter().find(|(name, _)| name == promise).expect("a promise of the list");
    let before = belongings();
    keep(method);
    until("what was made is gone", || belongings() == before);
    println!("kept");
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", belongings());
        thread::yield_now();
    }
}

/// Everything that a launcher could leave behind.
#[derive(Debug, PartialEq)]
struct Belongings {
    /// Zombies are children, too.
    children: Vec<String>,
    descriptors: BTreeSet<String>,
    threads: usize,
    segments: usize,
}

fn belongings() -> Belongings {
    let tasks: Vec<_> = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path()).collect();
    let children = tasks.iter().flat_map(|task| {
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    // The descriptor that lists them is closed afterwards.
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
        let path = fd.unwrap().path();
        Some(format!("{} {}", path.display(), fs::read_link(&path).ok()?.display()))
    });
    let descriptors = descriptors.filter(|fd| !fd.contains("/proc/")).collect();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    Belongings {
        children: children.collect(),
        descriptors,
        threads: tasks.len(),
        segments: maps.matches("memfd:").count(),
    }
}

/// Returns a path that nothing has.
fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("procession-conformance-{}", std::process::id()))
}

fn pool(method: StartMethod) -> Builder {
    Pool::builder().jobs(1).start_method(method)
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn exit(error: &TaskError) -> Exit {
    error.exit().expect("how the process ended")
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn stay() {
    loop {
        thread::park();
    }
}

#[worker]
fn leave(code: i32) {
    std::process::exit(code);
}

#[worker]
fn end_by(signal: i32) {
    raise(Signal::try_from(signal).unwrap()).unwrap();
    stay();
}

#[worker]
fn write_lines(n: usize) {
    (0..n).for_each(|n| println!("line {n:04}"));
}

/// Creates this file, to show that it runs.
#[worker]
fn stay_at(path: &str) {
    fs::write(path, "").unwrap();
    stay();
}

#[worker]
fn until_told() -> bool {
    while !procession::is_cancelled() {
        thread::yield_now();
    }
    true
}

/// Makes this file and ends the worker the first time, and returns the number the next time.
#[worker]
fn end_once(path: &str, n: u32) -> u32 {
    if n == 0 && !Path::new(path).exists() {
        fs::write(path, "").unwrap();
        std::process::abort();
    }
    n
}

fn a_worker_starts_within_the_timeout(method: StartMethod) {
    let begun = Instant::now();
    let pool = pool(method).jobs(2).start_timeout(PATIENCE).build().unwrap();
    let pids: BTreeSet<u32> = pool.broadcast(delayed!(pid())).unwrap().into_iter().collect();
    assert!(pids.len() == 2 && !pids.contains(&std::process::id()), "{pids:?}");
    assert!(begun.elapsed() < PATIENCE);
}

fn a_worker_that_does_not_start_reports_why(method: StartMethod) {
    let folder = scratch();
    fs::create_dir(&folder).unwrap();
    let pool = pool(method).current_dir(&folder).max_restarts(0, PATIENCE).build().unwrap();
    fs::remove_dir(&folder).unwrap();
    let error = pool.submit(delayed!(pid())).join().unwrap_err().to_string();
    assert!(error.contains("procession-conformance-"), "{error}");
}

fn a_worker_ends_when_its_connection_ends(method: StartMethod) {
    let pool = pool(method).build().unwrap();
    let worker = pool.submit(delayed!(pid())).join().unwrap();
    assert!(is_alive(worker));
    drop(pool);
    until("an idle worker ends", || !is_alive(worker));
}

fn a_worker_that_was_killed_is_reported(method: StartMethod) {
    let pool = pool(method).build().unwrap();
    let worker = pool.submit(delayed!(pid())).join().unwrap();
    let path = scratch();
    let task = pool.submit(delayed!(stay_at(path.to_str().unwrap())));
    until("the task has begun", || path.exists());
    fs::remove_file(&path).unwrap();
    kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL).unwrap();
    let error = task.join().unwrap_err();
    assert!(error.is_crash() && exit(&error).signal() == Some(libc::SIGKILL), "{error}");
    assert_eq!(error.worker_pid(), Some(worker));
    assert_ne!(pool.submit(delayed!(pid())).join().unwrap(), worker, "another one takes its place");
}

fn kill_and_terminate_end_a_process(method: StartMethod) {
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let mut process: Process<()> =
            Process::builder().start_method(method).spawn(delayed!(stay())).unwrap();
        assert!(process.is_alive() && is_alive(process.id()));
        if signal == libc::SIGKILL { process.kill() } else { process.terminate() }.unwrap();
        process.join().unwrap_err();
        assert_eq!(process.exit_status().and_then(|exit| exit.signal()), Some(signal));
        assert!(!process.is_alive() && !is_alive(process.id()));
    }
}

fn the_exit_status_is_reported(method: StartMethod) {
    let pool = pool(method).build().unwrap();
    let error = pool.submit(delayed!(leave(7))).join().unwrap_err();
    assert_eq!(exit(&error).code(), Some(7), "{error}");
    for signal in [libc::SIGTERM, libc::SIGABRT, libc::SIGKILL] {
        let error = pool.submit(delayed!(end_by(signal))).join().unwrap_err();
        assert_eq!(exit(&error).signal(), Some(signal), "{error}");
    }
}

fn output_is_delivered_completely(method: StartMethod) {
    let pool = pool(method).stdout(Output::Capture).build().unwrap();
    let expected = |n| (0..n).map(|n| format!("line {n:04}\n")).collect::<String>();
    for n in [0, 1, 5000] {
        let (result, wrote) = pool.submit(delayed!(write_lines(n))).join_captured();
        result.unwrap();
        assert!(wrote.stdout() == expected(n), "{n} lines: {} bytes", wrote.stdout().len());
    }
}

fn memory_use_is_reported(method: StartMethod) {
    let pool = pool(method).build().unwrap();
    pool.submit(delayed!(pid())).join().unwrap();
    let bytes = pool.stats().workers()[0].peak_rss_bytes();
    assert!((1 << 18..1 << 36).contains(&bytes), "{bytes} bytes");
}

fn a_running_task_can_be_asked_to_end(method: StartMethod) {
    let limit = Duration::from_millis(50);
    let pool = pool(method).task_timeout(limit).build().unwrap();
    let error = pool.submit(delayed!(until_told())).join().unwrap_err();
    assert!(error.is_timeout(), "{error}");
    pool.submit(delayed!(pid())).join().unwrap();
}

fn tasks_that_have_not_begun_survive_their_worker(method: StartMethod) {
    let pool = pool(method).build().unwrap();
    let path = scratch();
    let name = path.to_str().unwrap();
    let handles: Vec<_> = (0..20).map(|n| pool.submit(delayed!(end_once(name, n)))).collect();
    let results: Vec<_> = handles.into_iter().map(|handle| handle.join()).collect();
    fs::remove_file(&path).unwrap();
    assert!(results[0].as_ref().is_err_and(TaskError::is_crash), "{:?}", results[0]);
    let others: Vec<u32> = results.into_iter().skip(1).map(Result::unwrap).collect();
    assert_eq!(others, (1..20).collect::<Vec<_>>());
}

/// The program is run once more, and killed while a task runs.
fn workers_end_with_their_host(method: StartMethod) {
    if std::env::var_os("CONFORMANCE_HOST").is_some() {
        let pool = pool(method).build().unwrap();
        println!("{}", pool.submit(delayed!(pid())).join().unwrap());
        pool.submit(delayed!(until_told())).join().unwrap();
        return;
    }
    let mut host = std::process::Command::new(std::env::current_exe().unwrap());
    host.args(std::env::args_os().skip(1)).env("CONFORMANCE_HOST", "1").stdout(std::process::Stdio::piped());
    let mut host = host.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(host.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    let worker = line.trim().parse().unwrap();
    assert!(is_alive(worker));
    host.kill().unwrap();
    host.wait().unwrap();
    until("a worker ends with its host", || !is_alive(worker));
}
