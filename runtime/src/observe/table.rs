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

/// The heads of the columns of the table.
const HEADS: [&str; 14] = [
    "worker",
    "pid",
    "tasks",
    "failed",
    "working",
    "encoding",
    "transport",
    "waiting",
    "start-up",
    "init",
    "restarts",
    "sent",
    "received",
    "peak RSS",
];

/// Returns the cells of the worker's row.
fn row(worker: &WorkerStats, name: String, pid: String) -> [String; HEADS.len()] {
    [
        name,
        pid,
        worker.tasks().to_string(),
        (worker.tasks() - worker.finished()).to_string(),
        ShortDuration(worker.working()).to_string(),
        ShortDuration(worker.encoding).to_string(),
        ShortDuration(worker.transport).to_string(),
        ShortDuration(worker.waiting).to_string(),
        ShortDuration(worker.startup).to_string(),
        ShortDuration(worker.initializing).to_string(),
        worker.restarts.to_string(),
        ByteCount(worker.bytes_sent).to_string(),
        ByteCount(worker.bytes_received).to_string(),
        ByteCount(worker.peak_rss_bytes).to_string(),
    ]
}

/// Writes the rows of the workers and of all together.
fn write_rows(stats: &Stats, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rows = vec![HEADS.map(str::to_owned)];
    // Workers that never started are left out.
    for worker in
        stats.workers().iter().filter(|worker| worker.startup > Duration::ZERO || worker.tasks() > 0)
    {
        let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        rows.push(row(worker, worker.index.to_string(), pid));
    }
    rows.push(row(stats.total(), "all".to_owned(), String::new()));
    let widths: [usize; HEADS.len()] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        writeln!(f, "{}", cells.join("  "))?;
    }
    Ok(())
}
