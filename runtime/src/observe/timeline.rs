//! Writes the timeline for `PROCESSION_TRACE=run.json`: every task on every worker, in Chrome's trace format.
//!
//! All pools of a process write to one file: an array of events with one row for each worker. The file is created under another
//! name and then moved to its place, so an existing file is never overwritten. If the place holds a link or anything that is not a
//! timeline of ours, it stays, and the program reports that and runs without a timeline. The file is a complete array after each
//! block of events, whenever a pool is idle or has ended, and therefore also after the program was killed. If several programs
//! write to one file, the last to start has it.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::{
    error::Exit,
    escape::{Lines, is_control},
    id::WorkerId,
    setting::brief,
    sync::ignore_poison,
    sys::{
        env::setting, exit::write_stderr, fd::grow_file, generation::generation, process::monotonic_nanos,
    },
};

/// The variable.
const NAME: &str = "PROCESSION_TRACE";
/// The number of bytes that are written at a time.
const BLOCK_BYTES: usize = 64 << 10;
/// The beginning of each of our files, and of no other.
const BEGINNING: &str =
    "[\n{\"name\":\"procession_trace\",\"ph\":\"M\",\"pid\":1,\"tid\":0,\"args\":{\"name\":\"procession\"}}";
/// The end of a complete file.
const END: &str = "\n]\n";
/// The number of temporary names to try.
const MOST_NAMES: u32 = 100;

/// One pool's part of the timeline.
#[derive(Debug)]
pub(crate) struct Timeline {
    file: &'static Mutex<TraceFile>,
    /// Takes the place of a process in the format.
    pool: u32,
    /// For each worker, the time until which its tasks are known.
    known: HashMap<WorkerId, u64>,
}

#[derive(Debug)]
struct TraceFile {
    path: PathBuf,
    /// `None` if the file could not be written to the end.
    file: Option<File>,
    /// Not written yet.
    text: String,
    /// The position of the next text, over the closing bracket.
    end_bytes: u64,
    /// The zero of all times.
    start: u64,
}

impl TraceFile {
    fn flush(&mut self) {
        let Some(file) = &mut self.file else { return };
        let end = self.end_bytes;
        let write = || {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(self.text.as_bytes())?;
            file.write_all(END.as_bytes())
        };
        // A full disk ends the timeline, not the program.
        if let Err(error) = grow_file(write) {
            complain(&self.path, "the end of the timeline is missing", &error);
            self.file = None;
        }
        self.end_bytes += self.text.len() as u64;
        self.text.clear();
    }

    fn event(&mut self, event: fmt::Arguments<'_>) {
        let _ = write!(self.text, ",\n{event}");
        if self.text.len() >= BLOCK_BYTES {
            self.flush();
        }
    }

    /// Converts a time to microseconds since the start, as the format requires.
    fn micros(&self, nanos: u64) -> Micros {
        Micros(nanos.saturating_sub(self.start))
    }
}

/// The file named by the environment, and the process that writes it.
static TARGET: OnceLock<Option<(u32, Mutex<TraceFile>)>> = OnceLock::new();

/// Returns whether this process writes a timeline.
pub(crate) fn is_on() -> bool {
    output().is_some()
}

/// Returns the file named by the environment. It is opened once, by the outermost process. A copy of that process does not use it.
fn output() -> Option<&'static Mutex<TraceFile>> {
    let target = TARGET.get_or_init(|| {
        let path = setting(NAME).filter(|path| !path.is_empty() && !crate::context::is_worker());
        Some((generation(), Mutex::new(TraceFile::create(path?.into())?)))
    });
    target.as_ref().filter(|(process, _)| *process == generation()).map(|(_, output)| output)
}

impl TraceFile {
    /// Creates the file. Prints an error if that fails.
    fn create(path: PathBuf) -> Option<Self> {
        match create(&path) {
            Ok(file) => Some(Self {
                path,
                file: Some(file),
                text: String::new(),
                end_bytes: BEGINNING.len() as u64,
                start: monotonic_nanos(),
            }),
            Err(error) => {
                complain(&path, "no timeline is written", &error);
                None
            }
        }
    }
}

