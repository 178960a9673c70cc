//! `PROCESSION_TRACE`: a timeline in Chrome's trace format, checked against the format.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use procession::{Pool, delayed, parallel, worker};
use serde_json::Value;

const FILE: &str = "PROCESSION_TRACE";

#[worker]
fn take(millis: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(millis));
    millis
}

#[worker]
fn strike_once(file: &Path) {
    if !file.exists() {
        std::fs::write(file, "").expect("a file of the test's");
        std::process::abort();
    }
}

#[worker]
fn fail() {
    panic!("no")
}

/// A pool of a worker's own, which must not write over the file.
#[worker]
fn nested() -> u64 {
    let pool = Pool::new(1).expect("a pool in a worker");
    pool.submit(delayed!(take(1))).join().expect("a result")
}

/// What the test does in a process that has the variable.
fn work(folder: &Path) {
    let pool = Pool::builder().jobs(2).retries(1).name("a \"name\"").build().unwrap();
    pool.map((0..20).map(|_| delayed!(take(1)))).unwrap();
    pool.map((0..2000).map(|_| delayed!(take(0)))).unwrap();
    pool.submit(delayed!(strike_once(&folder.join("struck")))).join().unwrap();
    assert!(pool.submit(delayed!(fail())).join().is_err());
    pool.submit(delayed!(nested())).join().unwrap();
    let other = Pool::new(1).unwrap();
    other.submit(delayed!(take(3))).join().unwrap();
    drop(pool);
    // The process's own pool never ends.
    parallel!(take(1) for _ in 0..5).unwrap();
}

/// What every event has.
fn check(event: &Value) {
    let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name} is text in {event}"));
    let number = |name: &str| event[name].as_f64().unwrap_or_else(|| panic!("{name} is a number in {event}"));
    assert!(!text("name").is_empty());
    assert!(number("pid") >= 1.0 && number("tid") >= 0.0);
    match text("ph") {
        "X" => assert!(number("ts") >= 0.0 && number("dur") >= 0.0),
        "i" => assert!(number("ts") >= 0.0 && text("s") == "t"),
        "M" => assert!(event["args"]["name"].is_string()),
        other => panic!("no event of ours is a {other:?}"),
    }
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("timeline-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a test of this file once more, in a process that is to write a timeline.
fn run(test: &str, file: &Path) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_timeline_has_a_row_a_worker_and_a_slice_a_task() {
    {
        if let Some(path) = std::env::var_os(FILE) {
            return work(Path::new(&path).parent().unwrap());
        }
        let folder = folder();
        let file = folder.join("run.json");
        run("a_timeline_has_a_row_a_worker_and_a_slice_a_task", &file);
        let text = std::fs::read_to_string(&file).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text).expect("an array, whole after the last call");
        events.iter().for_each(check);
        let of = |phase: &str, name: &str| {
            let is = |event: &&Value| {
                event["ph"] == phase && event["name"].as_str().is_some_and(|n| n.ends_with(name))
            };
            events.iter().filter(is).collect::<Vec<_>>()
        };
        assert_eq!(of("X", "timeline::take").len(), 20 + 2000 + 1 + 5);
        assert_eq!(of("X", "timeline::nested").len(), 1);
        assert_eq!(of("X", "timeline::strike_once").len(), 1, "the attempt that succeeded");
        let failed = of("X", "timeline::fail");
        assert_eq!((failed.len(), &failed[0]["args"]["failed"]), (1, &Value::Bool(true)));
        assert_eq!((of("i", "crash").len(), of("i", "retry").len()), (1, 1));
        assert!(of("i", "start").len() >= 4, "two workers, one of them twice, and the other pools'");
        assert!(of("M", "process_name").len() == 3);
        assert!(
            of("M", "process_name")
                .iter()
                .any(|event| event["args"]["name"].as_str().unwrap().contains("a \"name\""))
        );
        // Each row's slices come one after the other.
        let mut ends: BTreeMap<(u64, u64), f64> = BTreeMap::new();
        for event in events.iter().filter(|event| event["ph"] == "X") {
            let row = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
            let (from, took) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            let end = ends.entry(row).or_insert(0.0);
            assert!(from >= *end - 0.002, "{event} begins before {end}");
            *end = from + took;
        }
        let named = events.iter().filter(|event| event["name"] == "thread_name");
        let named: Vec<_> =
            named.map(|event| (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap())).collect();
        assert!(ends.keys().all(|row| named.contains(row)), "each row has a name");
        let slow =
            events.iter().filter(|event| event["ph"] == "X" && event["dur"].as_f64().unwrap() >= 1000.0);
        assert!(slow.count() >= 26, "those that took a millisecond say so");
        let indices: BTreeSet<u64> =
            of("X", "timeline::take").iter().map(|event| event["args"]["index"].as_u64().unwrap()).collect();
        assert!((0..2000).all(|index| indices.contains(&index)));
        let _ = std::fs::remove_dir_all(folder);
    }
}

#[test]
fn a_file_that_cannot_be_written_costs_the_timeline_only() {
    {
        if std::env::var_os(FILE).is_some() {
            assert_eq!(Pool::new(1).unwrap().submit(delayed!(take(1))).join().unwrap(), 1);
            return;
        }
        run("a_file_that_cannot_be_written_costs_the_timeline_only", Path::new("/nowhere/at/all.json"));
    }
}
