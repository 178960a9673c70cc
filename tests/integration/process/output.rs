//! The destinations of what a process writes and logs.

use std::{path::Path, sync::Mutex};

use log::{LevelFilter, Log, Metadata, Record};
use procession::{Output, Process, delayed, worker};

use super::echo;
use crate::{
    alone::alone,
    end::End,
    event::{until, until_exists},
    scratch::Folder,
};

#[worker]
fn write_and_strike(end: End) {
    println!("on stdout");
    eprintln!("on stderr");
    end.strike()
}

#[test]
fn the_output_of_a_process_goes_where_its_builder_says() {
    alone(|| {
        for (output, expected) in [(Output::Capture, true), (Output::Log, true), (Output::Null, false)] {
            for end in [End::Panic, End::Abort] {
                let builder = Process::builder().stdout(output).stderr(output);
                let mut process = builder.spawn(delayed!(write_and_strike(end))).unwrap();
                let error = process.join().unwrap_err();
                let has = |words: Option<&str>, what| words.is_some_and(|words| words.contains(what));
                assert_eq!(has(error.stdout_tail(), "on stdout"), expected, "{output:?} {end:?}");
                assert_eq!(has(error.stderr_tail(), "on stderr"), expected, "{output:?} {end:?}");
            }
        }
    });
}

#[worker]
fn write_lines(go: &Path) {
    until_exists(go);
    (0..100).for_each(|n| println!("line {n}"));
}

#[test]
fn lines_of_a_process_become_records_before_its_end() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        log::set_max_level(LevelFilter::Info);
        let mut process = Process::builder().stdout(Output::Log).spawn(delayed!(write_lines(&go))).unwrap();
        log::set_logger(&LOGGER).unwrap();
        std::fs::write(&go, "").unwrap();
        process.join().unwrap();
        let said = std::mem::take(&mut *LOGGER.said.lock().unwrap());
        let lines = said.iter().filter(|words| words.starts_with("line "));
        assert!(
            lines
                .map(|words| words.split(' ').nth(1).unwrap().to_owned())
                .eq((0..100).map(|n| n.to_string())),
            "{said:?}"
        );
    });
}

/// Keeps the records that it receives, and joins a process when a record asks for it.
struct Logger {
    said: Mutex<Vec<String>>,
    to_join: Mutex<Option<Process<u64>>>,
}

static LOGGER: Logger = Logger { said: Mutex::new(Vec::new()), to_join: Mutex::new(None) };

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        struct Names(Vec<String>);
        impl<'kvs> log::kv::VisitSource<'kvs> for Names {
            fn visit_pair(
                &mut self,
                name: log::kv::Key<'kvs>,
                value: log::kv::Value<'kvs>,
            ) -> Result<(), log::kv::Error> {
                self.0.push(if name.as_str() == "pid" { format!("pid={value}") } else { name.to_string() });
                Ok(())
            }
        }
        let mut names = Names(Vec::new());
        record.key_values().visit(&mut names).expect("fields that can be read");
        self.said.lock().unwrap().push(format!("{} {}", record.args(), names.0.join(" ")));
        let to_join = self.to_join.lock().unwrap().take();
        if let Some(mut process) = to_join {
            assert_eq!(process.join().unwrap(), 8);
        }
    }

    fn flush(&self) {}
}

#[worker]
fn speak_for_ever(begun: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    loop {
        log::info!("and");
    }
}

#[test]
fn a_process_that_never_stops_writing_does_not_delay_others() {
    alone(|| {
        let folder = Folder::new();
        let begun = folder.path("begun");
        log::set_max_level(LevelFilter::Info);
        let talker = Process::spawn(delayed!(speak_for_ever(&begun))).unwrap();
        until_exists(&begun);
        for n in 0..5 {
            assert_eq!(Process::spawn(delayed!(echo(n))).unwrap().join().unwrap(), n);
        }
        assert!(talker.is_alive());
        talker.kill().unwrap();
        until("it is seen to have ended", || !talker.is_alive());
    });
}

#[worker]
fn speak(go: &Path, times: u32) {
    until_exists(go);
    (0..times).for_each(|n| log::info!("word {n}"));
}

#[test]
fn records_of_a_process_are_delivered_before_its_end_and_a_logger_may_join_processes() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        log::set_max_level(LevelFilter::Info);
        let mut process = Process::spawn(delayed!(speak(&go, 100))).unwrap();
        *LOGGER.to_join.lock().unwrap() = Some(Process::spawn(delayed!(echo(8))).unwrap());
        // A copy of a process that has a logger keeps it: so it is set now.
        log::set_logger(&LOGGER).unwrap();
        std::fs::write(&go, "").unwrap();
        process.join().unwrap();
        let said = std::mem::take(&mut *LOGGER.said.lock().unwrap());
        let expected: Vec<String> = (0..100).map(|n| format!("word {n} pid={} task", process.id())).collect();
        assert_eq!(said, expected);
        assert!(LOGGER.to_join.lock().unwrap().is_none(), "and it has joined");
    });
}
