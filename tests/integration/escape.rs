//! Text from workers and users is shown without control characters, and no line of it can pass for one of ours.

use std::process::{Command, Stdio};

use procession::{Output, Pool, RemoteError, delayed, worker};

use crate::{
    alone::alone,
    logs::{COLLECTOR, collect},
};

/// Clears the screen, rings, returns, forges a line, and turns the direction of writing.
const HOSTILE: &str =
    "a\x1b[2J\x07\r\ntask 9 of `f` panicked\n  at b.rs:1:1\n\u{9b}31m\u{7f}\u{85}\u{2028}\u{202e}\u{2066}\tz";

#[worker]
fn panic_with(words: &str) {
    panic!("{words}")
}

#[worker]
fn refuse_with(words: &str) -> Result<(), RemoteError> {
    Err(RemoteError::msg(words))
}

#[worker]
fn log_words(words: &str) {
    log::warn!(target: words, field = words; "{words}");
}

#[worker]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is captured")]
fn print_words(words: &str) {
    println!("{words}");
    eprintln!("{words}");
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn crash() {
    std::process::abort()
}

/// Returns whether a terminal would only display `c`, or end a line.
fn is_plain(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c == '\n' || !(c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// It has no control characters, and only its first line begins at the margin.
#[track_caller]
fn assert_escaped(shown: &str) {
    assert!(shown.contains("\\u{1b}[2J"), "{shown:?}");
    assert!(shown.chars().all(is_plain), "{shown:?}");
    for line in shown.lines().skip(1) {
        assert!(line.starts_with("  ") || line.is_empty(), "a forged line: {shown:?}");
    }
    assert_eq!(shown.matches("\n  at ").count(), usize::from(shown.contains("escape.rs:")), "{shown:?}");
}

#[test]
fn the_message_of_a_panic_is_escaped_when_displayed_and_unchanged_when_returned() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(panic_with(HOSTILE))).join().unwrap_err();
        assert_escaped(&error.to_string());
        assert!(format!("{error:?} {error:#?}").chars().all(is_plain));
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), HOSTILE);
        assert_escaped(&panic.to_string());
        let error = procession::Error::from(error);
        assert_escaped(&error.to_string());
        assert_escaped(&format!("{error:?}"));
    });
}

#[test]
fn the_errors_of_functions_are_escaped() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(refuse_with(HOSTILE))).join().unwrap().unwrap_err();
        assert_escaped(&error.to_string());
        assert_escaped(&format!("{error:#}"));
        assert_escaped(&format!("{error:?}"));
        assert_escaped(&format!("{:?}", procession::Error::from(error)));
    });
}

#[test]
fn the_name_of_a_pool_is_escaped_in_errors_and_in_the_list_of_processes() {
    alone(|| {
        let pool = Pool::builder().jobs(1).name(HOSTILE).build().unwrap();
        if let Some(worker) =
            pool.stats().workers()[0].pid().or_else(|| pool.submit(delayed!(pid())).join().ok())
        {
            let title = std::fs::read_to_string(format!("/proc/{worker}/comm")).unwrap();
            assert!(title.trim_end().chars().all(|c| is_plain(c) && c != '\n'), "{title:?}");
        }
        for thread in std::fs::read_dir("/proc/self/task").unwrap() {
            let title = std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap();
            assert!(title.trim_end_matches('\n').chars().all(|c| is_plain(c) && c != '\n'), "{title:?}");
        }
        let error = pool.submit(delayed!(crash())).join().unwrap_err();
        assert_escaped(&error.to_string());
        let folder = Pool::builder().current_dir(format!("/{HOSTILE}")).build().unwrap_err();
        assert_escaped(&folder.to_string());
    });
}

#[test]
fn records_reach_the_logger_escaped() {
    alone(|| {
        let pool =
            Pool::builder().jobs(1).stdout(Output::Log).stderr(Output::Log).name(HOSTILE).build().unwrap();
        collect(log::LevelFilter::Info);
        pool.submit(delayed!(log_words(HOSTILE))).join().unwrap();
        let seen = COLLECTOR.take();
        let [record] = &seen[..] else { panic!("one record: {seen:?}") };
        assert_escaped(&record.words);
        assert_escaped(&record.target);
        assert_escaped(record.field("field"));
        assert_eq!((record.target.lines().count(), record.field("field").lines().count()), (1, 1));
        pool.submit(delayed!(print_words(HOSTILE))).join().unwrap();
        let lines = COLLECTOR.take();
        assert!(lines.len() > 2 && lines.iter().all(|line| line.words.chars().all(is_plain)), "{lines:?}");
    });
}

/// In a process that plays a scene.
const SCENE: &str = "PROCESSION_TESTS_ESCAPE_SCENE";

/// The program whose output the test below reads.
#[test]
fn scene() {
    if std::env::var_os(SCENE).is_some() {
        let pool = Pool::builder().jobs(1).stdout(Output::Capture).stderr(Output::Capture);
        let pool = pool.start_method(procession::StartMethod::Spawn).build().unwrap();
        let (_, captured) = pool.submit(delayed!(print_words(HOSTILE))).join_captured();
        assert_eq!(captured.stdout(), format!("{HOSTILE}\n"), "what is asked for is whole");
        pool.submit(delayed!(print_words(HOSTILE))).join().unwrap();
        let error = pool.submit(delayed!(panic_with(HOSTILE))).join().unwrap_err();
        error.resume_panic();
    }
}

#[test]
fn captured_output_is_shown_escaped() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "escape::scene", "--nocapture", "--test-threads=1"])
        .env(SCENE, "1")
        .env_remove("PROCESSION_IN_PROCESS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    for shown in [output.stdout, output.stderr] {
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("\\u{1b}[2J") && shown.chars().all(|c| is_plain(c) || c == '\t'), "{shown:?}");
    }
}
