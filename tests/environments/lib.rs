//! Uses pools of every start method and a process, whose functions succeed, panic, crash, run for too long, log and print, and prints the
//! result of each. `ci/environments.sh` runs it in every environment that `docs/environments.md` has a line for.
#![expect(unsafe_code, reason = "a function that a host in C calls")]

mod shared;

use std::{
    fs::File,
    io::Write,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use procession::{Output, Pool, Process, StartMethod, TaskError, delayed, parallel, worker};

/// Long enough for a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// A task may run for so long.
const TASK_TIMEOUT: Duration = Duration::from_millis(100);
/// The size of a large argument in bytes: more than fits into a ring.
const LARGE_BYTES: usize = 3 << 20;

#[worker]
fn square(n: u64) -> u64 {
    n * n
}

#[worker]
fn count_bytes(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[worker]
fn fail(words: &str) {
    panic!("{words}")
}

#[worker]
fn crash() {
    std::process::abort();
}

#[worker]
fn stay() {
    loop {
        std::thread::park();
    }
}

/// Takes more and more memory, up to what no small machine has to spare.
#[worker]
fn hog() {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while taken.len() < 1024 {
        taken.push(vec![1; 1 << 20]);
    }
}

/// Uses this much of the stack, and returns how much that was.
#[worker]
fn descend(kib: usize) -> usize {
    fn below(top: usize, kib: usize) -> usize {
        let piece = [0_u8; 1024];
        let taken = (top - std::hint::black_box(&piece).as_ptr().addr()) / 1024;
        if taken < kib { below(top, kib) } else { taken.min(kib) }
    }
    let top = 0_u8;
    below(std::hint::black_box(&raw const top).addr(), kib)
}

#[worker]
#[expect(clippy::print_stdout, reason = "its output is captured")]
fn greet(name: &str) {
    log::info!("{name} is greeted");
    println!("good morning, {name}");
}

/// Runs the parts that are named (`spawn`, `forkserver`, `fork`, `process`, `hog`, `descriptors`, `jobs`, `shared`, `stack-KIB`), or the first four,
/// and writes what became of them to stdout, or to the file that `PROBE_OUT` names. Succeeds if everything was as it is to be.
#[must_use]
pub fn run(parts: &[String]) -> ExitCode {
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    let mut failed = 0;
    // A process is copied while it has one thread.
    for (name, method) in
        [("fork", StartMethod::Fork), ("spawn", StartMethod::Spawn), ("forkserver", StartMethod::ForkServer)]
    {
        if is_wanted(name) {
            failed += try_pool(name, method);
        }
    }
    if is_wanted("process") {
        failed += try_process();
    }
    for part in parts {
        failed += match part.as_str() {
            "hog" => try_hog(),
            "descriptors" => try_descriptors(),
            "jobs" => try_jobs(),
            "shared" => shared::try_shared(),
            _ => part.strip_prefix("stack-").map_or(0, |kib| try_stack(part, kib)),
        };
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same, for a host in C. Returns 0 if everything was as it is to be.
#[unsafe(no_mangle)]
pub extern "C" fn run_procession() -> i32 {
    i32::from(run(&[]) != ExitCode::SUCCESS)
}

/// Prints the result of one check. Returns 1 if another result was expected.
fn tell(part: &str, step: &str, found: &str, wanted: &str) -> u32 {
    say(&format!("{part}: {step}: {found}"));
    u32::from(found != wanted)
}

fn try_pool(part: &str, method: StartMethod) -> u32 {
    let pool = Pool::builder()
        .jobs(2)
        .name(part)
        .start_method(method)
        .start_timeout(START_TIMEOUT)
        .stdout(Output::Capture)
        .build();
    let pool = match pool {
        Ok(pool) => pool,
        Err(error) => return tell(part, "pool", &format!("error: {error}"), ""),
    };
    // Not earlier, because a copy of this process would have the logger, too, and would pass the records of its functions to it.
    if log::set_logger(&Print).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    let mut failed = 0;
    let mut check = |step, found: Result<String, String>, wanted| {
        let found = found.unwrap_or_else(|error| format!("error: {error}"));
        failed += tell(part, step, &found, wanted);
    };
    let squares = pool.map((0..100).map(|n| delayed!(square(n))));
    let sum = squares.map(|squares| squares.iter().sum::<u64>().to_string());
    let goes = sum.is_ok();
    check("squares", sum.map_err(|error| error.to_string()), "328350");
    // A pool without workers has reported why.
    if goes {
        let joined = pool.submit(delayed!(count_bytes(vec![1; LARGE_BYTES]))).join();
        check("large", joined.map(|n| n.to_string()).map_err(told), "3145728");
        check("panic", words(pool.submit(delayed!(fail("as it was told"))).join()), "as it was told");
        check("crash", end(pool.submit(delayed!(crash())).join(), TaskError::is_crash), "SIGABRT");
        let late = parallel!(pool = &pool, timeout = TASK_TIMEOUT; stay() for _ in 0..1);
        check("timeout", late_end(late), "timed out");
        let (greeted, wrote) = pool.submit(delayed!(greet("Ada"))).join_captured();
        check(
            "output",
            greeted.map(|()| wrote.stdout().trim().to_owned()).map_err(told),
            "good morning, Ada",
        );
    }
    check("join", pool.join().map(|()| "joined".to_owned()).map_err(|error| error.to_string()), "joined");
    failed
}

/// Checks that the kernel or the allocator ends a worker that takes too much memory.
fn try_hog() -> u32 {
    let part = "hog";
    let outcome = Pool::builder()
        .jobs(1)
        .name(part)
        .start_timeout(START_TIMEOUT)
        .build()
        .map(|pool| pool.submit(delayed!(hog())).join());
    let found = match outcome {
        Ok(Err(error)) if error.is_out_of_memory() => "out of memory".to_owned(),
        Ok(Ok(())) => "there was enough".to_owned(),
        Ok(Err(error)) => format!("error: {error}"),
        Err(error) => format!("error: {error}"),
    };
    tell(part, "memory", &found, "out of memory")
}

/// Checks how many descriptors a worker takes, without and with its stdout captured.
fn try_descriptors() -> u32 {
    let part = "descriptors";
    let open = |jobs, output| -> procession::Result<usize> {
        let pool =
            Pool::builder().jobs(jobs).name(part).start_timeout(START_TIMEOUT).stdout(output).build()?;
        pool.broadcast(delayed!(square(7)))?;
        Ok(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count))
    };
    let mut failed = 0;
    for (step, output, wanted) in [("plain", Output::Inherit, "2"), ("captured", Output::Capture, "3")] {
        let found = open(1, output).and_then(|one| Ok(open(4, output)?.saturating_sub(one)));
        let found = found.map_or_else(
            |error| format!("error: {error}"),
            |three| format!("{}", f64::from(u32::try_from(three).unwrap_or(0)) / 3.0),
        );
        failed += tell(part, step, &found, wanted);
    }
    failed
}

/// Checks that a pool has one worker by default where there is one CPU or a part of one.
fn try_jobs() -> u32 {
    let found = Pool::builder().start_timeout(START_TIMEOUT).build();
    let found = found.map_or_else(|error| format!("error: {error}"), |pool| pool.jobs().to_string());
    tell("jobs", "default", &found, "1")
}

/// Checks that a function has at least this much stack.
fn try_stack(part: &str, kib: &str) -> u32 {
    let found = Pool::builder().jobs(1).name(part).start_timeout(START_TIMEOUT).build();
    let found = found
        .map_err(|error| error.to_string())
        .and_then(|pool| pool.submit(delayed!(descend(kib.parse().unwrap_or(0)))).join().map_err(told));
    tell(part, "taken", &found.map_or_else(|error| format!("error: {error}"), |kib| kib.to_string()), kib)
}

fn try_process() -> u32 {
    let part = "process";
    let mut failed = 0;
    let builder = || Process::builder().name(part).start_timeout(START_TIMEOUT);
    let seven = builder().spawn(delayed!(square(7))).map_err(|error| error.to_string());
    let seven = seven.and_then(|mut process| process.join().map_err(told));
    let goes = seven.is_ok();
    failed +=
        tell(part, "square", &seven.map_or_else(|error| format!("error: {error}"), |n| n.to_string()), "49");
    if goes {
        let killed =
            builder().spawn(delayed!(stay())).map_err(|error| error.to_string()).and_then(|mut process| {
                process.kill().map_err(|error| error.to_string())?;
                end(process.join(), TaskError::is_crash)
            });
        failed += tell(part, "kill", &killed.unwrap_or_else(|error| format!("error: {error}")), "SIGKILL");
    }
    failed
}

fn told(error: TaskError) -> String {
    error.to_string()
}

/// Returns the message of a panic.
fn words(outcome: Result<(), TaskError>) -> Result<String, String> {
    let error = outcome.err().ok_or("it has a result")?;
    error.panic().map(|panic| panic.message().to_owned()).ok_or_else(|| error.to_string())
}

/// Returns how the process of a task ended.
fn end(outcome: Result<(), TaskError>, is_expected: impl Fn(&TaskError) -> bool) -> Result<String, String> {
    let error = outcome.err().ok_or("it has a result")?;
    let exit = error.exit().filter(|_| is_expected(&error));
    exit.map(|exit| exit.to_string()).ok_or_else(|| error.to_string())
}

fn late_end(outcome: procession::Result<Vec<()>>) -> Result<String, String> {
    let error = outcome.err().ok_or("it has a result")?;
    let is_timeout = error.as_task_error().is_some_and(TaskError::is_timeout);
    if is_timeout { Ok("timed out".to_owned()) } else { Err(error.to_string()) }
}

/// Writes a line, even where stdout is closed and there is a file instead.
fn say(line: &str) {
    static OUT: Mutex<Option<File>> = Mutex::new(None);
    let mut out = OUT.lock().unwrap_or_else(PoisonError::into_inner);
    if let (None, Some(path)) = (&*out, std::env::var_os("PROBE_OUT")) {
        *out = File::create(path).ok();
    }
    // The reader notices if it is missing.
    let _ = match &mut *out {
        Some(file) => writeln!(file, "{line}"),
        None => writeln!(std::io::stdout(), "{line}"),
    };
}

/// Prints the records of the library and of functions in workers.
struct Print;

impl log::Log for Print {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(&format!("logged: {}", record.args()));
    }

    fn flush(&self) {}
}