/// Prints a problem to stderr. The user who set the variable looks there, and the program may have no logger.
fn complain(path: &Path, what: &str, error: &io::Error) {
    write_stderr(&format!("procession: {NAME}={}: {what}: {}\n", brief(path.display()), Lines(error)));
}

/// Creates a timeline without events under another name and moves it to its place.
fn create(path: &Path) -> io::Result<File> {
    let before = check(path)?;
    let pid = std::process::id();
    for n in 0..MOST_NAMES {
        let aside = path.with_file_name(format!(".procession-trace-{pid}-{n}"));
        // It is created as a new file, and never through a link.
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        };
        let fill = || {
            file.write_all(BEGINNING.as_bytes())?;
            file.write_all(END.as_bytes())?;
            if let Some(before) = &before {
                file.set_permissions(before.permissions())?;
            }
            put(&aside, path, before.is_none())
        };
        return match grow_file(fill) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = fs::remove_file(&aside);
                Err(error)
            }
        };
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Moves a file to its place. If nothing was there before, a file that has appeared since is not replaced.
fn put(aside: &Path, path: &Path, is_free: bool) -> io::Result<()> {
    if is_free {
        // A hard link is created atomically, and only if the name is free.
        match fs::hard_link(aside, path) {
            Ok(()) => return fs::remove_file(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                check(path)?;
            }
            // Some file systems support only one name for each file.
            Err(_) => {}
        }
    }
    fs::rename(aside, path)
}

/// Checks that a timeline may replace what is at this path: nothing, an empty file, or a timeline of ours, which is returned.
///
/// # Errors
///
/// There is something else.
fn check(path: &Path) -> io::Result<Option<Metadata>> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if found.is_symlink() {
        return Err(io::Error::other("it is a link, which is not followed; name the file itself"));
    }
    if !found.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut beginning = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if beginning.is_empty() || beginning == BEGINNING.as_bytes() {
        return Ok(Some(found));
    }
    Err(io::Error::other(
        "it is not a timeline written by procession, so it is not replaced; name another file, or remove it",
    ))
}

