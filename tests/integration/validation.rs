//! One rule for all settings and variables: `build` refuses an impossible value, with the setting, the value and what is allowed.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use procession::{Builder, Pool, Process, ProcessBuilder, TaskError, delayed, parallel, worker};

use crate::{alone::alone, awaiting::next, event::block_on};

#[worker]
fn double(n: u64) -> u64 {
    2 * n
}

#[track_caller]
fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    assert!(error.len() < 600, "as long as that: {error}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}

type Set = fn(Builder) -> Builder;
type SetOne = fn(ProcessBuilder) -> ProcessBuilder;

const KILOBYTES: usize = 100_000;

#[test]
fn build_refuses_each_impossible_setting_with_its_name_its_value_and_what_is_allowed() {
    let table: &[(Set, &[&str])] = &[
        (|b| b.jobs(0), &["jobs = 0", "from 1 to 4096"]),
        (|b| b.jobs(4097), &["jobs = 4097", "from 1 to 4096"]),
        (|b| b.jobs(u64::MAX), &["jobs = 18446744073709551615", "from 1 to 4096"]),
        (|b| b.chunk_size(0), &["chunk_size(0)", "from 1"]),
        (|b| b.start_timeout(Duration::ZERO), &["start_timeout(0ns)", "above zero"]),
        (|b| b.task_timeout(Duration::ZERO), &["task_timeout(0ns)", "above zero"]),
        (|b| b.max_restarts(3, Duration::ZERO), &["max_restarts(3, 0ns)", "above zero"]),
        (|b| b.memory_limit(0), &["memory_limit(0)", "from 1048576"]),
        (|b| b.memory_limit(1), &["memory_limit(1)", "from 1048576"]),
        (|b| b.max_worker_rss(0), &["max_worker_rss(0)", "from 1"]),
        (|b| b.max_tasks_per_worker(0), &["max_tasks_per_worker(0)", "from 1"]),
        (|b| b.inner_threads(0), &["inner_threads(0)", "from 1 to 4096"]),
        (|b| b.inner_threads(usize::MAX), &["inner_threads(18446744073709551615)", "from 1 to 4096"]),
        (|b| b.nice(20), &["nice(20)", "-20 to 19"]),
        (|b| b.nice(i32::MIN), &["nice(-2147483648)", "-20 to 19"]),
        (|b| b.name("a\0b"), &["name(\"a\\0b\")", "zero byte"]),
        (|b| b.name("x".repeat(KILOBYTES)), &["name(\"xxx", "100000 bytes", "at most 255"]),
        (|b| b.current_dir(""), &["current_dir(\"\")", "an existing directory"]),
        (
            |b| b.current_dir("/no/such folder"),
            &["current_dir(\"/no/such folder\")", "No such file", "an existing directory"],
        ),
        (|b| b.current_dir("/proc/version"), &["current_dir(\"/proc/version\")", "Not a directory"]),
        (|b| b.current_dir("/\u{1b}[2J\n"), &["current_dir(\"/\\u{1b}[2J\\n\")"]),
        (|b| b.current_dir("/\0"), &["current_dir(\"/\\0\")", "zero byte"]),
        (|b| b.current_dir(OsString::from_vec(b"/\xff".to_vec())), &["current_dir(\"/\\xFF\")"]),
        (|b| b.current_dir("/x".repeat(KILOBYTES)), &["current_dir(\"/x/x"]),
        (|b| b.env("", "1"), &["env(\"\")", "neither `=` nor a zero byte"]),
        (|b| b.env("A=B", "1"), &["env(\"A=B\")", "neither `=` nor a zero byte"]),
        (|b| b.env("A\0", "1"), &["env(\"A\\0\")", "neither `=` nor a zero byte"]),
        (|b| b.env("A", "\0"), &["env(\"A\")", "zero byte"]),
        (|b| b.env("A", "x".repeat(2 * KILOBYTES)), &["env(\"A\")", "at most 131070 bytes"]),
        (|b| b.env_remove("A=B"), &["env_remove(\"A=B\")", "neither `=` nor a zero byte"]),
    ];
    alone(|| {
        for (set, words) in table {
            let begun = Instant::now();
            let error = set(Pool::builder()).build().unwrap_err();
            assert_says(&error.to_string(), words);
            assert!(begun.elapsed() < Duration::from_secs(5), "{error}");
        }
    });
}

#[test]
fn spawn_refuses_as_build_does() {
    let table: &[(SetOne, &[&str])] = &[
        (|b| b.start_timeout(Duration::ZERO), &["start_timeout(0ns)", "above zero"]),
        (|b| b.inner_threads(0), &["inner_threads(0)", "from 1 to 4096"]),
        (|b| b.nice(-21), &["nice(-21)", "-20 to 19"]),
        (|b| b.name("a\0b"), &["name(\"a\\0b\")", "zero byte"]),
        (|b| b.name("x".repeat(KILOBYTES)), &["100000 bytes", "at most 255"]),
        (|b| b.current_dir(""), &["current_dir(\"\")", "an existing directory"]),
        (|b| b.current_dir("/no/such/folder"), &["current_dir(\"/no/such/folder\")", "No such file"]),
        (|b| b.env("A=B", "1"), &["env(\"A=B\")"]),
    ];
    alone(|| {
        for (set, words) in table {
            let error = set(Process::builder()).spawn(delayed!(double(1))).unwrap_err();
            assert_says(&error.to_string(), words);
        }
    });
}

#[test]
fn an_iterator_refuses_a_chunk_size_of_zero_and_takes_no_more_input() {
    alone(|| {
        let says_so = |error: TaskError, index: usize| {
            let words = error.to_string();
            let parts = [&*format!("task {index} of `"), "chunk_size(0)", "a number from 1"];
            assert!(error.is_lost() && parts.iter().all(|part| words.contains(part)), "{words}");
        };
        for pool in [Pool::new(2).unwrap(), Pool::in_process()] {
            let tasks = || (0..50).map(|n| delayed!(double(n)));
            let mut results = pool.imap(tasks()).chunk_size(0);
            says_so(results.next().unwrap().unwrap_err(), 0);
            assert!(results.next().is_none() && results.next().is_none());
            let mut results = pool.imap_unordered(tasks()).chunk_size(0);
            let (index, result) = results.next().unwrap();
            says_so(result.unwrap_err(), index);
            assert!(results.next().is_none());
            let mut results = pool.stream(tasks()).chunk_size(0);
            says_so(block_on(next(&mut results)).unwrap().unwrap_err(), 0);
            assert!(block_on(next(&mut results)).is_none());
            let mut results = pool.stream_unordered(tasks()).chunk_size(0);
            says_so(block_on(next(&mut results)).unwrap().1.unwrap_err(), 0);
            assert!(block_on(next(&mut results)).is_none());
            // Results of tasks that were submitted by then still arrive.
            let mut results = pool.imap((0..).map(|n| delayed!(double(n))));
            assert_eq!(results.next().unwrap().unwrap(), 0);
            let mut results = results.chunk_size(0);
            let error = results.next().unwrap().unwrap_err();
            assert!(error.to_string().contains("chunk_size(0)"), "{error}");
            let rest: Vec<u64> = results.map(Result::unwrap).collect();
            assert!(rest.iter().copied().eq((1..).map(|n| 2 * n).take(rest.len())), "{rest:?}");
            assert_eq!(pool.imap((0..0).map(|n| delayed!(double(n)))).chunk_size(0).count(), 0);
        }
    });
}

#[test]
fn allowed_values_work_up_to_their_limits() {
    let table: &[Set] = &[
        |b| b.chunk_size(usize::MAX),
        |b| b.jobs(2).chunk_size(usize::MAX),
        |b| b.start_timeout(Duration::MAX),
        |b| b.task_timeout(Duration::MAX),
        |b| b.idle_timeout(Duration::MAX),
        |b| b.idle_timeout(Duration::ZERO),
        |b| b.memory_limit(1 << 20),
        |b| b.memory_limit(u64::MAX),
        |b| b.max_worker_rss(1),
        |b| b.max_worker_rss(u64::MAX),
        |b| b.max_tasks_per_worker(1),
        |b| b.max_tasks_per_worker(u64::MAX),
        |b| b.inner_threads(4096),
        |b| b.nice(19),
        |b| b.retries(u32::MAX),
        |b| b.max_restarts(0, Duration::MAX),
        |b| b.max_restarts(u32::MAX, Duration::from_nanos(1)),
        |b| b.seed(u64::MAX),
        |b| b.name(""),
        |b| b.name("x".repeat(255)),
        |b| b.name("two\nlines"),
        |b| b.current_dir("/"),
        |b| b.env("A\n\u{1b}", "\u{1b}\n"),
        |b| b.env(OsStr::from_bytes(b"\xff"), OsStr::from_bytes(b"\xff")),
        |b| b.env("A", ""),
    ];
    alone(|| {
        for (number, set) in table.iter().enumerate() {
            let pool =
                set(Pool::builder().jobs(1)).build().unwrap_or_else(|error| panic!("{number}: {error}"));
            let results = pool.map((0..10).map(|n| delayed!(double(n))));
            assert!(results.is_ok_and(|results| results.into_iter().eq((0..10).map(|n| 2 * n))), "{number}");
        }
    });
}

#[test]
fn the_settings_of_a_call_are_refused_with_the_value_that_was_written() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        macro_rules! refused {
            ($($setting:ident = $value:expr => $($words:literal)*;)*) => {$(
                let error = parallel!(pool = &pool, $setting = $value; double(n) for n in 0..3).unwrap_err();
                assert_says(&error.to_string(), &[$($words),*]);
            )*};
        }
        let error = |outcome: procession::Result<Vec<u64>>| outcome.unwrap_err().to_string();
        assert_says(
            &error(parallel!(pool = &pool, timeout = secs(-1.0); double(n) for n in 0..3)),
            &["timeout = secs(-1.0)", "above zero"],
        );
        assert_says(
            &error(parallel!(pool = &pool, timeout = secs(f64::NAN); double(n) for n in 0..3)),
            &["timeout = secs(NaN)", "above zero"],
        );
        assert_says(
            &error(parallel!(pool = &pool, timeout = millis(-7); double(n) for n in 0..3)),
            &["timeout = millis(-7)", "above zero"],
        );
        assert_says(
            &error(parallel!(pool = &pool, timeout = mins(0); double(n) for n in 0..3)),
            &["timeout = mins(0)", "above zero"],
        );
        assert_says(
            &error(parallel!(pool = &pool, timeout = secs(1) + secs(-2); double(n) for n in 0..3)),
            &["timeout = secs(-2)", "above zero"],
        );
        assert_says(
            &error(parallel!(pool = &pool, timeout = Duration::ZERO; double(n) for n in 0..3)),
            &["timeout = 0ns", "above zero"],
        );
        refused! {
            batch = 0 => "batch = 0" "from 1";
            jobs = 0 => "jobs = 0" "from 1 to 4096";
            jobs = 5000 => "jobs = 5000" "from 1 to 4096";
        }
        let works = |outcome: procession::Result<Vec<u64>>| assert_eq!(outcome.unwrap(), [0, 2]);
        works(parallel!(pool = &pool, timeout = secs(f64::INFINITY); double(n) for n in 0..2));
        works(parallel!(pool = &pool, timeout = mins(u64::MAX); double(n) for n in 0..2));
        works(parallel!(pool = &pool, timeout = Duration::MAX; double(n) for n in 0..2));
        works(parallel!(pool = &pool, timeout = Some(secs(60)); double(n) for n in 0..2));
        works(parallel!(pool = &pool, timeout = secs(30) * 2; double(n) for n in 0..2));
        works(
            parallel!(pool = &pool, batch = usize::MAX, retries = u32::MAX, verbose = 0; double(n) for n in 0..2),
        );
    });
}

