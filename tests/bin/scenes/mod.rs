//! The scenes that the tests of `isolated/` have a program play, named by its first argument. `PROBE_MAINS` names a file to which
//! each run of `main` adds a line.

mod busy;
mod causes;
mod closed;
mod closing;
mod collected;
mod limited;
mod refused;
mod unsignalled;

use std::{
    fs::{self, OpenOptions},
    hint::black_box,
    io::Write as _,
    os::fd::IntoRawFd as _,
    process::{self, Command},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use nix::{
    fcntl, libc,
    sys::{
        resource::{Resource, setrlimit},
        signal,
        stat::Mode,
    },
    unistd,
};
use procession::{Pool, Process, delayed, parallel, worker};
use procession_tests::MARKER;

use self::{
    busy::{
        leave_while_workers_start, occupy, start_failing, start_failing_process, stay, stay_there, stop,
        wait_for_a_stuck,
    },
    refused::{do_in_a_thread, panic_once, refuse, refuse_by_name, run_short_of_memory, try_one},
};

/// Whether this program's own constructor has run.
static CONSTRUCTED: AtomicBool = AtomicBool::new(false);

#[used]
// The loader calls the functions in this section once, before `main`. In C, arguments that a function does not take do no harm.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    CONSTRUCTED.store(true, Relaxed);
}

#[used]
// As above; a number in the section's name puts it before those without.
#[unsafe(link_section = ".init_array.00050")]
static EARLY_CONSTRUCTOR: extern "C" fn() = fail_to_start;

/// In a worker, before it could become one: does as `PROBE_START` says, and notes in the file `PROBE_STARTS` that it was there.
extern "C" fn fail_to_start() {
    let is_worker = std::env::var_os(MARKER).is_some();
    let Some(how) = std::env::var_os("PROBE_START").filter(|_| is_worker) else { return };
    if let Some(file) = std::env::var_os("PROBE_STARTS") {
        let _ =
            OpenOptions::new().append(true).create(true).open(file).and_then(|mut file| file.write_all(b"."));
    }
    match how.to_str() {
        Some("exit") => {
            // SAFETY: _exit ends the process and runs nothing of it.
            unsafe { libc::_exit(42) }
        }
        Some("abort") => process::abort(),
        Some("panic") => panic!("in a constructor"),
        // Another build takes its place, and all that it has.
        Some("other build") => {
            let other = std::env::current_exe().unwrap().with_file_name("probe_at_main");
            let mut command = Command::new(other);
            let error = std::os::unix::process::CommandExt::exec(command.env_remove("PROBE_START"));
            panic!("{error}");
        }
        Some("print") => {
            println!("a constructor says this");
            eprintln!("a constructor says that");
        }
        // Those that it has, and no more.
        Some("files") => {
            setrlimit(Resource::RLIMIT_NOFILE, 4, 4).unwrap();
        }
        // Too little for what it shares with its host.
        Some("space") => {
            let has = fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = has.split(' ').next().unwrap().parse().unwrap();
            let most = pages * 4096 + (256 << 10);
            setrlimit(Resource::RLIMIT_AS, most, most).unwrap();
        }
        Some("stop") => signal::raise(signal::Signal::SIGSTOP).unwrap(),
        _ => loop {
            std::thread::park();
        },
    }
}

