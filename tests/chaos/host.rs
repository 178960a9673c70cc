//! The host: rounds, each of them a pool and clients that use it in every way, while its workers are sent signals.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use pollster::block_on;
use procession::{Captured, Output, Pool, Process, RemoteError, Task, TaskError, delayed, parallel, worker};

use crate::{
    Options,
    random::Random,
    shared::{CLIENTS, SLOTS, Shared, shared},
};

/// So many calls of each client make a round.
const CALLS: u64 = 12;
/// One client's tasks of one round are no more than this.
const TASKS: u64 = (SLOTS / (CLIENTS + 1)) as u64;
/// The most tasks of one call.
const MOST: u64 = 1500;

/// What errors say of pools that were given up, and of processes that could not be started.
const GIVEN_UP: [&str; 2] = ["could be started", "could not be started"];

/// What a task does besides counting that it runs. The rest of the word says how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Sleep,
    Say,
    Print,
    Panic,
    Abort,
    Exit,
    Signal,
    Nested,
    Pools,
}

const DEEDS: [Deed; 10] = [
    Deed::Nothing,
    Deed::Sleep,
    Deed::Say,
    Deed::Print,
    Deed::Panic,
    Deed::Abort,
    Deed::Exit,
    Deed::Signal,
    Deed::Nested,
    Deed::Pools,
];

impl Deed {
    fn draw(random: &mut Random, is_one_of_many: bool) -> u64 {
        let deed = match random.below(if is_one_of_many { 3000 } else { 60 }) {
            0 => Deed::Panic,
            1 => Deed::Abort,
            2 => Deed::Exit,
            3 => Deed::Signal,
            4 => Deed::Pools,
            5..10 => Deed::Nested,
            10..18 => Deed::Say,
            18..24 => Deed::Sleep,
            24..32 => Deed::Print,
            _ => Deed::Nothing,
        };
        deed as u64 | random.below(1 << 20) << 8
    }

    fn of(word: u64) -> Self {
        DEEDS[(word & 0xff) as usize]
    }
}

/// Bits of a task's word: what its worker's pool has.
const INITIALIZED: u64 = 1 << 40;
const PRELOADED: u64 = 1 << 41;

/// How often this process has run its pool's preload and its initializer, or is a copy of one that has.
static PRELOADS: AtomicU32 = AtomicU32::new(0);
static INITIALIZERS: AtomicU32 = AtomicU32::new(0);
static FINALIZERS: AtomicU32 = AtomicU32::new(0);

/// What a task that prints writes as a line of its own.
fn line(task: u64) -> String {
    format!("task {task} prints")
}

/// The task that has printed this line.
fn printed_by(line: &str) -> Option<usize> {
    line.strip_prefix("task ")?.strip_suffix(" prints")?.parse().ok()
}

/// Whether a count is as it must be where a failure may be an error that nobody looks at: it is remembered.
fn must(count: u32, wanted: u32, words: &str) {
    if count != wanted {
        shared().around.faults.fetch_add(1, Ordering::SeqCst);
        panic!("{words}: {count}, not {wanted}");
    }
}

/// Runs in a template.
#[worker]
fn preload(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
    must(PRELOADS.fetch_add(1, Ordering::SeqCst), 0, "preloads of a template before");
    shared().around.preloads.fetch_add(1, Ordering::SeqCst);
}

/// Runs in each worker. One in `fails` of them fails (0: none does), in one of three ways.
#[worker]
fn initialize(micros: u64, fails: u64, is_preloaded: bool) -> Result<(), RemoteError> {
    std::thread::sleep(Duration::from_micros(micros));
    must(INITIALIZERS.fetch_add(1, Ordering::SeqCst), 0, "initializers of a worker before");
    must(PRELOADS.load(Ordering::SeqCst), u32::from(is_preloaded), "preloads of a worker's template");
    let nth = shared().around.initializers.fetch_add(1, Ordering::SeqCst);
    if fails > 0 && nth % fails == fails - 1 {
        match nth / fails % 3 {
            0 => panic!("as it was told"),
            1 => std::process::exit(3),
            _ => return Err(RemoteError::msg("as it was told")),
        }
    }
    Ok(())
}

