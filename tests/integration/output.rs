//! Where workers' stdout and stderr go: nowhere, into the parent's log, or to whoever has the task's outcome; whole, in order, each
//! task's own, and however much it is.
#![expect(unsafe_code, reason = "what C writes is a promise, too")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "workers that write are what this is about")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use log::{Level, LevelFilter};
use procession::{Output, Pool, TaskError, delayed, parallel, worker};

use crate::{
    alone::alone,
    end::End,
    event::{is_there, until, until_exists},
    logs::{COLLECTOR, Seen, collect},
    scratch::{Folder, append, numbers},
};

/// What the pool keeps of a task's stream.
const KEPT_BYTES: usize = 64 << 10;

/// More than a pipe holds.
const PIECE_BYTES: usize = 256 << 10;

/// What descriptors 1 and 2 are.
#[worker]
fn streams() -> (PathBuf, PathBuf) {
    let link = |path| std::fs::read_link(path).expect("a stream that is open");
    (link("/proc/self/fd/1"), link("/proc/self/fd/2"))
}

#[worker]
fn speak(n: u64) -> u64 {
    println!("{n} begins");
    eprintln!("{n} warns");
    print!("{n} ");
    println!("ends");
    n
}

/// The end of a line is missing on both streams.
#[worker]
fn trail_off(n: u64) -> u64 {
    print!("{n} says");
    eprint!("{n} warns");
    n
}

/// Writes as C does, which keeps it in a buffer of its own, and as a process of its own does.
#[worker]
fn speak_otherwise() {
    // SAFETY: the string ends in a zero, and puts only reads it.
    let done = unsafe { nix::libc::puts(c"from C".as_ptr()) };
    assert!(done >= 0);
    let echoed = Command::new("/bin/sh").args(["-c", "echo from a child; echo and its worry >&2"]).status();
    assert!(echoed.expect("a shell").success());
}

#[worker]
fn write_bytes(out: Vec<u8>, err: Vec<u8>) {
    std::io::stdout().write_all(&out).expect("it is read");
    std::io::stderr().write_all(&err).expect("it is read");
}

/// Writes so many lines to each stream, far more than a pipe holds.
#[worker]
fn flood(lines: u64) {
    // Many lines at a time, as a program does that has so much to say.
    let mut out = BufWriter::with_capacity(PIECE_BYTES, std::io::stdout());
    let mut err = BufWriter::with_capacity(PIECE_BYTES, std::io::stderr());
    for n in 0..lines {
        writeln!(out, "{n:0>99}").expect("it is read");
        writeln!(err, "{n:0>99}").expect("it is read");
    }
}

#[worker]
fn speak_and_end(end: End) {
    println!("the last words");
    eprintln!("the first of the last words");
    eprint!("the very last");
    end.strike()
}

/// Leaves a thread behind that never stops to write.
#[worker]
fn leave_a_chatterer() {
    std::thread::spawn(|| {
        loop {
            println!("chatter");
        }
    });
}

/// Leaves a process behind that is in no group of the worker's and has its streams.
#[worker]
fn leave_a_daemon(pid: &Path) {
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", pid.display());
    let shell = Command::new("/usr/bin/setsid").args(["--fork", "/bin/sh", "-c", &script]).status();
    assert!(shell.expect("a shell").success());
}

#[worker]
fn nothing() {}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

fn pool(jobs: usize, output: Output) -> Pool {
    Pool::builder().jobs(jobs).stdout(output).stderr(output).build().unwrap()
}

/// Words of records by the stream that they came by.
fn by_stream(seen: &[Seen]) -> BTreeMap<&str, Vec<&str>> {
    let mut streams = BTreeMap::new();
    for record in seen {
        streams.entry(record.field("stream")).or_insert_with(Vec::new).push(record.words.as_str());
    }
    streams
}

