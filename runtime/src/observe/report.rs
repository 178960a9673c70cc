//! The progress that a call reports on stderr: lines like those of joblib, and a bar.
//!
//! A call that reports nothing has no [`Report`] and no cost.

use std::{
    fmt,
    io::Write,
    ops::Range,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::bar::Bar;
use crate::{
    error::{Error, Result},
    setting::variable,
    sys::generation::generation,
    terminal::aside,
};

/// From this verbosity on, there is a line for each batch.
const EACH_BATCH: u32 = 10;
/// From this verbosity on, there is a line for each task.
const EACH_TASK: u32 = 50;

/// Returns the verbosity of calls that do not set it: `PROCESSION_VERBOSE`, or 0. Calls inside workers are silent.
pub(crate) fn verbose_by_env() -> Result<u32> {
    static VERBOSE: OnceLock<std::result::Result<u32, String>> = OnceLock::new();
    let verbose = VERBOSE.get_or_init(|| {
        if crate::context::is_worker() {
            return Ok(0);
        }
        let allowed = "a whole number from 0 (nothing) to 50 and more (a line for each task)";
        let verbose = variable("PROCESSION_VERBOSE", allowed, |words| words.parse().ok());
        verbose.map(Option::unwrap_or_default).map_err(|error| error.to_string())
    });
    verbose.clone().map_err(Error::config)
}

/// Types that can be the value of `progress`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a label of a progress bar",
    label = "this is neither text nor `true` or `false`",
    note = "write `progress = \"scoring\"`, or `progress = true` for a bar without a label"
)]
pub trait Label {
    /// Returns the text before the bar, or `None` for no bar.
    fn label(self) -> Option<String>;
}

impl Label for bool {
    fn label(self) -> Option<String> {
        self.then(String::new)
    }
}

