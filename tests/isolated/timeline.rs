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

/// Does the work of the test, in a process that has the variable.
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

/// Checks the fields that every event has.
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

fn folder(name: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("timeline-{name}-{}", std::process::id()));
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
        let folder = folder("rows");
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

/// Runs a program that makes one call with the file, and returns its stderr.
#[track_caller]
fn said(file: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_call", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    words
}

/// In a process of its own, which has the variable.
#[test]
fn one_call() {
    if std::env::var_os(FILE).is_some() {
        if let Ok(most) = std::env::var(LIMIT) {
            let most = most.parse().unwrap();
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, most, most).unwrap();
        }
        let pool = Pool::builder().jobs(1).name("a\x1b[2J\u{9b}\n").build().unwrap();
        assert_eq!(pool.submit(delayed!(take(1))).join().unwrap(), 1);
        let other = Pool::new(1).unwrap();
        assert_eq!(other.submit(delayed!(take(1))).join().unwrap(), 1);
        if std::env::var_os(KILLED).is_some() {
            std::process::abort();
        }
    }
}

/// The process's files are to be no longer.
const LIMIT: &str = "PROCESSION_TESTS_TIMELINE_LIMIT";

/// The process is to end in the middle.
const KILLED: &str = "PROCESSION_TESTS_TIMELINE_KILLED";

#[track_caller]
fn assert_whole(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).expect("an array");
    events.iter().for_each(check);
    assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), 2, "{text}");
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_that_cannot_be_written_costs_the_timeline_only_and_is_reported_once() {
    let words = said(Path::new("/nowhere/at/all.json"));
    assert_eq!(
        words.matches("PROCESSION_TRACE=/nowhere/at/all.json: no timeline is written: ").count(),
        1,
        "{words}"
    );
    let words = said(Path::new("/proc/\x1b[2J\nforged"));
    assert!(words.contains("PROCESSION_TRACE=/proc/\\u{1b}[2J\\nforged: no timeline"), "{words}");
}

#[test]
fn a_timeline_past_the_limit_of_files_sizes_costs_its_end_only_and_is_reported_once() {
    let folder = folder("limit");
    let file = folder.join("run.json");
    for (most, what) in [(300, "the end of the timeline is missing: "), (20, "no timeline is written: ")] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_call", "--nocapture", "--test-threads=1"])
            .env(FILE, &file)
            .env(LIMIT, most.to_string())
            .output()
            .unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{most}: {:?} {words}", output.status);
        assert_eq!(words.matches(what).count(), 1, "{most}: {words}");
        assert_eq!(words.matches("PROCESSION_TRACE=").count(), 1, "{most}: {words}");
        assert!(std::fs::metadata(&file).unwrap().len() <= 300, "{most}");
        assert_eq!(names(&folder), BTreeSet::from(["run.json".to_owned()]), "{most}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn nothing_but_a_timeline_of_ours_or_an_empty_file_is_replaced() {
    let folder = folder("replaced");
    let treasure = folder.join("treasure.txt");
    std::fs::write(&treasure, "[\n{\"name\":\"mine\"}\n]\n").unwrap();
    let is_kept = |words: &str, why: &str| {
        assert_eq!(words.matches("no timeline is written: ").count(), 1, "{words}");
        assert!(words.contains(why), "{words}");
        assert_eq!(std::fs::read_to_string(&treasure).unwrap(), "[\n{\"name\":\"mine\"}\n]\n");
    };
    is_kept(&said(&treasure), "it is not a timeline written by procession");
    let link = folder.join("link.json");
    for target in [&treasure, &folder.join("nothing"), &PathBuf::from("/dev/stderr")] {
        std::os::unix::fs::symlink(target, &link).unwrap();
        is_kept(&said(&link), "it is a link");
        assert_eq!(std::fs::read_link(&link).unwrap(), *target);
        std::fs::remove_file(&link).unwrap();
    }
    is_kept(&said(&folder), "it is not a file");
    is_kept(&said(Path::new("/dev/null")), "it is not a file");
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    is_kept(&said(&pipe), "it is not a file");
    std::fs::remove_file(&pipe).unwrap();
    let file = folder.join("run.json");
    std::fs::write(&file, "").unwrap();
    for _ in 0..2 {
        assert_eq!(said(&file), "");
        assert_whole(&file);
    }
    assert_eq!(names(&folder), BTreeSet::from(["run.json".to_owned(), "treasure.txt".to_owned()]));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_killed_program_leaves_a_whole_timeline_and_nothing_else() {
    let folder = folder("killed");
    let file = folder.join("run.json");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "one_call", "--nocapture", "--test-threads=1"])
        .env(FILE, &file)
        .env(KILLED, "1");
    assert!(!command.output().unwrap().status.success());
    assert_whole(&file);
    assert_eq!(names(&folder), BTreeSet::from(["run.json".to_owned()]));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn programs_that_share_a_timeline_file_leave_it_whole() {
    let folder = folder("shared");
    let file = folder.join("run.json");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(said(&file), ""));
        }
    });
    assert_whole(&file);
    assert_eq!(names(&folder), BTreeSet::from(["run.json".to_owned()]));
    std::fs::remove_dir_all(folder).unwrap();
}