#[test]
fn output_goes_where_the_parents_goes_or_nowhere() {
    alone(|| {
        let null = PathBuf::from("/dev/null");
        let (own_out, own_err) = streams();
        for (stdout, stderr, expected) in [
            (Output::Inherit, Output::Inherit, (&own_out, &own_err)),
            (Output::Null, Output::Null, (&null, &null)),
            (Output::Null, Output::Inherit, (&null, &own_err)),
            (Output::Inherit, Output::Null, (&own_out, &null)),
        ] {
            let pool = Pool::builder().jobs(1).stdout(stdout).stderr(stderr).build().unwrap();
            let (out, err) = pool.submit(delayed!(streams())).join().unwrap();
            assert_eq!((&out, &err), expected);
            assert_eq!(pool.submit(delayed!(speak(1))).join().unwrap(), 1);
        }
    });
}

#[test]
fn lines_become_records_that_say_where_they_are_from() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Info);
        let handle = pool.submit(delayed!(pid()));
        let pid = handle.join().unwrap().to_string();
        for n in 0..100 {
            let handle = pool.submit(delayed!(speak(n)));
            let task = handle.task_id().to_string();
            handle.join().unwrap();
            let seen = COLLECTOR.take();
            let (begins, ends, warns) = (format!("{n} begins"), format!("{n} ends"), format!("{n} warns"));
            let expected =
                BTreeMap::from([("stdout", vec![begins.as_str(), &ends]), ("stderr", vec![warns.as_str()])]);
            assert_eq!(by_stream(&seen), expected);
            for record in &seen {
                let is_out = record.field("stream") == "stdout";
                assert_eq!(record.level, if is_out { Level::Info } else { Level::Warn });
                assert_eq!(record.target, "integration::output");
                assert_eq!(record.module.as_deref(), Some("integration::output"));
                assert_eq!((record.field("worker"), record.field("pid")), ("0", pid.as_str()));
                assert_eq!(record.field("task"), task);
            }
        }
    });
}

#[test]
fn lines_of_a_call_arrive_once_in_order_and_before_their_results() {
    alone(|| {
        let pool = pool(2, Output::Log);
        collect(LevelFilter::Info);
        let mut seen: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (n, result) in pool.imap_unordered((0..3000).map(|n| delayed!(speak(n)))) {
            assert_eq!(result.unwrap(), n as u64);
            for record in COLLECTOR.take() {
                let task: u64 = record.field("task").parse().expect("a line of a task");
                seen.entry(task).or_default().push(record.words);
            }
            let lines: BTreeSet<&str> = seen[&(n as u64)].iter().map(String::as_str).collect();
            let expected = [format!("{n} begins"), format!("{n} ends"), format!("{n} warns")];
            assert_eq!(lines, expected.iter().map(String::as_str).collect(), "before the result of {n}");
        }
        assert!(seen.len() == 3000 && seen.values().all(|lines| lines.len() == 3));
        let out_of_order = |lines: &Vec<String>| {
            let at = |end: &str| lines.iter().position(|line| line.ends_with(end));
            at("begins") > at("ends")
        };
        assert!(!seen.values().any(out_of_order));
    });
}

#[test]
fn a_line_without_an_end_arrives_with_its_task() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Info);
        for n in 0..50 {
            pool.submit(delayed!(trail_off(n))).join().unwrap();
            let seen = COLLECTOR.take();
            let (says, warns) = (format!("{n} says"), format!("{n} warns"));
            let expected =
                BTreeMap::from([("stdout", vec![says.as_str()]), ("stderr", vec![warns.as_str()])]);
            assert_eq!(by_stream(&seen), expected);
        }
    });
}

#[test]
fn what_c_and_other_processes_write_is_output_of_the_task() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Info);
        pool.submit(delayed!(speak_otherwise())).join().unwrap();
        let seen = COLLECTOR.take();
        let streams = by_stream(&seen);
        assert_eq!(streams["stderr"], ["and its worry"]);
        let out: BTreeSet<&str> = streams["stdout"].iter().copied().collect();
        assert_eq!(out, BTreeSet::from(["from C", "from a child"]));
    });
}

