//! The host: rounds, each of them a pool and clients that use it in every way, while its workers are sent signals.

mod client;
mod deed;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use procession::Pool;

use self::{
    client::{Client, processes},
    deed::printed_by,
    settings::Settings,
};
use crate::{
    Options,
    random::Random,
    shared::{CLIENTS, SLOTS, shared},
};

/// The number of calls of each client in a round.
const CALLS: u64 = 12;

/// One client's tasks of one round are no more than this.
const TASKS: u64 = (SLOTS / (CLIENTS + 1)) as u64;

/// Counts the records of each task, and the lines that it printed and that have become records.
struct Records {
    of: Box<[AtomicU32]>,
    lines: [Box<[AtomicU32]>; 2],
}

impl Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "chaos" || metadata.target() == deed::MODULE
    }

    fn log(&self, record: &Record<'_>) {
        let words = record.args().to_string();
        let of = if record.target() == "chaos" {
            words.parse().ok().and_then(|task: usize| self.of.get(task))
        } else if record.target() == deed::MODULE {
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

/// The number of outcomes of each kind.
#[derive(Default)]
struct Tally {
    calls: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    tasks: u64,
    runs: u64,
    rounds: u64,
    slowest: (Duration, &'static str),
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

/// The tasks of a client, from the task `first` on, and what has become of them.
struct Finished {
    first: u64,
    tasks: Vec<(u32, bool)>,
    calls: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    slowest: (Duration, &'static str),
}

impl From<Client<'_>> for Finished {
    fn from(client: Client<'_>) -> Self {
        let Client { first, tasks, calls, outcomes, slowest, .. } = client;
        Self { first, tasks, calls, outcomes, slowest }
    }
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
    let mut finished = Vec::new();
    if with_processes {
        let mut alone = client(CLIENTS);
        shared.say(0, &format!("round {number}: processes"));
        processes(&mut alone);
        *alone.calls.entry("processes").or_default() += 1;
        finished.push(Finished::from(alone));
    }
    let play = |at| {
        let mut client = client(at);
        client.play(shared);
        Finished::from(client)
    };
    std::thread::scope(|scope| {
        let play = &play;
        let threads: Vec<_> = (0..clients).map(|at| scope.spawn(move || play(at))).collect();
        finished.extend(threads.into_iter().map(|thread| thread.join().expect("a client does not panic")));
    });
    shared.say(0, &format!("round {number}: ending; {settings:?}"));
    end(pool, &settings, random, tally);
    check_around(&settings, tally);
    // Nothing of it runs any more.
    let last = finished.into_iter().filter_map(|finished| check_tasks(finished, records, tally)).max();
    shared.clear(last.map_or(0, |last| last + 1));
}

/// Ends a pool in one of the ways in which pools end.
fn end(pool: Pool, settings: &Settings, random: &mut Random, tally: &mut Tally) {
    match random.below(4) {
        0 => drop(pool.join()),
        1 => pool.terminate(),
        2 if settings.finalizer.is_some() => {
            let results = pool.join_with_exit_results::<u64>();
            let finalizers = shared().around.finalizers.load(Ordering::SeqCst);
            if let Ok(results) = results {
                let distinct: BTreeSet<u64> = results.iter().copied().collect();
                assert_eq!(distinct.len(), results.len(), "a finalizer has two results: {results:?}");
                assert!(distinct.iter().all(|nth| *nth < finalizers), "{finalizers} have run: {results:?}");
                *tally.outcomes.entry("finalizers' results").or_default() += results.len() as u64;
            }
        }
        _ => drop(pool),
    }
}

/// Checks how often what runs around tasks has run.
fn check_around(settings: &Settings, tally: &mut Tally) {
    let (around, number) = (&shared().around, tally.rounds);
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
}

/// Checks how often each task of a client has run and spoken. Returns the last task, if there is one.
fn check_tasks(finished: Finished, records: &Records, tally: &mut Tally) -> Option<u64> {
    let Finished { first, tasks, calls, outcomes, slowest } = finished;
    let number = tally.rounds;
    tally.slowest = tally.slowest.max(slowest);
    for (task, (attempts, is_done)) in (first..).zip(&tasks) {
        let runs = shared().runs(task);
        assert!(runs <= *attempts, "round {number}: task {task} has run {runs} times, and may {attempts}");
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
    }
    let n = tasks.len() as u64;
    tally.tasks += n;
    calls.into_iter().for_each(|(name, n)| *tally.calls.entry(name).or_default() += n);
    outcomes.into_iter().for_each(|(name, n)| *tally.outcomes.entry(name).or_default() += n);
    (n > 0).then(|| first + n - 1)
}
