//! `PROCESSION_TRACE=run.json`: a timeline of every task on every worker, in Chrome's trace format.
//!
//! All pools of a process write to one file: an array of events, a row of events for each worker. It is made under another name and put
//! in its place before anything is in it, so nothing that was there is written over: what is not a trace of ours, or a link, stays, and
//! the program says so and goes on without a timeline. From then on the file is a whole array after each block of events, whenever a pool
//! is idle or has ended, and so after the program has been killed. Of several programs that write to one file, the last that began has it.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::{
    escape::{Lines, is_control},
    id::WorkerId,
    setting::brief,
    sys::{env::setting, fd::say, generation::generation, process::monotonic_nanos, signal::grow_file},
};

/// The variable.
const NAME: &str = "PROCESSION_TRACE";
/// So much is written at a time.
const BLOCK_BYTES: usize = 64 << 10;
/// How each of our files begins, and no other.
const BEGINNING: &str =
    "[\n{\"name\":\"procession_trace\",\"ph\":\"M\",\"pid\":1,\"tid\":0,\"args\":{\"name\":\"procession\"}}";
/// What stands at the end of a file that is whole.
const END: &str = "\n]\n";
/// The number of temporary names to try.
const MOST_NAMES: u32 = 100;

/// One pool's part of the timeline.
#[derive(Debug)]
pub(crate) struct Timeline {
    file: &'static Mutex<Output>,
    /// Stands where the format has a process.
    pool: u32,
    /// For each worker, until when the times of its tasks are known.
    known: HashMap<WorkerId, u64>,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// `None`: it could not be written to the end.
    file: Option<File>,
    /// Not yet written.
    text: String,
    /// Where the next goes: over the closing bracket.
    end_bytes: u64,
    /// What all times count from.
    start: u64,
}

impl Output {
    fn flush(&mut self) {
        let Some(file) = &mut self.file else { return };
        let end = self.end_bytes;
        let write = || {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(self.text.as_bytes())?;
            file.write_all(END.as_bytes())
        };
        // A full disk costs the timeline, not the program.
        if let Err(error) = grow_file(write) {
            complain(&self.path, "the end of the timeline is missing", &error);
            self.file = None;
        }
        self.end_bytes += self.text.len() as u64;
        self.text.clear();
    }

    fn event(&mut self, write: impl FnOnce(&mut String)) {
        self.text.push_str(",\n");
        write(&mut self.text);
        if self.text.len() >= BLOCK_BYTES {
            self.flush();
        }
    }

    /// Microseconds since the start, as the format wants them.
    fn micros(&self, nanos: u64) -> Micros {
        Micros(nanos.saturating_sub(self.start))
    }
}

/// The file that the environment names, and the process that writes it.
static TARGET: OnceLock<Option<(u32, Mutex<Output>)>> = OnceLock::new();

/// A timeline is written by this process.
pub(crate) fn is_on() -> bool {
    output().is_some()
}

/// The file that the environment names, opened once, by the outermost process. A copy of that process has no part in it.
fn output() -> Option<&'static Mutex<Output>> {
    let target = TARGET.get_or_init(|| {
        let path = setting(NAME).filter(|path| !path.is_empty() && !crate::context::is_worker());
        Some((generation(), Mutex::new(Output::create(path?.into())?)))
    });
    target.as_ref().filter(|(process, _)| *process == generation()).map(|(_, output)| output)
}

impl Output {
    /// Says so if it cannot be.
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

/// On stderr, for whoever has set the variable looks there, and a program need not have a logger.
fn complain(path: &Path, what: &str, error: &io::Error) {
    say(&format!("procession: {NAME}={}: {what}: {}\n", brief(path.display()), Lines(error)));
}

/// Makes a timeline without events, under another name, and puts it in its place.
fn create(path: &Path) -> io::Result<File> {
    let before = check(path)?;
    let pid = std::process::id();
    for n in 0..MOST_NAMES {
        let aside = path.with_file_name(format!(".procession-trace-{pid}-{n}"));
        // It is made anew, and not through a link.
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

/// Puts a file in its place. If nothing was there, nothing that has come since is replaced unseen.
fn put(aside: &Path, path: &Path, is_free: bool) -> io::Result<()> {
    if is_free {
        // A second name is given in one step, and only if nothing has it.
        match fs::hard_link(aside, path) {
            Ok(()) => return fs::remove_file(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                check(path)?;
            }
            // There are file systems that know one name of each file.
            Err(_) => {}
        }
    }
    fs::rename(aside, path)
}

/// Nothing is lost if a timeline takes this place: there is nothing, an empty file, or a timeline of ours, which is returned.
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
        "it is not a timeline of procession's, and is kept; name another file, or remove it",
    ))
}

