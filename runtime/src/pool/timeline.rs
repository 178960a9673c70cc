//! `PROCESSION_TRACE=run.json`: a timeline of every task on every worker, in Chrome's trace format.
//!
//! All pools of a process write to one file: an array of events, a row of events for each worker. What is in the file is a whole
//! array whenever a pool has ended, and nearly so at any time: the format does without the closing bracket.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt::Write as _,
    fs::File,
    io::{Seek, SeekFrom, Write},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    id::WorkerId,
    sys::process::{monotonic_nanos, setting},
};

/// So much is written at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// One pool's part of the timeline.
#[derive(Debug)]
pub(super) struct Timeline {
    file: &'static Mutex<Output>,
    /// Stands where the format has a process.
    pool: u32,
    /// For each worker, until when the times of its tasks are known.
    known: HashMap<WorkerId, u64>,
}

#[derive(Debug)]
struct Output {
    file: File,
    /// Not yet written.
    text: String,
    /// Where the next goes: over the closing bracket.
    end: u64,
    has_events: bool,
    /// What all times count from.
    start: u64,
}

impl Output {
    fn flush(&mut self) {
        // A full disk costs the timeline, not the program.
        let written = (|| {
            self.file.seek(SeekFrom::Start(self.end))?;
            self.file.write_all(self.text.as_bytes())?;
            self.file.write_all(b"\n]\n")
        })();
        if written.is_ok() {
            self.end += self.text.len() as u64;
        }
        self.text.clear();
    }

    fn event(&mut self, write: impl FnOnce(&mut String)) {
        self.text.push_str(if self.has_events { ",\n" } else { "" });
        self.has_events = true;
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

/// A timeline is written by this process.
pub(super) fn is_on() -> bool {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    *IS_ON.get_or_init(|| !crate::worker::is_worker() && output().is_some())
}

/// The file that the environment names, opened once.
fn output() -> Option<&'static Mutex<Output>> {
    static OUTPUT: OnceLock<Option<Mutex<Output>>> = OnceLock::new();
    let open = |path: OsString| match File::create(&path) {
        Ok(mut file) => {
            let _ = file.write_all(b"[\n");
            Some(Mutex::new(Output {
                file,
                text: String::new(),
                end: 2,
                has_events: false,
                start: monotonic_nanos(),
            }))
        }
        Err(error) => {
            log::warn!(target: "procession", "PROCESSION_TRACE={}: no timeline is written: {error}", path.display());
            None
        }
    };
    OUTPUT.get_or_init(|| setting("PROCESSION_TRACE").filter(|path| !path.is_empty()).and_then(open)).as_ref()
}

impl Timeline {
    /// A pool's part, if a timeline is asked for. The file is the outermost process's.
    pub(super) fn open(name: Option<&str>) -> Option<Self> {
        static POOLS: AtomicU32 = AtomicU32::new(1);
        // A copy of the host knows of the host's file, whose descriptor it does not have.
        if crate::worker::is_worker() || !is_on() {
            return None;
        }
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
    pub(super) fn started(&self, worker: WorkerId, pid: u32) {
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
    pub(super) fn instant(&self, worker: WorkerId, name: &str, args: &[(&str, &str)]) {
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
    pub(super) fn flush(&self) {
        let mut output = self.lock();
        if !output.text.is_empty() {
            output.flush();
        }
    }

    /// The worker has begun with a request at this time.
    pub(super) fn begun(&mut self, worker: WorkerId, nanos: u64) {
        self.known.insert(worker, nanos);
    }

    /// The worker's next task took so long.
    pub(super) fn task(&mut self, worker: WorkerId, function: &str, number: u64, nanos: u64, failed: bool) {
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

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Words as JSON has them.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
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
        assert_eq!(Micros(1_234_567).to_string(), "1234.567");
        assert_eq!(Micros(9).to_string(), "0.009");
    }
}