#[test]
fn strange_bytes_and_long_lines_become_records_too() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Info);
        for (bytes, expected) in [
            (b"a\r\nb\n\nc".to_vec(), vec!["a".to_owned(), "b".to_owned(), String::new(), "c".to_owned()]),
            (b"\xff\0prc\n".to_vec(), vec!["\u{fffd}\\0prc".to_owned()]),
            (b"\0".to_vec(), vec!["\\0".to_owned()]),
        ] {
            pool.submit(delayed!(write_bytes(bytes, Vec::new()))).join().unwrap();
            let words: Vec<String> = COLLECTOR.take().into_iter().map(|record| record.words).collect();
            assert_eq!(words, expected);
        }
        let long = vec![b'x'; 1_000_000];
        pool.submit(delayed!(write_bytes(long.clone(), Vec::new()))).join().unwrap();
        let parts: Vec<String> = COLLECTOR.take().into_iter().map(|record| record.words).collect();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 2 * KEPT_BYTES));
        assert!(parts.concat().as_bytes() == long);
    });
}

#[test]
fn lines_of_levels_that_are_off_are_dropped() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Warn);
        pool.submit(delayed!(speak(1))).join().unwrap();
        assert_eq!(by_stream(&COLLECTOR.take()), BTreeMap::from([("stderr", vec!["1 warns"])]));
        log::set_max_level(LevelFilter::Off);
        pool.submit(delayed!(speak(2))).join().unwrap();
        assert_eq!(COLLECTOR.take().len(), 0);
    });
}

#[test]
fn each_handle_has_what_its_own_task_wrote() {
    alone(|| {
        let pool = pool(2, Output::Capture);
        let handles: Vec<_> = (0..1000).map(|n| (n, pool.submit(delayed!(speak(n))))).collect();
        for (n, handle) in handles {
            let (result, wrote) = handle.join_captured();
            assert_eq!(result.unwrap(), n);
            assert_eq!(wrote.stdout(), format!("{n} begins\n{n} ends\n"));
            assert_eq!(wrote.stderr(), format!("{n} warns\n"));
            assert!(!wrote.is_cut());
        }
        let (result, wrote) = pool.submit(delayed!(nothing())).join_captured();
        result.unwrap();
        assert_eq!((wrote.stdout(), wrote.stderr()), ("", ""));
        let (result, wrote) = pool.submit(delayed!(trail_off(7))).join_captured();
        assert_eq!(result.unwrap(), 7);
        assert_eq!((wrote.stdout(), wrote.stderr()), ("7 says", "7 warns"));
    });
}

#[test]
fn a_large_result_comes_with_what_its_task_wrote() {
    #[worker]
    fn large(n: usize) -> Vec<u8> {
        println!("{n} large");
        vec![7; n]
    }
    alone(|| {
        let captures = pool(1, Output::Capture);
        let logs = pool(1, Output::Log);
        collect(LevelFilter::Info);
        for n in [100_000, 3_000_000] {
            let (result, wrote) = captures.submit(delayed!(large(n))).join_captured();
            assert_eq!(result.unwrap().len(), n);
            assert_eq!(wrote.stdout(), format!("{n} large\n"));
            assert_eq!(logs.submit(delayed!(large(n))).join().unwrap().len(), n);
            let words: Vec<String> = COLLECTOR.take().into_iter().map(|record| record.words).collect();
            assert_eq!(words, [format!("{n} large")]);
        }
    });
}

/// What is promised of the error of a task that ended so.
fn check_tails(error: &TaskError, end: End) {
    assert_eq!(error.stdout_tail(), Some("the last words\n"), "{end:?}");
    let stderr = error.stderr_tail().unwrap_or_default();
    assert!(stderr.starts_with("the first of the last words\nthe very last"), "{end:?}: {stderr}");
    if end == End::StackOverflow {
        assert!(stderr.contains("overflow"), "what the runtime says of it is there, too: {stderr}");
    }
}

