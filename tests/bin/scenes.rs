//! The scenes that the tests of `isolated/` have a program play, named by its first argument. `PROBE_MAINS` names a file to which
//! each run of `main` adds a line.

mod causes;
mod closed;
mod closing;
mod collected;
mod limited;
mod unsignalled;

use std::{
    fs::{self, OpenOptions},
    hint::black_box,
    io::Write as _,
    os::fd::IntoRawFd as _,
    process::{self, Command},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
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

/// Whether this program's own constructor has run.
static CONSTRUCTED: AtomicBool = AtomicBool::new(false);

#[used]
// The loader calls what stands in this section, once and before `main`; arguments that are not taken do no harm in C.
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

/// Plays the scene that the first argument names.
pub(crate) fn play() {
    if let Some(file) = std::env::var_os("PROBE_MAINS") {
        let line = format!("{}\n", process::id());
        OpenOptions::new().append(true).create(true).open(file).unwrap().write_all(line.as_bytes()).unwrap();
    }
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

/// What a worker finds, a line for each thing.
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

/// Prints what is logged.
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
        other => panic!("nobody refuses {other:?}"),
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

/// Takes so long until it is told to end.
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

/// From now on this process and all that it starts are refused the system call of this name.
fn refuse_by_name(call: &str) {
    let number = match call {
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "setpgid" => libc::SYS_setpgid,
        other => panic!("nobody refuses {other:?}"),
    };
    refuse(number, None);
}

/// Has one worker run one task, and says what comes of it.
/// The most memory that this process has had, in bytes.
#[worker]
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[worker]
fn panic_as_told() {
    panic!("as it was told");
}

/// Says how much more memory a worker has had after its first panic than before, and whether that has a backtrace.
fn panic_once() {
    let pool = Pool::new(1).unwrap();
    let before = pool.submit(delayed!(peak())).join().unwrap();
    let error = pool.submit(delayed!(panic_as_told())).join().unwrap_err();
    let after = pool.submit(delayed!(peak())).join().unwrap();
    println!("{} {}", after - before, error.panic().unwrap().backtrace().is_empty());
}

fn try_one() {
    let begun = Instant::now();
    match Pool::new(1).map(|pool| (pool.submit(delayed!(square(3))).join(), pool)) {
        Ok((Ok(square), _)) => println!("{square}"),
        Ok((Err(error), pool)) => {
            println!("{error}");
            // Nor has a lazy call to wait.
            let outcomes = pool.imap((0..500).map(|n| delayed!(square(n)))).chunk_size(1);
            assert_eq!(outcomes.filter(Result::is_err).count(), 500);
        }
        Err(error) => println!("{error}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// From now on this process, with all its threads, and all that it starts are refused a system call: if `op` is given, only with it as its
/// second argument.
fn refuse(call: libc::c_long, op: Option<libc::c_int>) {
    const NUMBER: u32 = 0;
    const SECOND_ARGUMENT: u32 = 16 + 8;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let skip_unless = |k: u32, over| libc::sock_filter {
        jf: over,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k)
    };
    let say = |verdict| statement(libc::BPF_RET | libc::BPF_K, verdict);
    let call = u32::try_from(call).unwrap();
    let no = say(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
    let yes = say(libc::SECCOMP_RET_ALLOW);
    let mut program = match op {
        None => vec![load(NUMBER), skip_unless(call, 1), no, yes],
        Some(op) => vec![
            load(NUMBER),
            skip_unless(call, 3),
            load(SECOND_ARGUMENT),
            skip_unless(op.cast_unsigned(), 1),
            no,
            yes,
        ],
    };
    let filter = libc::sock_fprog { len: program.len().try_into().unwrap(), filter: program.as_mut_ptr() };
    nix::sys::prctl::set_no_new_privs().unwrap();
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the filter points to a program of its length, which the kernel copies before the call returns.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
    assert_eq!(done, 0, "the filter is refused: {}", std::io::Error::last_os_error());
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

/// Starts this program again, and gives what it had to say.
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

/// Says something without an end, and something more at exit.
#[worker]
fn say_last_words() {
    extern "C" fn at_exit() {
        let _ = unistd::write(std::io::stdout(), b", and last words");
    }
    // SAFETY: the function takes nothing, returns nothing, and does not unwind.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    print!("a line without an end");
}

fn start_failing_process(how: &str) {
    let builder =
        Process::builder().name("late").env("PROBE_START", how).start_timeout(Duration::from_millis(300));
    let error = builder.spawn(delayed!(square(1))).unwrap().join().unwrap_err();
    println!("{} {} {error}", error.is_lost(), error.attempts());
}

fn start_failing(how: &str) {
    let pool = Pool::builder()
        .jobs(2)
        .env("PROBE_START", how)
        .start_timeout(Duration::from_millis(300))
        .max_restarts(4, Duration::from_secs(30))
        .build()
        .unwrap();
    let start = Instant::now();
    let error = pool.map((0..10).map(|n| delayed!(square(n)))).unwrap_err();
    println!("{error}");
    // The pool stays as it is: nothing is tried again.
    assert_eq!(
        pool.submit(delayed!(square(1))).join().unwrap_err().is_lost(),
        error.as_task_error().unwrap().is_lost()
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Is stopped while a worker starts, for longer than a worker may take to start.
fn stop() {
    let pool = Pool::builder().jobs(1).start_timeout(Duration::from_millis(500)).build().unwrap();
    let first = pool.submit(delayed!(whoami()));
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", unistd::gettid())).unwrap();
    signal::raise(signal::Signal::SIGSTOP).unwrap();
    let second = pool.submit(delayed!(whoami()));
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!(first, second);
    assert_eq!(
        children.trim(),
        first.to_string(),
        "the worker that was started at first is the one that serves"
    );
    println!("the worker is still the first");
}

/// Ends, and runs nothing of what programs run at their end, so long after it has asked for four workers.
fn leave_while_workers_start(micros: u64) {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let end = Instant::now() + Duration::from_micros(micros);
    let pool = POOL.get_or_init(|| Pool::new(4).unwrap());
    let handles: Vec<_> = (0..4).map(|_| pool.submit(delayed!(whoami()))).collect();
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    drop(handles);
    // SAFETY: _exit ends the process and runs nothing of it.
    unsafe { libc::_exit(0) }
}

/// The sum of some squares, or the error.
fn sum() {
    let pool = Pool::builder().jobs(2).start_timeout(Duration::from_secs(3)).build().unwrap();
    match pool.map((0..10).map(|n| delayed!(square(n)))) {
        Ok(squares) => println!("{}", squares.iter().sum::<u64>()),
        Err(error) => println!("{error}"),
    }
}

/// Panics, and has another thread panic, whose words are printed.
#[worker]
fn panic_in(thread: bool) {
    if thread {
        let _ = std::thread::spawn(|| panic!("in a thread")).join();
    }
    panic!("as it was told");
}

/// What happens to a thread that a task has started.
#[worker]
fn do_in_a_thread(what: &str) {
    let what = what.to_owned();
    let _ = std::thread::spawn(|| panic!("in a thread")).join();
    let thread = std::thread::spawn(move || match &*what {
        "abort" => process::abort(),
        "allocation" => std::alloc::handle_alloc_error(std::alloc::Layout::new::<u64>()),
        // As the timer does that looks at a thread whose panic takes long.
        "look" => signal::raise(signal::Signal::SIGURG).unwrap(),
        other => panic!("nothing to do with a thread: {other:?}"),
    });
    thread.join().unwrap();
}

#[worker]
fn fill(bytes: usize) -> usize {
    black_box(vec![1u8; bytes]).len()
}

/// Runs a task for which there is too little memory, and says how it ended, and when.
fn run_short_of_memory(what: &str) {
    let pool = Pool::builder().jobs(1).backtrace(true).build().unwrap();
    pool.submit(delayed!(whoami())).join().unwrap();
    let start = Instant::now();
    let error = match what {
        "panic" => pool.submit(delayed!(panic_in(false))).join().unwrap_err(),
        "thread" => pool.submit(delayed!(panic_in(true))).join().unwrap_err(),
        _ => pool.submit(delayed!(fill(1 << 30))).join().unwrap_err(),
    };
    let took = start.elapsed();
    // On a loaded machine a backtrace takes its time; what waits for itself takes for ever.
    println!("out of memory: {}, soon: {}", error.is_out_of_memory(), took < Duration::from_secs(5));
    println!("{error}");
    // The next worker serves.
    pool.submit(delayed!(whoami())).join().unwrap();
}

/// Says that it is there, and stays.
#[worker]
fn say_and_stay() {
    println!("up");
    loop {
        std::thread::park();
    }
}

/// Says that it is there, and gives more than fits on the way.
#[worker]
fn say_and_give() -> Vec<u8> {
    println!("up");
    vec![1; 64 << 20]
}

/// Stops itself once a worker is stuck in this step of its life.
fn wait_for_a_stuck(step: &str) {
    let builder = Pool::builder().jobs(1);
    let builder = match step {
        "initializer" => builder.initializer(delayed!(say_and_stay())),
        "preload" => {
            builder.start_method(procession::StartMethod::ForkServer).preload(delayed!(say_and_stay()))
        }
        _ => builder,
    };
    let pool = builder.build().unwrap();
    let handle = match step {
        "result" => pool.submit(delayed!(count_bytes(Vec::new()))),
        _ => pool.submit(delayed!(say_and_give())),
    };
    if step == "result" {
        handle.join().unwrap();
        drop(pool.submit(delayed!(say_and_give())));
        // Nobody reads what it gives.
        signal::raise(signal::Signal::SIGSTOP).unwrap();
    }
    loop {
        std::thread::park();
    }
}

#[worker]
fn whoami() -> u32 {
    process::id()
}

/// Says that it is there, and is busy for ever in the manner of `load`.
#[worker]
fn stay(load: &str) {
    let child = ["stubborn", "left"].contains(&load).then(|| {
        // SAFETY: to ignore a signal installs no handler.
        unsafe { signal::signal(signal::Signal::SIGTERM, signal::SigHandler::SigIgn) }.unwrap();
        Command::new(std::env::current_exe().unwrap()).arg("child").spawn().unwrap()
    });
    println!("up");
    match load {
        "idle" | "left" => {}
        "sleep" => loop {
            std::thread::park();
        },
        "spin" => loop {
            std::hint::spin_loop();
        },
        "stubborn" => drop(child.unwrap().wait()),
        other => panic!("no load {other:?}"),
    }
}

/// Has two workers under load, in a pool that stands at `place`; then, for each line on stdin, does what `end` says.
fn stay_there(place: &str, load: &str, end: &str) {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let load = load.to_owned();
    let begin = {
        let load = load.clone();
        move || {
            let pool = Pool::new(2).unwrap();
            occupy(&pool, &load);
            pool
        }
    };
    let (mut local, mut processes) = (None, Vec::new());
    let spawn = || Process::spawn(delayed!(stay(&load))).unwrap();
    match place {
        "process" => processes.extend([spawn(), spawn()]),
        "detached" => [spawn(), spawn()].into_iter().for_each(Process::detach),
        "local" => local = Some(begin()),
        "static" => assert!(POOL.set(begin()).is_ok()),
        "thread" => local = Some(std::thread::spawn(begin).join().unwrap()),
        "parallel" => {
            std::thread::spawn(move || parallel!(jobs = 2; stay(&load) for _ in 0..2));
        }
        other => panic!("no place {other:?}"),
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match end {
        "return" => {}
        "exit" => process::exit(0),
        "panic" => panic!("as it was told"),
        "drop" => {
            drop((local.take(), std::mem::take(&mut processes)));
            println!("dropped");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        other => panic!("no end {other:?}"),
    }
}

/// Gives every worker of the pool its load.
fn occupy(pool: &Pool, load: &str) {
    if ["idle", "left"].contains(&load) {
        pool.broadcast(delayed!(stay(load))).unwrap();
    } else {
        for _ in 0..2 {
            drop(pool.submit(delayed!(stay(load))));
        }
    }
}
