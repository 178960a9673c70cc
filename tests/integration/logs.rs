//! Records of the `log` facade made in a worker reach the parent's logger: once, whole, with what they carry, before the result.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, PoisonError},
};

use log::{Level, LevelFilter, Log, Metadata, Record, kv};
use procession::{Pool, delayed, worker};

use crate::{
    alone::alone,
    scratch::{Folder, append, numbers},
};

/// The contents of a record when the parent's logger received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) words: String,
    pub(crate) module: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    fields: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

pub(crate) struct Collector(Mutex<Vec<Seen>>);

pub(crate) static COLLECTOR: Collector = Collector(Mutex::new(Vec::new()));

impl Collector {
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != "muted"
    }

    fn log(&self, record: &Record<'_>) {
        struct Fields(BTreeMap<String, String>);
        impl<'kvs> kv::VisitSource<'kvs> for Fields {
            fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
                let before = self.0.insert(key.to_string(), value.to_string());
                assert_eq!(before, None, "{key} comes twice");
                Ok(())
            }
        }
        let mut fields = Fields(BTreeMap::new());
        record.key_values().visit(&mut fields).expect("fields that can be read");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
            level: record.level(),
            target: record.target().to_owned(),
            words: record.args().to_string(),
            module: record.module_path().map(str::to_owned),
            file: record.file().map(str::to_owned),
            line: record.line(),
            fields: fields.0,
        });
    }

    fn flush(&self) {}
}

/// In this test's process, from now on. Pools are built before: a worker that is a copy of a process that has a logger keeps it.
pub(crate) fn collect(level: LevelFilter) {
    log::set_logger(&COLLECTOR).expect("a process of our own");
    log::set_max_level(level);
}

/// The line number of the record in `speak`.
const LINE: u32 = line!() + 4;

#[worker]
fn speak(n: u64) -> (u32, Option<u64>) {
    log::warn!(target: "of our own", colour = "red", size = n; "task {n} speaks");
    (std::process::id(), procession::task_id().map(|id| id.to_string().parse().expect("a number")))
}

#[worker]
fn every_level() {
    log::error!("error");
    log::warn!("warn");
    log::info!("info");
    log::debug!("debug");
    log::trace!("trace");
}

/// Notes in the file how often a record's words were put together.
#[worker]
fn expensive(evaluated: &Path) {
    let evaluate = |n: u64| {
        append(evaluated, n);
        n
    };
    log::debug!("{}", evaluate(1));
    log::info!("{}", evaluate(2));
}

#[worker]
fn long(len: usize) {
    log::info!("{}", "long ".repeat(len / 5));
}

#[worker]
fn from_threads(threads: u64, records: u64) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                (0..records).for_each(|n| log::info!("{thread} {n} {}", "x".repeat(n as usize)))
            });
        }
    });
}

#[worker]
fn say_then_panic() {
    log::info!("the last words");
    panic!("and the end")
}

#[worker]
fn say_then_abort() {
    log::info!("the last words");
    std::process::abort()
}

#[worker]
fn muted() {
    log::error!(target: "muted", "nobody listens");
    log::error!("somebody listens");
}

#[worker]
fn say(n: u64) -> u64 {
    log::info!("{n}");
    n
}

#[test]
fn a_record_arrives_whole_and_before_the_result() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        for n in 0..200 {
            let handle = pool.submit(delayed!(speak(n)));
            let task = handle.task_id();
            let (pid, told) = handle.join().unwrap();
            let [record] = &COLLECTOR.take()[..] else { panic!("one record a task, there with its result") };
            assert_eq!(
                (record.level, record.words.as_str()),
                (Level::Warn, format!("task {n} speaks").as_str())
            );
            assert_eq!(record.target, "of our own");
            assert_eq!(record.module.as_deref(), Some("integration::logs"));
            assert!(record.file.as_deref().is_some_and(|file| file.ends_with("integration/logs.rs")));
            assert_eq!(record.line, Some(LINE));
            assert_eq!((record.field("colour"), record.field("size")), ("red", n.to_string().as_str()));
            assert_eq!((record.field("worker"), record.field("pid")), ("0", pid.to_string().as_str()));
            assert_eq!(record.field("task"), task.to_string());
            assert_eq!(told.map(|id| id.to_string()), Some(task.to_string()), "the worker knows its task");
        }
    });
}