const ENDS: [End; 6] = [End::Panic, End::Exit, End::Abort, End::Segfault, End::Kill, End::StackOverflow];

#[test]
fn the_error_of_a_task_that_failed_has_its_last_lines() {
    alone(|| {
        for output in [Output::Capture, Output::Log] {
            let pool = pool(1, output);
            for end in ENDS {
                let handle = pool.submit(delayed!(speak_and_end(end)));
                check_tails(&handle.join().unwrap_err(), end);
                let error = pool.map([delayed!(speak_and_end(end))]).unwrap_err();
                check_tails(&error.into_task_error().unwrap(), end);
                // What the next task writes is the next task's.
                let (result, wrote) = pool.submit(delayed!(speak(1))).join_captured();
                assert_eq!(result.unwrap(), 1);
                assert_eq!(wrote.stdout(), "1 begins\n1 ends\n");
            }
        }
        for output in [Output::Inherit, Output::Null] {
            let pool = pool(1, output);
            let error = pool.submit(delayed!(speak_and_end(End::Abort))).join().unwrap_err();
            assert_eq!((error.stdout_tail(), error.stderr_tail()), (None, None));
        }
    });
}

#[test]
fn the_last_lines_of_a_crash_are_records_before_its_error() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Info);
        for end in [End::Exit, End::Abort, End::Segfault, End::Kill] {
            pool.submit(delayed!(speak_and_end(end))).join().unwrap_err();
            let seen = COLLECTOR.take();
            let streams = by_stream(&seen);
            assert_eq!(streams["stdout"], ["the last words"], "{end:?}");
            assert_eq!(streams["stderr"], ["the first of the last words", "the very last"], "{end:?}");
            assert!(seen.iter().all(|record| !record.field("task").is_empty()), "{seen:?}");
        }
    });
}

