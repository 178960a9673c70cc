//! Displays statistics as a table.

use std::{fmt, time::Duration};

use super::{
    amount::{ByteCount, ShortDuration},
    stats::{Stats, WorkerStats},
};

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rows(self, f)?;
        if !self.slowest().is_empty() {
            writeln!(f, "the slowest tasks:")?;
        }
        for task in self.slowest() {
            let index = task.task_index.map_or_else(|| "a task".to_owned(), |index| format!("task {index}"));
            let (took, function, worker) = (ShortDuration(task.took), &task.function, task.worker);
            writeln!(f, "{took:>10}  {index} of `{function}` on worker {worker}")?;
        }
        match self.hint() {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The head of a column, and its cell for a worker.
type Column = (&'static str, fn(&WorkerStats) -> String);

/// The columns after the worker's index and pid.
const COLUMNS: [Column; 12] = [
    ("tasks", |worker| worker.tasks().to_string()),
    ("failed", |worker| (worker.tasks() - worker.finished()).to_string()),
    ("working", |worker| ShortDuration(worker.working()).to_string()),
    ("encoding", |worker| ShortDuration(worker.encoding).to_string()),
    ("transport", |worker| ShortDuration(worker.transport).to_string()),
    ("waiting", |worker| ShortDuration(worker.waiting).to_string()),
    ("start-up", |worker| ShortDuration(worker.startup).to_string()),
    ("init", |worker| ShortDuration(worker.initializing).to_string()),
    ("restarts", |worker| worker.restarts.to_string()),
    ("sent", |worker| ByteCount(worker.bytes_sent).to_string()),
    ("received", |worker| ByteCount(worker.bytes_received).to_string()),
    ("peak RSS", |worker| ByteCount(worker.peak_rss_bytes).to_string()),
];

/// Writes the rows of the workers and of all together.
fn write_rows(stats: &Stats, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let row = |name: String, pid: String, worker: &WorkerStats| -> Vec<String> {
        [name, pid].into_iter().chain(COLUMNS.map(|(_, cell)| cell(worker))).collect()
    };
    let heads = ["worker", "pid"].into_iter().chain(COLUMNS.map(|(head, _)| head));
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).collect()];
    // Workers that never started are left out.
    for worker in
        stats.workers().iter().filter(|worker| worker.startup > Duration::ZERO || worker.tasks() > 0)
    {
        let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        rows.push(row(worker.index.to_string(), pid, worker));
    }
    rows.push(row("all".to_owned(), String::new(), stats.total()));
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}