impl Timeline {
    /// A pool's part, if a timeline is asked for. The file is the outermost process's.
    pub(crate) fn open(name: Option<&str>) -> Option<Self> {
        static POOLS: AtomicU32 = AtomicU32::new(1);
        let file = output()?;
        let pool = POOLS.fetch_add(1, Ordering::Relaxed);
        let timeline = Self { file, pool, known: HashMap::new() };
        let name = name.map_or_else(|| format!("pool {pool}"), |name| format!("pool {pool}: {name}"));
        timeline.lock().event(|text| {
            let _ = write!(
                text,
                r#"{{"name":"process_name","ph":"M","pid":{pool},"tid":0,"args":{{"name":{}}}}}"#,
                Quoted(&name)
            );
        });
        Some(timeline)
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's process has been launched.
    pub(crate) fn started(&self, worker: WorkerId, pid: u32) {
        let (pool, row) = (self.pool, row(worker));
        let name = format!("worker {} (pid {pid})", worker.0);
        self.lock().event(|text| {
            let _ = write!(
                text,
                r#"{{"name":"thread_name","ph":"M","pid":{pool},"tid":{row},"args":{{"name":{}}}}}"#,
                Quoted(&name)
            );
        });
        self.instant(worker, "start", &[("process", &pid.to_string())]);
    }

    /// Something happened now to this worker.
    pub(crate) fn instant(&self, worker: WorkerId, name: &str, args: &[(&str, &str)]) {
        let (pool, row, now) = (self.pool, row(worker), monotonic_nanos());
        let mut output = self.lock();
        let at = output.micros(now);
        output.event(|text| {
            let _ = write!(
                text,
                r#"{{"name":{},"ph":"i","s":"t","ts":{at},"pid":{pool},"tid":{row},"args":{{"#,
                Quoted(name)
            );
            for (n, (name, value)) in args.iter().enumerate() {
                let comma = if n > 0 { "," } else { "" };
                let _ = write!(text, "{comma}{}:{}", Quoted(name), Quoted(value));
            }
            text.push_str("}}");
        });
    }

    /// Has the file be whole.
    pub(crate) fn flush(&self) {
        let mut output = self.lock();
        if !output.text.is_empty() {
            output.flush();
        }
    }

    /// The worker has begun with a request at this time.
    pub(crate) fn begun(&mut self, worker: WorkerId, nanos: u64) {
        self.known.insert(worker, nanos);
    }

    /// The worker's next task took so long.
    pub(crate) fn task(&mut self, worker: WorkerId, function: &str, number: u64, nanos: u64, failed: bool) {
        // What a worker says of the time may be anything, and is only shown.
        let from =
            self.known.get(&worker).copied().unwrap_or_else(|| monotonic_nanos().saturating_sub(nanos));
        self.known.insert(worker, from.saturating_add(nanos));
        let (pool, row) = (self.pool, row(worker));
        let mut output = self.lock();
        let (at, took) = (output.micros(from), Micros(nanos));
        output.event(|text| {
            let _ = write!(
                text,
                r#"{{"name":{},"ph":"X","ts":{at},"dur":{took},"pid":{pool},"tid":{row},"args":{{"index":{number}"#,
                Quoted(function)
            );
            text.push_str(if failed { r#","failed":true}}"# } else { "}}" });
        });
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The row of a worker; 0 is the pool's own.
fn row(worker: WorkerId) -> u32 {
    worker.0.saturating_add(1)
}

/// Nanoseconds, written as microseconds.
#[derive(Clone, Copy)]
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Words as JSON has them.
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