/// Adds a line to the file that counts the runs of `main`, if there is one.
fn count_main() {
    if let Some(file) = std::env::var_os("PROBE_MAINS") {
        let line = format!("{}\n", process::id());
        OpenOptions::new().append(true).create(true).open(file).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// Plays the scene that the first argument names.
pub(crate) fn play() {
    count_main();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["hello"] => println!("hello from main"),
        ["child"] => {
            println!("child up");
            loop {
                std::thread::park();
            }
        }
        ["squares"] => println!("{}", squares()),
        ["state"] => state(),
        ["again"] => print!(
            "{}",
            Pool::new(1).unwrap().submit(delayed!(start(vec!["hello".to_owned()]))).join().unwrap()
        ),
        ["bomb"] => bomb(),
        ["closed"] => closed(),
        ["copied", load] => copied(load),
        ["copied at", micros] => copied_at(micros.parse().unwrap()),
        ["daemon"] => daemon(),
        ["overflow"] => {
            println!("{}", Pool::new(1).unwrap().submit(delayed!(overflow())).join().unwrap_err())
        }
        ["process", "flush"] => Process::spawn(delayed!(say_last_words())).unwrap().join().unwrap(),
        ["process", how] => start_failing_process(how),
        ["flush"] => Pool::new(1).unwrap().submit(delayed!(say_without_end())).join().unwrap(),
        ["cause", holder, method, what, how] => causes::play(holder, method, what, how),
        ["closed at once", call] => closed::play_at_once(call),
        ["closed", call, when, then] => closed::play(call, when, then),
        ["closed one", then, index] => closed::play_one(then, index.parse().unwrap()),
        ["closing", what, method, then] => closing::play(what, method, then),
        ["collected", how] => collected::play(how),
        ["limited", method] => limited::play(method),
        ["files"] => limited::play_with_few_files(),
        ["group", limit] => limited::play_in_group(limit),
        ["try"] => try_one(),
        ["first panic"] => panic_once(),
        ["refused", call] => {
            refuse_by_name(call);
            try_one();
        }
        ["build"] => println!("{:?}", Pool::new(1)),
        ["start", how] => start_failing(how),
        ["stop"] => stop(),
        ["sum"] => sum(),
        ["spin"] => println!("{}", Pool::new(1).unwrap().submit(delayed!(stay("spin"))).join().unwrap_err()),
        ["short", what] => run_short_of_memory(what),
        ["thread", what] => match Pool::new(1).unwrap().submit(delayed!(do_in_a_thread(what))).join() {
            Ok(()) => println!("it lives"),
            Err(error) => println!("out of memory: {}; {error}", error.is_out_of_memory()),
        },
        ["leave", micros] => leave_while_workers_start(micros.parse().unwrap()),
        ["stuck", step] => wait_for_a_stuck(step),
        ["without", what] => without(what),
        ["unsignalled", method, how] => unsignalled::play(method, how),
        ["stay", place, load, end] => stay_there(place, load, end),
        ref other => panic!("no scene {other:?}"),
    }
}

#[worker]
fn square(n: u64) -> u64 {
    n * n
}

#[worker]
fn crash() {
    process::abort();
}

/// Builds a pool, uses it, becomes a daemon in the classic way, and uses it again there.
fn daemon() {
    let pool = Pool::new(2).unwrap();
    println!("{}", squares_in(&pool));
    let parent = process::id();
    for session in [true, false] {
        // SAFETY: the copy goes on with what its one thread has, as daemons do; what other threads had locked is what is to be tested.
        match unsafe { unistd::fork() }.unwrap() {
            // SAFETY: _exit ends the process and runs nothing of it.
            unistd::ForkResult::Parent { .. } => unsafe { libc::_exit(0) },
            unistd::ForkResult::Child if session => drop(unistd::setsid().unwrap()),
            unistd::ForkResult::Child => {}
        }
    }
    assert_ne!(process::id(), parent);
    println!("in the daemon, {}", squares_in(&pool));
    println!("in its processes, {}", Process::spawn(delayed!(square(9))).unwrap().join().unwrap());
    drop(pool);
    println!("by parallel!, {:?}", parallel!(square(n) for n in 1..=3).unwrap());
}

/// Leaves a copy of itself behind, which has copies of all descriptors and uses none.
fn copied(load: &str) {
    let pool = Pool::new(2).unwrap();
    occupy(&pool, load);
    let process = Process::spawn(delayed!(stay("sleep"))).unwrap();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // SAFETY: the copy asks for nothing that another thread may have had locked.
    if unsafe { unistd::fork() }.unwrap().is_child() {
        unistd::write(std::io::stdout(), b"copied\n").unwrap();
        loop {
            std::thread::park();
        }
    }
    std::io::stdin().read_line(&mut String::new()).unwrap();
    process::exit(i32::from(pool.jobs() != 2 || !process.is_alive()));
}

/// Ends, and leaves a copy of itself, while its workers start.
fn copied_at(micros: u64) {
    let pool = Pool::new(3).unwrap();
    let _handles = [1, 2, 3].map(|n| pool.submit(delayed!(square(n))));
    std::thread::sleep(Duration::from_micros(micros));
    // SAFETY: the copy asks for nothing that another thread may have had locked.
    if unsafe { unistd::fork() }.unwrap().is_child() {
        loop {
            std::thread::park();
        }
    }
    process::exit(0);
}

fn squares() -> String {
    squares_in(&Pool::new(2).unwrap())
}

fn squares_in(pool: &Pool) -> String {
    assert!(pool.submit(delayed!(crash())).join().unwrap_err().is_crash());
    let squares = pool.map((0..100).map(|n| delayed!(square(n)))).unwrap();
    format!("the squares' sum is {}", squares.iter().sum::<u64>())
}

/// Returns what a worker finds, one line for each thing.
#[worker]
fn look_around() -> String {
    let mut found = Vec::new();
    let mut note = |name: &str, value: String| found.push(format!("{name}={value}\n"));
    note("args", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    note("extra", std::env::var("PROBE_EXTRA").unwrap_or_default());
    note("inherited", std::env::var("PROBE_INHERITED").unwrap_or_default());
    note("marker", format!("{:?}", std::env::var(MARKER).ok()));
    note("cwd", std::env::current_dir().unwrap().display().to_string());
    note("thread", format!("{:?}", std::thread::current().name()));
    note("own group", (unistd::getpgrp() == unistd::getpid()).to_string());
    note("constructed", CONSTRUCTED.load(Relaxed).to_string());
    note("worker", format!("{:?}", procession::worker_index()));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    for (name, field) in [("blocked", "SigBlk:"), ("ignored", "SigIgn:")] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        note(name, line.trim().to_owned());
    }
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for name in names {
        // The folder's own descriptor is closed by now.
        if let Ok(target) = fs::read_link(&name) {
            note("fd", format!("{} {}", name.file_name().unwrap().display(), target.display()));
        }
    }
    found.concat()
}

/// Prints records.
struct Print;

impl log::Log for Print {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("logged: {}", record.args());
    }

    fn flush(&self) {}
}