/// Runs in each worker that leaves in good order; returns how many have before.
#[worker]
fn finalize(micros: u64, is_initialized: bool) -> u64 {
    std::thread::sleep(Duration::from_micros(micros));
    must(
        INITIALIZERS.load(Ordering::SeqCst),
        u32::from(is_initialized),
        "initializers of a worker that leaves",
    );
    must(FINALIZERS.fetch_add(1, Ordering::SeqCst), 0, "finalizers of a worker before");
    shared().around.finalizers.fetch_add(1, Ordering::SeqCst)
}

/// What the task of this number comes to.
fn answer(task: u64, what: u64) -> u64 {
    task.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what
}

#[worker]
fn square(n: u64) -> u64 {
    n * n
}

#[worker]
fn work(task: u64, what: u64) -> u64 {
    shared().ran(task);
    let much = what >> 8 & 0xf_ffff;
    let [is_initialized, is_preloaded] = [INITIALIZED, PRELOADED].map(|bit| u32::from(what & bit != 0));
    assert_eq!(
        INITIALIZERS.load(Ordering::SeqCst),
        is_initialized,
        "a worker is initialized before its first task"
    );
    assert_eq!(PRELOADS.load(Ordering::SeqCst), is_preloaded, "its template was preloaded");
    assert_eq!(FINALIZERS.load(Ordering::SeqCst), 0, "no task runs after the finalizer");
    match Deed::of(what) {
        Deed::Nothing => {}
        Deed::Sleep => std::thread::sleep(Duration::from_micros(much % 30_000)),
        Deed::Say => log::info!(target: "chaos", "{task}"),
        Deed::Print => {
            println!("{}", line(task));
            eprintln!("{}", line(task));
        }
        Deed::Panic => panic!("as it was told"),
        Deed::Abort => std::process::abort(),
        Deed::Exit => std::process::exit((much & 3) as i32),
        Deed::Signal => {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV);
        }
        Deed::Nested => {
            let many = much % 50;
            let squares = parallel!(square(n) for n in 0..many).expect("they run in this very worker");
            assert!(squares.into_iter().eq((0..many).map(|n| n * n)), "squares are what they are");
        }
        Deed::Pools => {
            let squares = Pool::new(1).and_then(|pool| pool.map((0..20).map(|n| delayed!(square(n)))));
            // Its workers are sent signals, too.
            if let Ok(squares) = squares {
                assert!(squares.into_iter().eq((0..20).map(|n| n * n)), "squares are what they are");
            }
        }
    }
    answer(task, what)
}

#[worker]
fn turn_around(task: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    shared().ran(task);
    bytes.reverse();
    bytes
}

/// Counts the records of each task, and the lines that it printed and that have become records.
struct Records {
    of: Box<[AtomicU32]>,
    lines: [Box<[AtomicU32]>; 2],
}