/// An entry that a scheduler makes in the timeline of its pool.
#[derive(Debug)]
pub(crate) enum TimelineEntry {
    /// A process was launched.
    Started { worker: WorkerId, pid: u32 },
    /// A process has ended, with this status if it is known.
    Ended { worker: WorkerId, pid: u32, exit: Option<Exit>, is_orderly: bool },
    /// The worker began a request at this time.
    Begun { worker: WorkerId, nanos: u64 },
    /// The worker's next task has ended, after `nanos` nanoseconds.
    Task { worker: WorkerId, function: &'static str, number: u64, nanos: u64, failed: bool },
    /// A task is queued again because its worker has died.
    Retried { worker: WorkerId, function: &'static str, number: u64 },
    /// No task is left.
    Idle,
}

impl Timeline {
    /// Opens a pool's part if a timeline is requested. Only the outermost process writes one.
    pub(crate) fn open(name: Option<&str>) -> Option<Self> {
        static POOLS: AtomicU32 = AtomicU32::new(1);
        let file = output()?;
        let pool = POOLS.fetch_add(1, Ordering::Relaxed);
        let timeline = Self { file, pool, known: HashMap::new() };
        let name = name.map_or_else(|| format!("pool {pool}"), |name| format!("pool {pool}: {name}"));
        timeline.name("process_name", 0, &name);
        Some(timeline)
    }

    /// Names the pool, or one of its rows.
    fn name(&self, what: &str, row: u32, name: &str) {
        let (pool, name) = (self.pool, Quoted(name));
        self.lock().event(format_args!(
            r#"{{"name":"{what}","ph":"M","pid":{pool},"tid":{row},"args":{{"name":{name}}}}}"#
        ));
    }

    fn lock(&self) -> MutexGuard<'_, TraceFile> {
        ignore_poison(self.file.lock())
    }

    /// Writes these entries. Events that happen at a time of the host get the current time.
    pub(crate) fn write(&mut self, entries: impl IntoIterator<Item = TimelineEntry>) {
        for entry in entries {
            match entry {
                TimelineEntry::Started { worker, pid } => self.started(worker, pid),
                TimelineEntry::Ended { worker, pid, exit, is_orderly } => {
                    let how = exit.map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
                    let name = if is_orderly { "end" } else { "crash" };
                    self.instant(worker, name, &[("process", &pid.to_string()), ("how", &how)]);
                }
                TimelineEntry::Begun { worker, nanos } => {
                    self.known.insert(worker, nanos);
                }
                TimelineEntry::Task { worker, function, number, nanos, failed } => {
                    self.task(worker, function, number, nanos, failed);
                }
                TimelineEntry::Retried { worker, function, number } => {
                    let args = [("function", function), ("index", &number.to_string())];
                    self.instant(worker, "retry", &args);
                }
                TimelineEntry::Idle => self.flush(),
            }
        }
    }

    /// Records that a worker's process was launched.
    fn started(&self, worker: WorkerId, pid: u32) {
        self.name("thread_name", row(worker), &format!("worker {worker} (pid {pid})"));
        self.instant(worker, "start", &[("process", &pid.to_string())]);
    }

    /// Records an event of this worker at the current time.
    fn instant(&self, worker: WorkerId, name: &str, args: &[(&str, &str)]) {
        let (pool, row, now) = (self.pool, row(worker), monotonic_nanos());
        let args = args.iter().map(|(name, value)| format!("{}:{}", Quoted(name), Quoted(value)));
        let (name, args) = (Quoted(name), args.collect::<Vec<_>>().join(","));
        let mut output = self.lock();
        let at = output.micros(now);
        output.event(format_args!(
            r#"{{"name":{name},"ph":"i","s":"t","ts":{at},"pid":{pool},"tid":{row},"args":{{{args}}}}}"#
        ));
    }

    /// Completes the file.
    fn flush(&self) {
        let mut output = self.lock();
        if !output.text.is_empty() {
            output.flush();
        }
    }

    /// Records the duration of the worker's next task.
    fn task(&mut self, worker: WorkerId, function: &str, number: u64, nanos: u64, failed: bool) {
        // A worker may report any time, and it is only displayed.
        let from =
            self.known.get(&worker).copied().unwrap_or_else(|| monotonic_nanos().saturating_sub(nanos));
        self.known.insert(worker, from.saturating_add(nanos));
        let (pool, row, name) = (self.pool, row(worker), Quoted(function));
        let failed = if failed { r#","failed":true"# } else { "" };
        let mut output = self.lock();
        let (at, took) = (output.micros(from), Micros(nanos));
        output.event(format_args!(
            r#"{{"name":{name},"ph":"X","ts":{at},"dur":{took},"pid":{pool},"tid":{row},"args":{{"index":{number}{failed}}}}}"#
        ));
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Returns the row of a worker. Row 0 belongs to the pool.
fn row(worker: WorkerId) -> u32 {
    worker.0.saturating_add(1)
}

/// Nanoseconds, displayed as microseconds.
#[derive(Clone, Copy)]
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A string as JSON.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if is_control(c) => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_times_are_written_as_json_has_them() {
        assert_eq!(Quoted("a \"b\" \\ \n").to_string(), r#""a \"b\" \\ \u000a""#);
        assert_eq!(Quoted("\x1b\u{9b}\u{202e}").to_string(), r#""\u001b\u009b\u202e""#);
        assert_eq!(Micros(1_234_567).to_string(), "1234.567");
        assert_eq!(Micros(9).to_string(), "0.009");
    }

    #[test]
    fn a_file_that_came_after_the_look_is_kept() {
        let folder = std::env::temp_dir().join(format!("procession-put-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (aside, path) = (folder.join("aside"), folder.join("path"));
        for (theirs, is_kept) in [("letters", true), (BEGINNING, false)] {
            fs::write(&aside, format!("{BEGINNING}{END}")).unwrap();
            fs::write(&path, theirs).unwrap();
            assert_eq!(put(&aside, &path, true).is_err(), is_kept, "{theirs}");
            assert_eq!(fs::read_to_string(&path).unwrap() == theirs, is_kept, "{theirs}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&aside, BEGINNING).unwrap();
        put(&aside, &path, true).unwrap();
        assert!(path.exists() && !aside.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
