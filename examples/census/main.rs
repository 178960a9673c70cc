//! Examines every program under a folder, each file in a worker process.
//!
//! ```text
//! cargo run --release --example census -- /usr/bin
//! ```
//!
//! Parsers of binary formats meet hostile files. A damaged file is reported with its error. A file that makes the parser panic or crash is
//! reported as well, and the census continues. Afterwards the same function is called directly on the same files in this process, to show
//! what the workers gained.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command line program")]

mod summary;
mod text;
mod totals;
mod unusual;

use std::{
    error::Error,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use procession::{Pool, RemoteError, TaskError, delayed, worker};
use procession_examples::{content::Content, walk::Files};
use serde::{Deserialize, Serialize};

use crate::{
    summary::{failures, times},
    text::Count,
    totals::totals,
    unusual::most_unusual,
};

const USAGE: &str = "\
Examines every file under a folder in worker processes.

usage: census [--jobs N] FOLDER

  --jobs N    as many workers (default: one for each CPU)
  --help      these words";

/// The result of examining one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    len_bytes: u64,
    content: Content,
}

/// Reads a file and classifies it. Returns an error only if the system does. A damaged file is a report like others.
#[worker]
fn examine(path: &Path) -> Result<Report, RemoteError> {
    let bytes = fs::read(path)?;
    Ok(Report { len_bytes: bytes.len() as u64, content: Content::of(&bytes) })
}

/// One row of the census.
#[derive(Debug)]
enum Row {
    Examined(Report),
    Unreadable(String),
    /// The parser panicked, or its process crashed.
    Failed(TaskError),
}

impl Row {
    fn new(result: Result<Result<Report, RemoteError>, TaskError>) -> Self {
        match result {
            Ok(Ok(report)) => Self::Examined(report),
            Ok(Err(error)) => Self::Unreadable(error.to_string()),
            Err(error) => Self::Failed(error),
        }
    }
}

/// The arguments of the program.
#[derive(Debug, PartialEq)]
struct Options {
    folder: PathBuf,
    jobs: usize,
}

/// Parses the arguments. Returns `None` if they ask for help.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Options>, String> {
    let (mut folder, mut jobs) = (None, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(None),
            Some("--jobs") => {
                let number = arguments.next().ok_or("--jobs needs a number")?;
                let number: Option<NonZero<usize>> = number.to_str().and_then(|n| n.parse().ok());
                jobs = Some(number.ok_or("--jobs needs a number from 1")?);
            }
            Some(option) if option.starts_with('-') => return Err(format!("there is no option {option}")),
            _ if folder.is_some() => return Err("one folder at a time".to_owned()),
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    let folder = folder.ok_or("which folder?")?;
    let jobs = jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
    Ok(Some(Options { folder, jobs }))
}

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("census: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match census(&options) {
        Ok(text) => {
            // A reader that has seen enough, such as `head`, is not a failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("census: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Examines all files twice and prints the results.
fn census(options: &Options) -> Result<String, Box<dyn Error>> {
    let Options { folder, jobs } = options;
    let files = Files::under(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (mut paths, mut rows) = (Vec::new(), Vec::new());
    for file in files {
        match file {
            Ok(path) => paths.push(path),
            Err((path, error)) => rows.push((path, Row::Unreadable(error.to_string()))),
        }
    }
    warm(&paths);

    let start = Instant::now();
    let found = in_workers(&paths, *jobs)?;
    let in_workers = start.elapsed();

    let (alone, differing) = plainly(&paths, &found);

    let compared = found.len();
    rows.extend(paths.into_iter().zip(found));
    let (paths, rows): (Vec<PathBuf>, Vec<Row>) = rows.into_iter().unzip();
    let name = |index: usize| {
        let path: &PathBuf = &paths[index];
        path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
    };
    let mut text = totals(&rows);
    text += &most_unusual(&rows, name);
    text += &failures(&rows, name);
    text += &times(compared, *jobs, in_workers, alone);
    if differing > 0 {
        text += &format!("{} files changed between the two.\n", Count(differing));
    }
    Ok(text)
}

/// Reads every file once, so that both measurements find all files in the page cache.
fn warm(paths: &[PathBuf]) {
    for path in paths {
        // A file that cannot be read is reported by the examination.
        let _ = fs::read(path);
    }
}

/// Examines the files in `jobs` worker processes, including the start and the end of the pool.
fn in_workers(paths: &[PathBuf], jobs: usize) -> procession::Result<Vec<Row>> {
    let pool = Pool::builder().jobs(jobs).name("census").build()?;
    let mut rows: Vec<Option<Row>> = Vec::new();
    rows.resize_with(paths.len(), || None);
    for (index, result) in pool.imap_unordered(paths.iter().map(|path| delayed!(examine(path)))) {
        rows[index] = Some(Row::new(result));
    }
    pool.join()?;
    Ok(rows.into_iter().map(|row| row.expect("every task has one result")).collect())
}

/// Examines the files again in this process, one after the other. Returns the time, and the number of files with another result.
///
/// Files at which a worker failed are left out, because they would end this process.
fn plainly(paths: &[PathBuf], found: &[Row]) -> (Duration, u64) {
    let start = Instant::now();
    let mut differing = 0;
    for (path, row) in paths.iter().zip(found) {
        let same = match row {
            Row::Failed(_) => true,
            Row::Unreadable(_) => examine(path).is_err(),
            Row::Examined(report) => examine(path).is_ok_and(|again| again == *report),
        };
        differing += u64::from(!same);
    }
    (start.elapsed(), differing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood() {
        let parse = |words: &[&str]| parse(words.iter().map(OsString::from));
        assert_eq!(parse(&["--jobs", "3", "/usr"]), Ok(Some(Options { folder: "/usr".into(), jobs: 3 })));
        assert_eq!(parse(&["/usr", "--help"]), Ok(None));
        for wrong in [&[][..], &["--jobs"], &["--jobs", "0", "/usr"], &["--fast", "/usr"], &["/usr", "/bin"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