impl Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "chaos" || metadata.target() == module_path!()
    }

    fn log(&self, record: &Record<'_>) {
        let words = record.args().to_string();
        let of = if record.target() == "chaos" {
            words.parse().ok().and_then(|task: usize| self.of.get(task))
        } else if record.target() == module_path!() {
            // Lines of stdout become `Info`, those of stderr `Warn`.
            let lines = &self.lines[usize::from(record.level() == Level::Warn)];
            printed_by(&words).and_then(|task| lines.get(task))
        } else {
            None
        };
        if let Some(of) = of {
            of.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

/// How a pool of a round is made.
#[derive(Clone, Debug)]
struct Settings {
    jobs: usize,
    retries: u32,
    task_timeout: Option<u64>,
    max_tasks: Option<u64>,
    idle_millis: Option<u64>,
    chunk: Option<usize>,
    /// How long it takes, and one in how many fails.
    initializer: Option<(u64, u64)>,
    finalizer: Option<u64>,
    preload: Option<u64>,
    /// Of stdout and of stderr.
    outputs: [Output; 2],
}

const OUTPUTS: [Output; 4] = [Output::Inherit, Output::Null, Output::Log, Output::Capture];

impl Settings {
    fn draw(random: &mut Random, method: &str) -> Self {
        let preload = method != "spawn" && random.once_in(3);
        Self {
            jobs: 1 + random.below(4) as usize,
            retries: random.below(3) as u32,
            task_timeout: random.once_in(4).then(|| 20 + random.below(400)),
            max_tasks: random.once_in(4).then(|| 1 + random.below(200)),
            idle_millis: random.once_in(4).then(|| 1 + random.below(20)),
            chunk: random.once_in(4).then(|| 1 + random.below(100) as usize),
            initializer: random.once_in(3).then(|| {
                let fails = if random.once_in(3) { 4 + random.below(8) } else { 0 };
                (random.below(8_000), fails)
            }),
            finalizer: random.once_in(3).then(|| random.below(8_000)),
            preload: preload.then(|| random.below(8_000)),
            outputs: [(); 2].map(|()| *random.pick(&OUTPUTS)),
        }
    }

    /// What a task's word says of its worker's pool.
    fn bits(&self) -> u64 {
        [(self.initializer.is_some(), INITIALIZED), (self.preload.is_some(), PRELOADED)]
            .into_iter()
            .filter_map(|(is_so, bit)| is_so.then_some(bit))
            .sum()
    }

    fn build(&self) -> procession::Result<Pool> {
        let mut builder = Pool::builder().jobs(self.jobs).retries(self.retries).name("chaos");
        if let Some(limit) = self.task_timeout {
            builder = builder.task_timeout(Duration::from_millis(limit));
        }
        if let Some(tasks) = self.max_tasks {
            builder = builder.max_tasks_per_worker(tasks);
        }
        if let Some(idle) = self.idle_millis {
            builder = builder.idle_timeout(Duration::from_millis(idle));
        }
        if let Some(chunk) = self.chunk {
            builder = builder.chunk_size(chunk);
        }
        if let Some((micros, fails)) = self.initializer {
            builder = builder.initializer(delayed!(initialize(micros, fails, self.preload.is_some())));
        }
        if let Some(micros) = self.finalizer {
            builder = builder.finalizer(delayed!(finalize(micros, self.initializer.is_some())));
        }
        if let Some(micros) = self.preload {
            builder = builder.preload(delayed!(preload(micros)));
        }
        let [stdout, stderr] = self.outputs;
        builder.stdout(stdout).stderr(stderr).build()
    }
}

/// What is counted of outcomes.
#[derive(Default)]
struct Tally {
    calls: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    tasks: u64,
    runs: u64,
    rounds: u64,
    slowest: (Duration, &'static str),
}

/// A kind of call, and what makes it.
type Kind<C> = (&'static str, fn(&mut C));

/// One client of a pool: a thread of its own, numbers of its own.
struct Client<'a> {
    number: usize,
    pool: &'a Pool,
    settings: &'a Settings,
    records: &'static Records,
    is_fork: bool,
    random: Random,
    first: u64,
    next: u64,
    /// For each of its tasks: how often it may run, and whether it gave a result.
    tasks: Vec<(u32, bool)>,
    calls: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    slowest: (Duration, &'static str),
}

/// What a task was told, to be held against its outcome.
#[derive(Clone, Copy, Debug)]
struct Told {
    task: u64,
    what: u64,
    attempts: u32,
    has_limit: bool,
    may_be_cancelled: bool,
}

impl Client<'_> {
    fn tell(&mut self, is_one_of_many: bool) -> Told {
        let attempts = 1 + self.settings.retries;
        let told = Told {
            task: self.next,
            what: Deed::draw(&mut self.random, is_one_of_many) | self.settings.bits(),
            attempts,
            has_limit: self.settings.task_timeout.is_some(),
            may_be_cancelled: false,
        };
        assert!(self.next < self.first + TASKS, "a round has no more tasks than there is room for");
        self.next += 1;
        self.tasks.push((attempts, false));
        told
    }

    fn tell_many(&mut self) -> Vec<Told> {
        let many = match self.random.below(4) {
            0 => self.random.below(4),
            1 => self.random.below(40),
            _ => self.random.below(MOST),
        };
        (0..many).map(|_| self.tell(true)).collect()
    }

    /// Holds an outcome against what was told.
    fn check(&mut self, told: Told, outcome: &Result<u64, TaskError>) {
        match outcome {
            Ok(value) => {
                assert_eq!(*value, answer(told.task, told.what), "{told:?}: it is another's result");
                self.is_done(told);
            }
            Err(error) => self.is_failed(told, error),
        }
    }

    fn is_done(&mut self, told: Told) {
        assert!(shared().runs(told.task) > 0, "{told:?} has a result and never ran");
        // A copy of this process has this process's logger.
        if Deed::of(told.what) == Deed::Say && !self.is_fork {
            let records = self.records.of[told.task as usize].load(Ordering::SeqCst);
            assert!(records > 0, "{told:?}: its result is here before its record");
        }
        if Deed::of(told.what) == Deed::Print && self.number < CLIENTS {
            for (name, output, lines) in self.streams() {
                let lines = lines[told.task as usize].load(Ordering::SeqCst);
                assert_eq!(
                    lines > 0,
                    output == Output::Log,
                    "{told:?}: {lines} lines of {name} are here before its result"
                );
            }
        }
        self.tasks[(told.task - self.first) as usize].1 = true;
        *self.outcomes.entry("done").or_default() += 1;
    }

    /// The streams of a worker: where what it writes there goes, and how many lines of each task have become records.
    fn streams(&self) -> [(&'static str, Output, &'static [AtomicU32]); 2] {
        let ([stdout, stderr], [out, err]) = (self.settings.outputs, &self.records.lines);
        [("stdout", stdout, out), ("stderr", stderr, err)]
    }

    /// As [`check`](Self::check), for a task whose words come with its outcome.
    fn check_captured(&mut self, told: Told, outcome: &Result<u64, TaskError>, wrote: &Captured) {
        self.check(told, outcome);
        let wanted = match Deed::of(told.what) {
            Deed::Print => line(told.task) + "\n",
            _ => String::new(),
        };
        for ((name, output, _), wrote) in self.streams().into_iter().zip([wrote.stdout(), wrote.stderr()]) {
            let is_kept = matches!(output, Output::Capture | Output::Log);
            if !is_kept {
                assert_eq!(wrote, "", "{told:?}: its {name} goes elsewhere");
            } else if outcome.is_ok() {
                assert_eq!(wrote, wanted, "{told:?}: {name}");
            } else if Deed::of(told.what) != Deed::Panic {
                assert!(wanted.starts_with(wrote), "{told:?}: {name}: {wrote}");
            }
        }
    }

    fn is_failed(&mut self, told: Told, error: &TaskError) {
        assert!(error.attempts() <= told.attempts, "{told:?}: {} attempts: {error}", error.attempts());
        let kind = if error.is_panic() {
            assert_eq!(Deed::of(told.what), Deed::Panic, "{error}");
            "panicked"
        } else if error.is_timeout() {
            assert!(told.has_limit, "{told:?} has no limit: {error}");
            "timed out"
        } else if error.is_cancelled() {
            assert!(told.may_be_cancelled, "{told:?} was not cancelled: {error}");
            "cancelled"
        } else if error.is_crash() {
            "crashed"
        } else if error.is_lost() {
            // So many workers were killed before they were of use that the pool was given up.
            let words = error.to_string();
            let is_explained = GIVEN_UP.iter().any(|why| words.contains(why));
            assert!(is_explained, "{told:?}: nobody knows why it is lost: {words}");
            "given up"
        } else {
            panic!("{told:?}: an outcome that nobody expects: {error}");
        };
        *self.outcomes.entry(kind).or_default() += 1;
    }

    /// Holds the error of a whole call against what its tasks were told.
    fn call_failed(&mut self, told: &[Told], error: &procession::Error) {
        let Some(error) = error.as_task_error() else {
            panic!("a call of tasks fails by one of its tasks: {error}");
        };
        match error.task_index() {
            Some(index) => self.is_failed(told[index], error),
            None => assert!(error.is_lost() || error.is_cancelled(), "it names no task: {error}"),
        }
    }

    fn play(&mut self, shared: &Shared) {
        for call in 0..CALLS {
            let kinds: [Kind<Self>; 10] = [
                ("map", Self::map),
                ("imap", Self::imap),
                ("imap_unordered", Self::imap_unordered),
                ("parallel!", Self::comprehension),
                ("parallel! of two", Self::tuple),
                ("submit", Self::submit),
                ("await", Self::awaits),
                ("broadcast", Self::broadcast),
                ("resize", Self::resize),
                ("large values", Self::large),
            ];
            let (name, play) = *self.random.pick(&kinds);
            shared.say(self.number, &format!("call {call}: {name}; {:?}", self.settings));
            let start = Instant::now();
            play(self);
            self.slowest = self.slowest.max((start.elapsed(), name));
            *self.calls.entry(name).or_default() += 1;
            drop(self.pool.stats());
        }
        shared.say(self.number, "nothing");
    }

    fn map(&mut self) {
        let told = self.tell_many();
        let tasks = told.iter().map(|told| delayed!(work(told.task, told.what)));
        match self.pool.map(tasks) {
            Ok(values) => {
                assert_eq!(values.len(), told.len());
                told.iter().zip(values).for_each(|(told, value)| self.check(*told, &Ok(value)));
            }
            Err(error) => self.call_failed(&told, &error),
        }
    }

    fn imap(&mut self) {
        let told = self.tell_many();
        let stop = if self.random.once_in(3) { self.random.below(MOST) as usize } else { usize::MAX };
        let tasks: Vec<Task<u64>> = told.iter().map(|told| delayed!(work(told.task, told.what))).collect();
        let mut seen = 0;
        for (told, outcome) in told.iter().zip(self.pool.imap(tasks)).take(stop) {
            self.check(*told, &outcome);
            seen += 1;
        }
        assert_eq!(seen, told.len().min(stop), "each task has an outcome");
    }

    fn imap_unordered(&mut self) {
        let told = self.tell_many();
        let tasks: Vec<Task<u64>> = told.iter().map(|told| delayed!(work(told.task, told.what))).collect();
        let mut seen = BTreeSet::new();
        for (index, outcome) in self.pool.imap_unordered(tasks) {
            assert!(seen.insert(index), "task {index} has two outcomes");
            self.check(told[index], &outcome);
        }
        assert_eq!(seen.len(), told.len(), "each task has an outcome");
    }

    fn comprehension(&mut self) {
        let mut told = self.tell_many();
        let (limit, retries, pool) = (50 + self.random.below(500), self.random.below(3) as u32, self.pool);
        for told in &mut told {
            (told.has_limit, told.attempts) = (true, 1 + retries);
            self.tasks[(told.task - self.first) as usize].0 = told.attempts;
        }
        let values = parallel!(pool = pool, timeout = millis(limit), retries = retries;
            work(told.task, told.what) for told in &told);
        match values {
            Ok(values) => {
                assert_eq!(values.len(), told.len());
                told.iter().zip(values).for_each(|(told, value)| self.check(*told, &Ok(value)));
            }
            Err(error) => self.call_failed(&told, &error),
        }
    }

    fn tuple(&mut self) {
        let (a, b, pool) = (self.tell(false), self.tell(false), self.pool);
        match parallel!(pool = pool; work(a.task, a.what), work(b.task, b.what)) {
            Ok((x, y)) => {
                self.check(a, &Ok(x));
                self.check(b, &Ok(y));
            }
            Err(error) => self.call_failed(&[a, b], &error),
        }
    }

    fn submit(&mut self) {
        let mut handles = Vec::new();
        for _ in 0..self.random.below(60) {
            let mut told = self.tell(false);
            let handle = self.pool.submit(delayed!(work(told.task, told.what)));
            if self.random.once_in(6) {
                if self.random.once_in(2) {
                    std::thread::sleep(Duration::from_micros(self.random.below(3000)));
                }
                handle.cancel();
                told.may_be_cancelled = true;
            }
            match self.random.below(8) {
                // It runs all the same.
                0 => drop(handle),
                1 => {
                    let outcome = handle.join();
                    self.check(told, &outcome);
                }
                2 => {
                    let (outcome, wrote) = handle.join_captured();
                    self.check_captured(told, &outcome, &wrote);
                }
                _ => handles.push((told, handle)),
            }
        }
        for (told, mut handle) in handles {
            if self.random.once_in(2) {
                let patience = Duration::from_micros(self.random.below(5000));
                let outcome = loop {
                    match handle.join_timeout(patience) {
                        Some(outcome) => break outcome,
                        None => assert!(!told.may_be_cancelled || self.pool.jobs() > 0),
                    }
                };
                self.check(told, &outcome);
            } else {
                let outcome = handle.join();
                self.check(told, &outcome);
            }
        }
    }

    fn awaits(&mut self) {
        let told: Vec<_> = (0..self.random.below(20)).map(|_| self.tell(false)).collect();
        let handles: Vec<_> =
            told.iter().map(|told| self.pool.submit(delayed!(work(told.task, told.what)))).collect();
        for (told, handle) in told.into_iter().zip(handles) {
            let outcome = block_on(handle);
            self.check(told, &outcome);
        }
    }

    /// It runs once on every worker, so that nobody counts it.
    fn broadcast(&mut self) {
        if let Ok(squares) = self.pool.broadcast(delayed!(square(7))) {
            assert!(squares.iter().all(|square| *square == 49), "{squares:?}");
        }
    }

    fn resize(&mut self) {
        self.pool.resize(1 + self.random.below(4) as usize).expect("it may have so many");
    }

    fn large(&mut self) {
        let told = self.tell(true);
        let len = self.random.below(3 << 20) as usize;
        let bytes: Vec<u8> =
            (0..len).map(|n| (n as u64).wrapping_mul(told.what | 1).to_le_bytes()[3]).collect();
        let outcome = self.pool.submit(delayed!(turn_around(told.task, bytes.clone()))).join();
        match outcome {
            Ok(back) => {
                assert!(back.iter().rev().eq(&bytes), "{told:?}: it came back as something else");
                self.is_done(Told { what: 0, ..told });
            }
            Err(error) => self.is_failed(told, &error),
        }
    }
}

/// Processes of their own, each with one task, which ends as it likes or is ended.
fn processes(client: &mut Client<'_>) {
    for _ in 0..client.random.below(4) {
        let told = client.tell(false);
        // It is of no pool.
        let what = told.what & !(INITIALIZED | PRELOADED);
        let told = Told { what, attempts: 1, has_limit: false, may_be_cancelled: true, ..told };
        client.tasks[(told.task - client.first) as usize].0 = 1;
        let Ok(mut process) = Process::spawn(delayed!(work(told.task, told.what))) else {
            *client.outcomes.entry("process not started").or_default() += 1;
            continue;
        };
        match client.random.below(6) {
            0 => process.terminate().expect("it is ours"),
            1 => process.kill().expect("it is ours"),
            2 => {
                drop(process);
                continue;
            }
            _ => {}
        }
        let outcome = match client.random.below(2) {
            0 => process.join(),
            _ => loop {
                if let Some(outcome) = process.join_timeout(Duration::from_micros(client.random.below(3000)))
                {
                    break outcome;
                }
            },
        };
        client.check(told, &outcome);
        assert!(!process.is_alive(), "it has an outcome, and has ended");
    }
}

/// Everything that a round could leave behind.
#[derive(Debug, PartialEq)]
struct Belongings {
    children: usize,
    threads: usize,
    descriptors: Vec<String>,
    segments: usize,
}

impl Belongings {
    fn count() -> Self {
        let tasks: Vec<_> =
            fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path()).collect();
        let children = tasks.iter().map(|task| fs::read_to_string(task.join("children")).unwrap_or_default());
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
            let to = fs::read_link(fd.unwrap().path()).ok()?.to_string_lossy().into_owned();
            // The directory that is being read.
            (!to.starts_with("/proc/")).then_some(to)
        });
        Self {
            children: children.map(|children| children.split_whitespace().count()).sum(),
            threads: tasks.len(),
            descriptors: descriptors.collect(),
            segments: maps.lines().filter(|line| line.contains("memfd:procession")).count(),
        }
    }

    /// As [`count`](Self::count), once there are no more threads than these: one that was joined is gone from the list of threads a moment
    /// later. Nothing else is waited for.
    fn once_threads_are(threads: usize) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let count = Self::count();
            if count.threads <= threads || Instant::now() >= deadline {
                return count;
            }
            std::thread::yield_now();
        }
    }
}