#[test]
fn records_of_a_call_arrive_once_and_before_their_results() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        collect(LevelFilter::Info);
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        for (n, result) in pool.imap_unordered((0..3000).map(|n| delayed!(say(n)))) {
            for record in COLLECTOR.take() {
                assert_eq!(
                    record.field("task"),
                    record.words,
                    "a task of a call is known by its place in it"
                );
                assert!(seen.insert(record.words.parse().unwrap()), "{record:?} came twice");
            }
            assert_eq!(result.unwrap(), n as u64);
            assert!(seen.contains(&(n as u64)), "the result of {n} came before its record");
        }
        assert_eq!(seen.len(), 3000);
    });
}

#[test]
fn levels_that_are_off_in_the_parent_are_never_evaluated_in_the_worker() {
    alone(|| {
        let folder = Folder::new();
        let evaluated = folder.path("evaluated");
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [2]);
        log::set_max_level(LevelFilter::Off);
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [2], "nothing is evaluated with everything off");
        log::set_max_level(LevelFilter::Trace);
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [1, 2, 2], "a change is heard by workers that run");
        let words: Vec<String> = COLLECTOR.take().into_iter().map(|seen| seen.words).collect();
        assert_eq!(words, ["2", "1", "2"]);
    });
}

#[test]
fn each_level_arrives_as_itself() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Trace);
        for most in LevelFilter::iter() {
            log::set_max_level(most);
            pool.submit(delayed!(every_level())).join().unwrap();
            let seen: Vec<(Level, String)> =
                COLLECTOR.take().into_iter().map(|s| (s.level, s.words)).collect();
            let expected: Vec<(Level, String)> = Level::iter()
                .filter(|level| *level <= most)
                .map(|level| (level, level.as_str().to_lowercase()))
                .collect();
            assert_eq!(seen, expected);
        }
    });
}

#[test]
fn the_parents_logger_gets_no_record_that_it_has_disabled() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        pool.submit(delayed!(muted())).join().unwrap();
        let words: Vec<String> = COLLECTOR.take().into_iter().map(|seen| seen.words).collect();
        assert_eq!(words, ["somebody listens"]);
    });
}

#[test]
fn a_long_record_arrives_whole() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        for len in [5, 60_000, 65_535, 3_000_000] {
            pool.submit(delayed!(long(len))).join().unwrap();
            let seen = COLLECTOR.take();
            assert_eq!(seen.len(), 1);
            assert!(seen[0].words == "long ".repeat(len / 5), "{len}");
        }
    });
}

#[test]
fn records_of_several_threads_of_a_task_neither_mix_nor_vanish() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        collect(LevelFilter::Info);
        let tasks: Vec<_> = (0..2).map(|_| pool.submit(delayed!(from_threads(4, 300)))).collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        let mut counts: BTreeMap<(String, u64), Vec<usize>> = BTreeMap::new();
        for record in COLLECTOR.take() {
            let mut words = record.words.split(' ');
            let thread: u64 = words.next().unwrap().parse().unwrap();
            let n: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next().unwrap().len(), n);
            counts.entry((record.field("task").to_owned(), thread)).or_default().push(n);
        }
        assert_eq!(counts.len(), 8);
        for (of, numbers) in counts {
            assert!(numbers.into_iter().eq(0..300), "{of:?}: each thread's own come in order");
        }
    });
}

#[test]
fn records_made_before_a_panic_or_a_crash_arrive() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        collect(LevelFilter::Info);
        assert!(pool.submit(delayed!(say_then_panic())).join().unwrap_err().is_panic());
        assert_eq!(COLLECTOR.take().len(), 1);
        assert!(pool.submit(delayed!(say_then_abort())).join().unwrap_err().is_crash());
        assert_eq!(COLLECTOR.take().len(), 1);
    });
}

#[test]
fn a_pool_in_process_logs_to_the_same_logger() {
    alone(|| {
        collect(LevelFilter::Info);
        assert_eq!(Pool::in_process().submit(delayed!(say(5))).join().unwrap(), 5);
        assert_eq!(COLLECTOR.take().len(), 1);
    });
}