/// In a process that plays a scene.
const SCENE: &str = "PROCESSION_TESTS_VALIDATION_SCENE";

/// Prints what a pool, a call and a process do with the environment.
#[test]
fn scene() {
    if std::env::var_os(SCENE).is_some() {
        let pool = Pool::builder().build().map(drop);
        let call = parallel!(double(n) for n in 0..2).map(drop);
        let process = Process::spawn(delayed!(double(1))).map(drop);
        for (who, outcome) in [("pool", pool), ("call", call), ("process", process)] {
            println!("{who}: {}", outcome.map_or_else(|error| error.to_string(), |()| "fine".to_owned()));
        }
    }
}

/// Returns the errors of a pool, a process and a call if a variable has this value.
fn said(name: &str, value: &OsStr) -> [String; 3] {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for other in ["JOBS", "START_METHOD", "IN_PROCESS", "VERBOSE", "TRACE", "TRANSPORT", "WAIT_FOR_DEBUGGER"]
    {
        command.env_remove(format!("PROCESSION_{other}"));
    }
    let output = command
        .args(["--exact", "validation::scene", "--nocapture", "--test-threads=1"])
        .env(SCENE, "1")
        .env(name, value)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    let of = |who: &str| {
        let line = words.lines().find_map(|line| line.split_once(who).map(|(_, said)| said.to_owned()));
        line.unwrap_or_else(|| {
            panic!("{name}={value:?}: {words}\n{}", String::from_utf8_lossy(&output.stderr))
        })
    };
    ["pool: ", "call: ", "process: "].map(of)
}

