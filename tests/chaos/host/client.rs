//! A thread that calls a pool in every way, and checks each outcome.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use pollster::block_on;
use procession::{Captured, Output, Pool, Process, Task, TaskError, delayed, parallel};

use super::{
    CALLS, Records, TASKS,
    deed::{Deed, INITIALIZED, PRELOADED, answer, line, square, turn_around, work},
    settings::Settings,
};
use crate::{
    random::Random,
    shared::{CLIENTS, Shared, shared},
};

/// The most tasks of one call.
const MOST: u64 = 1500;

/// The texts in the errors of pools that were given up, and of processes that could not be started.
const GIVEN_UP: [&str; 2] = ["could be started", "could not be started"];

/// A kind of call, and what makes it.
type Kind<C> = (&'static str, fn(&mut C));

/// One client of a pool: a thread of its own, numbers of its own.
pub(super) struct Client<'a> {
    pub(super) number: usize,
    pub(super) pool: &'a Pool,
    pub(super) settings: &'a Settings,
    pub(super) records: &'static Records,
    pub(super) is_fork: bool,
    pub(super) random: Random,
    pub(super) first: u64,
    pub(super) next: u64,
    /// For each of its tasks: how often it may run, and whether it gave a result.
    pub(super) tasks: Vec<(u32, bool)>,
    pub(super) calls: BTreeMap<&'static str, u64>,
    pub(super) outcomes: BTreeMap<&'static str, u64>,
    pub(super) slowest: (Duration, &'static str),
}

/// The instructions that a task was given, to compare its outcome with.
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

    /// Compares an outcome with the instructions.
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
            // The pool was given up, because too many workers were killed before they returned a result.
            let words = error.to_string();
            let is_explained = GIVEN_UP.iter().any(|why| words.contains(why));
            assert!(is_explained, "{told:?}: it is lost without a known reason: {words}");
            "given up"
        } else {
            panic!("{told:?}: an unexpected outcome: {error}");
        };
        *self.outcomes.entry(kind).or_default() += 1;
    }

    /// Compares the error of a whole call with the instructions of its tasks.
    fn call_failed(&mut self, told: &[Told], error: &procession::Error) {
        let Some(error) = error.as_task_error() else {
            panic!("a call of tasks fails by one of its tasks: {error}");
        };
        match error.task_index() {
            Some(index) => self.is_failed(told[index], error),
            None => assert!(error.is_lost() || error.is_cancelled(), "it names no task: {error}"),
        }
    }

    pub(super) fn play(&mut self, shared: &Shared) {
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
                // It runs nevertheless.
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

    /// It runs once on every worker, so its executions are not counted.
    fn broadcast(&mut self) {
        if let Ok(squares) = self.pool.broadcast(delayed!(square(7))) {
            assert!(squares.iter().all(|square| *square == 49), "{squares:?}");
        }
    }

    fn resize(&mut self) {
        self.pool.resize(1 + self.random.below(4) as usize).expect("a pool may have four workers");
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
pub(super) fn processes(client: &mut Client<'_>) {
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
