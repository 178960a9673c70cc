//! Forwards records that workers log to the parent's logger, with the worker that made them, before the result of their task.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use procession::{Pool, delayed, worker};

/// Logs its steps and returns the number of words.
#[worker]
fn count_words(text: &str) -> usize {
    let words = text.split_whitespace().count();
    log::info!("{words} words in {text:?}");
    log::trace!("a level that the parent has turned off: this is not even put into words");
    words
}

/// The parts of a record that the logger keeps.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    target: String,
    message: String,
    /// The fields that procession adds: the worker's index, its pid, and the number of the task.
    worker: Option<String>,
    pid: Option<String>,
    task: Option<String>,
}

/// Prints each record and keeps it. It runs in the parent and does not know about processes.
struct Logger {
    lines: Mutex<Vec<Line>>,
}

static LOGGER: Logger = Logger { lines: Mutex::new(Vec::new()) };

impl Logger {
    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("logging") && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let field = |name: &str| record.key_values().get(name.into()).map(|value| value.to_string());
        let line = Line {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
            worker: field("worker"),
            pid: field("pid"),
            task: field("task"),
        };
        let [worker, pid, task] =
            [&line.worker, &line.pid, &line.task].map(|field| field.as_deref().unwrap_or("-"));
        println!("{} {} worker={worker} pid={pid} task={task}: {}", line.level, line.target, line.message);
        self.lines().push(line);
    }

    fn flush(&self) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const TEXTS: [&str; 4] = ["to be or not to be", "that is", "the", "question"];

    log::set_logger(&LOGGER)?;
    log::set_max_level(LevelFilter::Info);

    let pool = Pool::builder().jobs(2).build()?;
    let mut total = 0;
    for text in TEXTS {
        let words = pool.submit(delayed!(count_words(text))).join()?;
        total += words;

        // The result is here, so the record is here, too.
        let lines = LOGGER.lines().clone();
        let line = lines.last().expect("a record came before the result");
        assert_eq!(line.message, format!("{words} words in {text:?}"));
        assert_eq!((line.level, line.target.as_str()), (Level::Info, "logging"));
        assert!(line.worker.is_some() && line.task.is_some());
        let pid: u32 = line.pid.as_deref().expect("a record says whose it is").parse()?;
        assert_ne!(pid, std::process::id());
    }
    pool.join()?;

    assert_eq!(total, 10);
    assert_eq!(LOGGER.lines().len(), TEXTS.len(), "each record came once, and none of the levels turned off");
    println!("{total} words in all; each record was here before its result");
    Ok(())
}