/// The name, values that are refused, what is allowed, and which of pool, call and process use it.
type Variable = (&'static str, &'static [&'static [u8]], &'static str, [bool; 3]);
const VARIABLES: &[Variable] = &[
    (
        "PROCESSION_JOBS",
        &[b"0", b"-1.5", b"1e99", b"99999", b"NaN", b"many\n", b"\xff"],
        "from 1 to 4096",
        [true, true, false],
    ),
    (
        "PROCESSION_START_METHOD",
        &[b"0", b"thread\x1b", b"\xff"],
        "`spawn`, `forkserver` or `fork`",
        [true, true, true],
    ),
    ("PROCESSION_IN_PROCESS", &[b"yes", b"2", b"-1", b"\xff"], "0 or 1", [true, true, true]),
    ("PROCESSION_WAIT_FOR_DEBUGGER", &[b"yes", b"\n"], "0 or 1", [true, true, true]),
    ("PROCESSION_TRANSPORT", &[b"smoke", b"\xff"], "`memory` or `socket`", [true, true, true]),
    (
        "PROCESSION_SHARE_BYTES",
        &[b"65535", b"1M", b"always", b"-1", b"\xff"],
        "a number of bytes from 65536, or `never`",
        [true, true, true],
    ),
    (
        "PROCESSION_VERBOSE",
        &[b"loud", b"-1", b"0.5", b"99999999999", b"\xff"],
        "from 0 (nothing)",
        [false, true, false],
    ),
];

#[test]
fn variables_are_refused_with_their_value_and_what_is_allowed() {
    for (name, values, allowed, uses) in VARIABLES {
        for value in *values {
            for (said, uses) in said(name, OsStr::from_bytes(value)).iter().zip(uses) {
                if !uses {
                    assert_eq!(said, "fine", "{name}={value:?}");
                    continue;
                }
                assert_says(said, &[&format!("{name}="), allowed]);
                if let Ok(value) = std::str::from_utf8(value) {
                    assert_says(said, &[value.trim_matches(|c: char| c.is_control())]);
                }
            }
        }
        let empty = said(name, OsStr::new(""));
        assert_eq!(empty, ["fine"; 3], "{name}: what is empty is not set");
    }
    let long = "x".repeat(KILOBYTES);
    let [pool, ..] = said("PROCESSION_JOBS", OsStr::new(&long));
    assert_says(&pool, &["PROCESSION_JOBS=xxx", "from 1 to 4096"]);
    for (name, value) in [
        ("PROCESSION_JOBS", "-1"),
        ("PROCESSION_JOBS", " 2 "),
        ("PROCESSION_START_METHOD", "forkserver"),
        ("PROCESSION_IN_PROCESS", "0"),
        ("PROCESSION_IN_PROCESS", "1"),
        ("PROCESSION_WAIT_FOR_DEBUGGER", "0"),
        ("PROCESSION_TRANSPORT", "memory"),
        ("PROCESSION_TRANSPORT", "socket"),
        ("PROCESSION_SHARE_BYTES", "never"),
        ("PROCESSION_SHARE_BYTES", "65536"),
        ("PROCESSION_VERBOSE", "0"),
    ] {
        assert_eq!(said(name, OsStr::new(value)), ["fine"; 3], "{name}={value}");
    }
}