/// Plays rounds until the time is over, and prints what was seen.
pub(crate) fn run(options: &Options) {
    let shared = shared();
    let counters = || std::iter::repeat_with(|| AtomicU32::new(0)).take(SLOTS).collect();
    let records: &'static Records =
        Box::leak(Box::new(Records { of: counters(), lines: [counters(), counters()] }));
    log::set_logger(records).unwrap();
    log::set_max_level(LevelFilter::Info);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let before = Belongings::count();
    let mut tally = Tally::default();
    let mut random = Random::new(options.seed, 0);
    while Instant::now() < end {
        round(options, &mut random, records, &mut tally);
        let left = Belongings::once_threads_are(before.threads);
        assert_eq!(left, before, "something is left of round {}", tally.rounds);
        tally.rounds += 1;
    }
    shared.is_open.store(0, Ordering::SeqCst);
    println!("{} rounds, {} tasks, {} runs", tally.rounds, tally.tasks, tally.runs);
    println!("calls: {:?}", tally.calls);
    println!("outcomes: {:?}", tally.outcomes);
    println!("the slowest call: {:?}", tally.slowest);
    assert!(!tally.calls.is_empty() && tally.tasks > 0, "calls are made");
}

fn round(options: &Options, random: &mut Random, records: &'static Records, tally: &mut Tally) {
    let shared = shared();
    let settings = Settings::draw(random, &options.method);
    let around = &shared.around;
    for counter in [&around.preloads, &around.initializers, &around.finalizers, &around.faults] {
        counter.store(0, Ordering::SeqCst);
    }
    let number = tally.rounds;
    shared.say(0, &format!("round {number}: building {settings:?}"));
    let with_processes = random.once_in(3);
    let pool = match settings.build() {
        Ok(pool) => pool,
        Err(error) => {
            // A copy of this process may be killed while it is made.
            assert!(options.method == "fork", "{error}");
            *tally.outcomes.entry("pool not built").or_default() += 1;
            return;
        }
    };
    shared.is_open.store(1, Ordering::SeqCst);
    let clients = 1 + random.below(CLIENTS as u64 - 1) as usize;
    let client = |client: usize| Client {
        number: client,
        pool: &pool,
        settings: &settings,
        records,
        is_fork: options.method == "fork",
        random: Random::new(options.seed, number << 8 | client as u64 | 1 << 60),
        first: client as u64 * TASKS,
        next: client as u64 * TASKS,
        tasks: Vec::new(),
        calls: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        slowest: (Duration::ZERO, "none"),
    };
    let finished = Mutex::new(Vec::new());
    let finish = |client: Client<'_>| {
        let Client { first, tasks, calls, outcomes, slowest, .. } = client;
        let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.push((first, tasks, calls, outcomes, slowest));
    };
    if with_processes {
        let mut alone = client(CLIENTS);
        shared.say(0, &format!("round {number}: processes"));
        processes(&mut alone);
        *alone.calls.entry("processes").or_default() += 1;
        finish(alone);
    }
    std::thread::scope(|scope| {
        let (client, finish) = (&client, &finish);
        for at in 0..clients {
            scope.spawn(move || {
                let mut client = client(at);
                client.play(shared);
                finish(client);
            });
        }
    });
    shared.say(0, &format!("round {number}: ending; {settings:?}"));
    match random.below(4) {
        0 => drop(pool.join()),
        1 => pool.terminate(),
        2 if settings.finalizer.is_some() => {
            let results = pool.join_with_exit_results::<u64>();
            let finalizers = around.finalizers.load(Ordering::SeqCst);
            if let Ok(results) = results {
                let distinct: BTreeSet<u64> = results.iter().copied().collect();
                assert_eq!(distinct.len(), results.len(), "a finalizer has two results: {results:?}");
                assert!(distinct.iter().all(|nth| *nth < finalizers), "{finalizers} have run: {results:?}");
                *tally.outcomes.entry("finalizers' results").or_default() += results.len() as u64;
            }
        }
        _ => drop(pool),
    }
    let [preloads, initializers, finalizers] =
        [&around.preloads, &around.initializers, &around.finalizers].map(|n| n.load(Ordering::SeqCst));
    assert_eq!(
        around.faults.load(Ordering::SeqCst),
        0,
        "round {number}: what runs around tasks runs wrongly"
    );
    assert!(preloads == 0 || settings.preload.is_some(), "{preloads} preloads");
    assert!(initializers == 0 || settings.initializer.is_some(), "{initializers} initializers");
    assert!(finalizers == 0 || settings.finalizer.is_some(), "{finalizers} finalizers");
    assert!(settings.initializer.is_none() || finalizers <= initializers, "{finalizers} of {initializers}");
    let around = [("preloads", preloads), ("initializers", initializers), ("finalizers", finalizers)];
    around.into_iter().for_each(|(name, n)| *tally.outcomes.entry(name).or_default() += n);
    // Nothing of it runs any more.
    let mut all = 0;
    let finished = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (first, tasks, calls, outcomes, slowest) in finished {
        tally.slowest = tally.slowest.max(slowest);
        for (task, (attempts, is_done)) in (first..).zip(&tasks) {
            let runs = shared.runs(task);
            assert!(
                runs <= *attempts,
                "round {number}: task {task} has run {runs} times, and may {attempts}"
            );
            assert!(!is_done || runs > 0, "round {number}: task {task} has a result and never ran");
            let said = records.of[task as usize].swap(0, Ordering::SeqCst);
            assert!(said <= runs, "round {number}: task {task} has run {runs} times and said {said} things");
            for lines in &records.lines {
                let lines = lines[task as usize].swap(0, Ordering::SeqCst);
                assert!(
                    lines <= runs,
                    "round {number}: task {task} has run {runs} times and printed {lines} lines"
                );
            }
            tally.runs += u64::from(runs);
            all = all.max(task + 1);
        }
        tally.tasks += tasks.len() as u64;
        calls.into_iter().for_each(|(name, n)| *tally.calls.entry(name).or_default() += n);
        outcomes.into_iter().for_each(|(name, n)| *tally.outcomes.entry(name).or_default() += n);
    }
    shared.clear(all);
}