/// Runs a pool where the system refuses something that shared memory needs.
fn without(what: &str) {
    match what {
        "memfd" => refuse(libc::SYS_memfd_create, None),
        "futex" => {
            [libc::FUTEX_WAIT, libc::FUTEX_WAKE].into_iter().for_each(|op| refuse(libc::SYS_futex, Some(op)))
        }
        "madvise" => refuse(libc::SYS_madvise, None),
        "nothing" => {}
        other => panic!("no refusal is called {other:?}"),
    }
    log::set_logger(&Print).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let pool = Pool::builder().jobs(2).task_timeout(std::time::Duration::from_secs(1)).build().unwrap();
    let squares = pool.map((0..2000).map(|n| delayed!(square(n)))).unwrap();
    println!("the squares' sum is {}", squares.iter().sum::<u64>());
    let outcomes =
        pool.imap((0..40).map(|n| if n == 20 { delayed!(crash_in_place()) } else { delayed!(square(n)) }));
    let failed: Vec<_> = outcomes.enumerate().filter_map(|(n, outcome)| Some((n, outcome.err()?))).collect();
    println!("failed: {}", failed.len());
    for (n, error) in failed {
        println!("task {n}: crash {}, lost {}", error.is_crash(), error.is_lost());
    }
    println!("{}", pool.submit(delayed!(count_bytes(vec![1; 3 << 20]))).join().unwrap().len());
    println!(
        "forked: {}",
        pool.map((0..100).map(|n| delayed!(fork_and_square(n)))).unwrap().iter().sum::<u64>()
    );
    let error = pool.submit(delayed!(heed())).join().unwrap_err();
    println!("timed out: {}, {}", error.is_timeout(), pool.submit(delayed!(square(3))).join().unwrap());
}

