//! The destinations of workers' stdout and stderr: nowhere, the parent's log, or the thread that takes the task's outcome. All output
//! arrives whole, in order, and with its own task, however long it is.
#![expect(unsafe_code, reason = "what C writes is a promise, too")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "workers that write are what this is about")]

mod captured;
mod shown;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use log::{Level, LevelFilter};
use procession::{Output, Pool, delayed, parallel, worker};

use self::captured::check_tails;
use crate::{
    alone::alone,
    end::End,
    event::{is_there, until, until_exists},
    logs::{COLLECTOR, Seen, collect},
    scratch::{Folder, append, numbers},
};

/// The number of bytes that the pool keeps of a task's stream.
const KEPT_BYTES: usize = 64 << 10;

/// More than a pipe holds.
const PIECE_BYTES: usize = 256 << 10;

/// Returns what descriptors 1 and 2 refer to.
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

/// Writes this many lines to each stream, far more than a pipe holds.
#[worker]
fn flood(lines: u64) {
    // Many lines at a time, like a program with much output.
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
fn lines_become_records_that_name_their_origin() {
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
fn much_output_is_read_even_if_no_thread_waits() {
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
fn a_worker_that_never_stops_writing_does_not_delay_others() {
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
