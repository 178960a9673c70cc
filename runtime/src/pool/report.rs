//! What a call says of itself on stderr while it runs: lines in the manner of joblib's.
//!
//! A call that was not asked to has none, and pays nothing.

use std::{
    fmt,
    io::Write,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    sys::process::setting,
};

/// From this on there is a line for each batch.
const EACH_BATCH: u32 = 10;
/// From this on there is a line for each task.
const EACH_TASK: u32 = 50;

/// How much calls say that were not told: `PROCESSION_VERBOSE`, or nothing. Calls inside workers say nothing.
pub(crate) fn verbose_by_env() -> Result<u32> {
    static VERBOSE: OnceLock<std::result::Result<u32, String>> = OnceLock::new();
    let verbose = VERBOSE.get_or_init(|| {
        let words = setting("PROCESSION_VERBOSE").filter(|words| !words.is_empty());
        let Some(words) = words.filter(|_| !crate::worker::is_worker()) else { return Ok(0) };
        let words = words.to_string_lossy();
        words.trim().parse().map_err(|_| {
            format!("PROCESSION_VERBOSE={words}: not a whole number; give one from 0 (nothing) to 50 (a line for each task)")
        })
    });
    verbose.clone().map_err(Error::config)
}

/// One call's.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Lines,
    /// Tasks that have ended.
    done: usize,
    /// All of them, if that is known.
    total: Option<usize>,
    finished: bool,
}

#[derive(Debug)]
struct Lines {
    verbose: u32,
    jobs: usize,
    /// As the call fixed it.
    batch: Option<usize>,
    start: Instant,
}

impl Report {
    pub(crate) fn new(verbose: u32, jobs: usize, batch: Option<usize>) -> Self {
        let lines = Lines { verbose, jobs, batch, start: Instant::now() };
        let workers = if jobs == 1 { "worker" } else { "workers" };
        lines.print(format_args!("{jobs} {workers}, {}", Batches(batch)));
        Self { lines, done: 0, total: None, finished: false }
    }

    /// So many tasks there are.
    pub(crate) fn expect(&mut self, total: usize) {
        self.total = Some(total);
    }

    /// So many more have ended.
    pub(crate) fn add(&mut self, n: usize) {
        let before = self.done;
        self.done += n;
        if n == 0 || Some(self.done) == self.total {
            return;
        }
        match self.lines.verbose {
            0 => {}
            EACH_TASK.. => (before + 1..=self.done).for_each(|done| self.lines.tell(done, self.total)),
            EACH_BATCH.. => match self.lines.batch {
                Some(batch) => {
                    let batches = before / batch + 1..=self.done / batch;
                    batches.for_each(|batch_no| self.lines.tell(batch_no * batch, self.total));
                }
                None => self.lines.tell(self.done, self.total),
            },
            verbose => {
                if before == 0 || milestone(before, verbose) != milestone(self.done, verbose) {
                    self.lines.tell(self.done, self.total);
                }
            }
        }
    }

    /// All have ended.
    pub(crate) fn finish(mut self) {
        self.finished = true;
        self.lines.tell_end(self.done, self.total, "finished");
    }
}

/// The call ends early: a task has failed, or whoever made it has left it.
impl Drop for Report {
    fn drop(&mut self) {
        if !self.finished {
            self.lines.tell_end(self.done, self.total, "stopped");
        }
    }
}

/// Lines come further and further apart, as joblib's do: there is one whenever this number changes.
fn milestone(done: usize, verbose: u32) -> u64 {
    let apart = 0.5 * f64::from(EACH_BATCH + 1 - verbose).powi(2);
    (done as f64 / apart).sqrt() as u64
}

impl Lines {
    fn tell(&self, done: usize, total: Option<usize>) {
        let elapsed = self.start.elapsed();
        match total {
            None => self.print(format_args!("Done {done:3} tasks      | elapsed: {}", Time(elapsed))),
            Some(total) => {
                let left = total.saturating_sub(done) as f64 / done.max(1) as f64;
                let remaining = Duration::try_from_secs_f64(elapsed.as_secs_f64() * left);
                let remaining = Time(remaining.unwrap_or(Duration::MAX));
                self.print(format_args!(
                    "Done {done:3} out of {total:3} | elapsed: {} remaining: {remaining}",
                    Time(elapsed)
                ));
            }
        }
    }

    fn tell_end(&self, done: usize, total: Option<usize>, how: &str) {
        if self.verbose > 0 {
            let elapsed = Time(self.start.elapsed());
            match total {
                Some(total) => {
                    self.print(format_args!("Done {done:3} out of {total:3} | elapsed: {elapsed} {how}"));
                }
                None => self.print(format_args!("Done {done:3} tasks      | elapsed: {elapsed} {how}")),
            }
        }
    }

    /// One line, in one piece. Where stderr is closed nobody misses it.
    fn print(&self, words: fmt::Arguments<'_>) {
        if self.verbose > 0 {
            let line = format!("[Parallel(jobs={})]: {words}\n", self.jobs);
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// A time as joblib writes it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs_f64();
        if secs > 60.0 { write!(f, "{:5.1}min", secs / 60.0) } else { write!(f, "{secs:6.1}s") }
    }
}

/// How many tasks travel together, in words.
struct Batches(Option<usize>);

impl fmt::Display for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(batch) => write!(f, "batches of {batch}"),
            None => f.write_str("batches by measured time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_not_verbose_speaks_seldom_and_ever_more_seldom() {
        let spoken = |verbose| {
            let mut last = 0;
            (1..=1000)
                .filter(|&done| {
                    milestone(done, verbose) != std::mem::replace(&mut last, milestone(done, verbose))
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(spoken(1), [50, 200, 450, 800]);
        assert!(spoken(5).len() > spoken(1).len());
        assert!(spoken(9).len() > spoken(5).len());
    }

    #[test]
    fn times_are_written_as_joblib_writes_them() {
        for (secs, words) in [(0.04, "   0.0s"), (1.25, "   1.2s"), (59.9, "  59.9s"), (90.0, "  1.5min")] {
            assert_eq!(Time(Duration::from_secs_f64(secs)).to_string(), words);
        }
    }
}