impl Label for &str {
    fn label(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl Label for String {
    fn label(self) -> Option<String> {
        Some(self)
    }
}

impl Label for &String {
    fn label(self) -> Option<String> {
        Some(self.clone())
    }
}

/// The report of one call.
#[derive(Debug)]
pub(crate) struct Report {
    verbose: u32,
    jobs: usize,
    /// The batch size that the call sets.
    batch: Option<usize>,
    start: Instant,
    bar: Option<Bar>,
    /// The number of tasks that have ended.
    done: usize,
    /// The number of those that failed.
    failed: usize,
    /// The number of all tasks, if it is known.
    total: Option<usize>,
    finished: bool,
    /// The process that makes the call. A copy of it has nothing to report.
    generation: u32,
}

impl Report {
    /// Creates the report of a call that wants one, as lines or as a bar with this label.
    pub(crate) fn new(
        verbose: u32,
        label: Option<&str>,
        jobs: usize,
        batch: Option<usize>,
    ) -> Option<Box<Self>> {
        let bar = label.and_then(Bar::new);
        if verbose == 0 && bar.is_none() {
            return None;
        }
        let report = Self {
            verbose,
            jobs,
            batch,
            start: Instant::now(),
            bar,
            done: 0,
            failed: 0,
            total: None,
            finished: false,
            generation: generation(),
        };
        let workers = if jobs == 1 { "worker" } else { "workers" };
        let batches = batch.map_or_else(|| "by measured time".to_owned(), |batch| format!("of {batch}"));
        report.print(format_args!("{jobs} {workers}, batches {batches}"));
        Some(Box::new(report))
    }

    /// Returns whether the progress of running tasks is shown, too.
    pub(crate) fn wants_progress(&self) -> bool {
        self.bar.is_some() || self.verbose >= EACH_TASK
    }

    /// Sets the number of tasks.
    pub(crate) fn expect(&mut self, total: usize) {
        self.total = Some(total);
        if let Some(bar) = &mut self.bar {
            bar.expect(total);
        }
    }

    /// Adds tasks that have ended, `failed` of which have failed.
    pub(crate) fn add(&mut self, ended: &[Range<usize>], failed: usize) {
        let before = self.done;
        self.done += ended.iter().map(ExactSizeIterator::len).sum::<usize>();
        self.failed += failed;
        if let Some(bar) = &mut self.bar {
            bar.set(self.done, self.failed, ended);
        }
        // The last line is the one at the end.
        let to = self.done - usize::from(Some(self.done) == self.total && self.done > before);
        match self.verbose {
            0 => {}
            EACH_TASK.. => (before + 1..=to).for_each(|done| self.print_progress(done)),
            EACH_BATCH.. => match self.batch {
                Some(batch) => {
                    let batches = before / batch + 1..=to / batch;
                    batches.for_each(|number| self.print_progress(number * batch));
                }
                None if to == self.done && to > before => self.print_progress(to),
                None => {}
            },
            verbose => {
                let is_first = before == 0 && to > 0;
                if is_first || milestone(before, verbose) != milestone(to, verbose) {
                    self.print_progress(to);
                }
            }
        }
    }

    /// Shows the progress of running tasks.
    pub(crate) fn progress(&mut self, said: Vec<(usize, f64)>) {
        for &(index, fraction) in &said {
            if self.verbose >= EACH_TASK {
                let elapsed = Time(self.start.elapsed());
                let percent = fraction * 100.0;
                self.print(format_args!("Task {index:3} at {percent:5.1} % | elapsed: {elapsed}"));
            }
        }
        if let Some(bar) = &mut self.bar {
            bar.progress(said);
        }
    }

    /// All tasks have ended.
    pub(crate) fn finish(mut self) {
        self.finished = true;
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        self.print_count(self.done, self.failed, " finished");
    }

    /// Prints how many tasks have ended, and how much time the others need.
    fn print_progress(&self, done: usize) {
        let remaining = self.total.map_or_else(String::new, |total| {
            let left = total.saturating_sub(done) as f64 / done.max(1) as f64;
            let remaining = Duration::try_from_secs_f64(self.start.elapsed().as_secs_f64() * left);
            format!(" remaining: {}", Time(remaining.unwrap_or(Duration::MAX)))
        });
        self.print_count(done, 0, &remaining);
    }

    fn print_count(&self, done: usize, failed: usize, rest: &str) {
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let elapsed = Time(self.start.elapsed());
        let count = match self.total {
            Some(total) => format!("{done:3} out of {total:3}{failed}"),
            None => format!("{done:3} tasks{failed}     "),
        };
        self.print(format_args!("Done {count} | elapsed: {elapsed}{rest}"));
    }

    /// Prints one line in one piece. Errors are ignored, because stderr may be closed.
    fn print(&self, words: fmt::Arguments<'_>) {
        if self.verbose > 0 {
            let line = format!("[Parallel(jobs={})]: {words}\n", self.jobs);
            let _ = aside(|| std::io::stderr().lock().write_all(line.as_bytes()));
        }
    }
}

/// The call ends early, because a task failed or the caller dropped it.
impl Drop for Report {
    fn drop(&mut self) {
        if generation() != self.generation {
            // The bar is on the terminal of the original, and other threads may have had its locks when the copy was made.
            let _ = std::mem::ManuallyDrop::new(self.bar.take());
            return;
        }
        if !self.finished {
            if let Some(bar) = self.bar.take() {
                bar.stop();
            }
            self.print_count(self.done, self.failed, " stopped");
        }
    }
}

/// Returns a number that changes whenever a line is due. Lines become less and less frequent, like those of joblib.
fn milestone(done: usize, verbose: u32) -> u64 {
    let apart = 0.5 * f64::from(EACH_BATCH + 1 - verbose).powi(2);
    (done as f64 / apart).sqrt() as u64
}

/// A duration in joblib's format.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs_f64();
        if secs > 60.0 { write!(f, "{:5.1}min", secs / 60.0) } else { write!(f, "{secs:6.1}s") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_little_verbose_reports_less_and_less_often() {
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