/// Runs for this time, or until it is asked to end.
#[worker]
fn heed() {
    while !procession::is_cancelled() {
        std::thread::yield_now();
    }
    println!("a task was told");
}

/// Returns in a copy of its worker, too.
#[worker]
fn fork_and_square(n: u64) -> u64 {
    // SAFETY: the copy asks for nothing that another thread of a worker may have locked but memory, whose locks the C library sees to.
    if unsafe { unistd::fork() }.unwrap().is_child() { n + 1000 } else { n * n }
}

#[worker]
fn crash_in_place() -> u64 {
    process::abort();
}

#[worker]
fn count_bytes(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn state() {
    // A descriptor that any child inherits.
    let leaked = fcntl::open("/dev/zero", fcntl::OFlag::O_RDONLY, Mode::empty()).unwrap().into_raw_fd();
    let mut blocked = signal::SigSet::empty();
    blocked.add(signal::Signal::SIGUSR1);
    blocked.thread_block().unwrap();
    let pool = Pool::builder().jobs(1).env("PROBE_EXTRA", "by the pool").current_dir("/").build().unwrap();
    print!("{}", pool.submit(delayed!(look_around())).join().unwrap());
    println!("leaked={leaked}");
}

/// Starts this program again, and returns its output.
#[worker]
fn start(args: Vec<String>) -> String {
    let output = Command::new(std::env::current_exe().unwrap()).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Has two workers start this program, which has two workers start this program, and so on.
fn bomb() {
    match Pool::new(1) {
        Ok(pool) => print!("{}", pool.submit(delayed!(start(vec!["bomb".to_owned()]))).join().unwrap()),
        Err(error) => println!("{error}"),
    }
}

fn closed() {
    let before = Pool::new(2).unwrap();
    for fd in 0..3 {
        // SAFETY: std keeps no object that owns a standard stream, and nothing in this scene uses one.
        unsafe { libc::close(fd) };
    }
    // The numbers are given away again: to connections of one pool, then to what the other is made of.
    let words = squares_in(&before);
    drop(before);
    assert_eq!(words, squares());
    fs::write(std::env::var_os("PROBE_OUT").unwrap(), words).unwrap();
    // What follows `main` expects that descriptors are open that were so at its start.
    process::exit(0);
}

#[worker]
fn overflow() -> u64 {
    fn deeper(n: u64) -> u64 {
        let frame = black_box([n; 512]);
        if black_box(true) { deeper(n + 1) + frame[0] } else { n }
    }
    deeper(0)
}

#[worker]
fn say_without_end() {
    print!("a line without an end");
}

/// Prints a line without an end, and more at exit.
#[worker]
fn say_last_words() {
    extern "C" fn at_exit() {
        let _ = unistd::write(std::io::stdout(), b", and last words");
    }
    // SAFETY: the function takes nothing, returns nothing, and does not unwind.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    print!("a line without an end");
}

/// The sum of some squares, or the error.
fn sum() {
    let pool = Pool::builder().jobs(2).start_timeout(Duration::from_secs(3)).build().unwrap();
    match pool.map((0..10).map(|n| delayed!(square(n)))) {
        Ok(squares) => println!("{}", squares.iter().sum::<u64>()),
        Err(error) => println!("{error}"),
    }
}

#[worker]
fn whoami() -> u32 {
    process::id()
}
