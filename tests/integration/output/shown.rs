//! The part of the workers' output that a test harness shows.

use std::process::{Command, Stdio};

use log::LevelFilter;
use procession::{Output, Pool, delayed, parallel, worker};

/// Set where the tests below are to fail, so that the harness shows what they have written.
const SHOW: &str = "PROCESSION_TESTS_SHOW";

/// Has a worker print something in a test, which then fails.
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
        .args(["output::shown::shown_", "--test-threads=3"])
        .env(SHOW, "1")
        // The harness has threads.
        .env("PROCESSION_START_METHOD", "spawn")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    for who in ["one", "two", "three"] {
        let heading = format!("---- output::shown::shown_{who} stdout ----");
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