#[test]
fn much_output_neither_blocks_the_task_nor_stays_in_memory() {
    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
    alone(|| {
        let pool = pool(1, Output::Capture);
        let before = resident_bytes();
        // 100 MiB by both streams.
        let lines = (50 << 20) / 100;
        let (result, wrote) = pool.submit(delayed!(flood(lines))).join_captured();
        result.unwrap();
        assert!(wrote.is_cut());
        for kept in [wrote.stdout(), wrote.stderr()] {
            assert!(kept.len() <= KEPT_BYTES && kept.len() > KEPT_BYTES - 100);
            let numbers: Vec<u64> = kept.lines().map(|line| line.parse().unwrap()).collect();
            let first = lines - numbers.len() as u64;
            assert!(numbers.into_iter().eq(first..lines), "whole lines, up to the last");
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more than before");
    });
}

#[test]
fn much_output_that_nobody_waits_for_is_read_all_the_same() {
    alone(|| {
        let folder = Folder::new();
        let done = folder.path("done");
        #[worker]
        fn flood_and_note(lines: u64, done: &Path) {
            flood(lines);
            append(done, 1);
        }
        for output in [Output::Capture, Output::Log] {
            let pool = pool(1, output);
            let handle = pool.submit(delayed!(flood_and_note(10_000, &done)));
            until("the task is through", || numbers(&done) == [1]);
            drop(handle);
            std::fs::remove_file(&done).unwrap();
        }
    });
}

#[test]
fn a_worker_that_never_stops_to_write_keeps_nobody_waiting() {
    alone(|| {
        for output in [Output::Capture, Output::Log] {
            let pool = pool(1, output);
            pool.submit(delayed!(leave_a_chatterer())).join().unwrap();
            for n in 0..100 {
                assert_eq!(pool.submit(delayed!(speak(n))).join().unwrap(), n);
            }
            assert_eq!(parallel!(pool = &pool; speak(n) for n in 0..300).unwrap(), Vec::from_iter(0..300));
        }
    });
}

#[test]
fn a_process_that_holds_a_workers_streams_does_not_hold_up_its_end() {
    alone(|| {
        let folder = Folder::new();
        let pid = folder.path("pid");
        let pool = pool(1, Output::Capture);
        pool.submit(delayed!(leave_a_daemon(&pid))).join().unwrap();
        until_exists(&pid);
        let [daemon] = numbers(&pid)[..] else { panic!("one number") };
        let error = pool.submit(delayed!(speak_and_end(End::Abort))).join().unwrap_err();
        check_tails(&error, End::Abort);
        drop(pool);
        let process = nix::unistd::Pid::from_raw(daemon.try_into().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
        until("the daemon is gone", || !is_there(daemon.try_into().unwrap()));
    });
}

#[test]
fn a_pool_in_process_writes_where_its_process_does() {
    alone(|| {
        let (result, wrote) = Pool::in_process().submit(delayed!(speak(5))).join_captured();
        assert_eq!(result.unwrap(), 5);
        assert_eq!((wrote.stdout(), wrote.stderr(), wrote.is_cut()), ("", "", false));
    });
}

/// Set where the tests below are to fail, so that the harness shows what they have written.
const SHOW: &str = "PROCESSION_TESTS_SHOW";

/// Has a worker say something in a test, which then fails.
fn say_in_a_test(who: &str, output: Output) {
    #[worker]
    fn say(who: &str, how: &str) {
        println!("{who} speaks by {how}");
        eprintln!("{who} warns by {how}");
    }
    if std::env::var_os(SHOW).is_none() {
        return;
    }
    let initializer = delayed!(say(who, "initializer"));
    let pool =
        Pool::builder().jobs(1).stdout(output).stderr(output).initializer(initializer).build().unwrap();
    pool.submit(delayed!(say(who, "submit"))).join().unwrap();
    pool.map([delayed!(say(who, "map"))]).unwrap();
    assert!(pool.imap([delayed!(say(who, "imap"))]).all(|result| result.is_ok()));
    parallel!(pool = &pool; say(who, how) for how in ["parallel"]).unwrap();
    pool.broadcast(delayed!(say(who, "broadcast"))).unwrap();
    panic!("so that the harness shows what was said");
}

#[test]
fn shown_one() {
    say_in_a_test("one", Output::Capture);
}

#[test]
fn shown_two() {
    say_in_a_test("two", Output::Capture);
}

/// A logger as test harnesses have them: it prints.
struct Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{}", record.args());
    }

    fn flush(&self) {}
}

#[test]
fn shown_three() {
    if std::env::var_os(SHOW).is_some() {
        log::set_logger(&Printer).expect("a process of our own");
        log::set_max_level(LevelFilter::Info);
    }
    say_in_a_test("three", Output::Log);
}

#[test]
fn a_test_harness_shows_what_workers_wrote_with_the_test_that_called() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["output::shown_", "--test-threads=3"])
        .env(SHOW, "1")
        // The harness has threads.
        .env("PROCESSION_START_METHOD", "spawn")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    for who in ["one", "two", "three"] {
        let heading = format!("---- output::shown_{who} stdout ----");
        let section = shown.split_once(&heading).unwrap_or_else(|| panic!("{shown}")).1;
        let section = section.split("\n---- ").next().unwrap();
        for how in ["initializer", "submit", "map", "imap", "parallel", "broadcast"] {
            assert_eq!(section.matches(&format!("{who} speaks by {how}\n")).count(), 1, "{shown}");
            assert_eq!(section.matches(&format!("{who} warns by {how}\n")).count(), 1, "{shown}");
        }
        let others = section.lines().filter(|line| line.contains(" speaks ") && !line.starts_with(who));
        assert_eq!(others.count(), 0, "{shown}");
    }
    assert!(!String::from_utf8_lossy(&output.stderr).contains("warns"), "nothing goes past the harness");
}
