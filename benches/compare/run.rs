//! Runs the measurements, each in a process of its own, in rounds, and keeps what they found.

use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::{
    rows::{ONCE, Row},
    timing::{Size, median},
};

/// The only name in the answer of a measurement that cannot be done here; with it comes the reason.
pub(crate) const MISSING: &str = "missing";
/// The prefix of the names of Python's peers.
const PYTHON: &str = "python.";
/// A measurement that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The state of one figure.
pub(crate) enum Known {
    Found { median: f64, least: f64, most: f64 },
    Missing(String),
}

/// The end of one run of a measurement.
enum Ending {
    Figures(Vec<(String, f64)>),
    Missing(String),
    Failed(String),
}

/// The results of all runs.
#[derive(Default)]
pub(crate) struct Runs {
    figures: BTreeMap<String, Vec<f64>>,
    missing: BTreeMap<String, String>,
    failed: BTreeMap<String, String>,
    passed: usize,
}

impl Runs {
    /// Runs the measurements that the rows need, this many times in turn.
    pub(crate) fn of(rows: &[Row], rounds: usize, size: &Size) -> Self {
        let mut measurements: Vec<&str> = Vec::new();
        for name in rows.iter().flat_map(Row::measurements) {
            if !measurements.contains(&name) {
                measurements.push(name);
            }
        }
        let mut runs = Self::default();
        for round in 1..=rounds {
            for (n, name) in measurements.iter().enumerate() {
                if (round > 1 && ONCE.contains(name)) || runs.missing.contains_key(*name) {
                    continue;
                }
                eprint!("round {round} of {rounds}, {:>2} of {}: {name:<24}", n + 1, measurements.len());
                let start = Instant::now();
                let ending = run(name, size);
                let words = match &ending {
                    Ending::Figures(_) => String::new(),
                    Ending::Missing(why) => format!("  not here: {why}"),
                    Ending::Failed(why) => format!("  FAILED: {why}"),
                };
                eprintln!("{:>6.1} s{words}", start.elapsed().as_secs_f64());
                runs.keep(name, ending);
            }
        }
        runs
    }

    fn keep(&mut self, name: &str, ending: Ending) {
        match ending {
            Ending::Figures(figures) => {
                self.passed += 1;
                for (figure, value) in figures {
                    self.figures.entry(format!("{name}/{figure}")).or_default().push(value);
                }
            }
            Ending::Missing(why) => drop(self.missing.insert(name.to_owned(), why)),
            Ending::Failed(why) => drop(self.failed.insert(name.to_owned(), why)),
        }
    }

    /// Returns what is known of `measurement/figure`.
    pub(crate) fn known(&self, figure: &str) -> Known {
        if let Some(found) = self.figures.get(figure) {
            let least = found.iter().copied().fold(f64::INFINITY, f64::min);
            let most = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            return Known::Found { median: median(found.clone()), least, most };
        }
        let measurement = figure.split('/').next().unwrap_or(figure);
        if let Some(why) = self.missing.get(measurement) {
            return Known::Missing(format!("not here: {why}"));
        }
        match self.failed.get(measurement) {
            Some(why) => Known::Missing(format!("failed: {why}")),
            None => Known::Missing("not here: the measurement left it out".to_owned()),
        }
    }

    /// Says what was missing and what failed; only the latter is a failure.
    pub(crate) fn verdict(&self) -> ExitCode {
        for (name, why) in &self.missing {
            println!("not here: {name}: {why}");
        }
        for (name, why) in &self.failed {
            println!("failed: {name}: {why}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.missing.len());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The interpreter of the virtual environment that `venv.sh` makes, or the machine's own.
fn python() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    // The executable is target/PROFILE/compare; the environment is beside the profile's folder.
    let target = here.ancestors().nth(2).unwrap_or(Path::new(""));
    let python = target.join("compare-venv/bin/python3");
    if python.exists() { python } else { PathBuf::from("python3") }
}

/// The script of Python's peers.
pub(crate) fn python_command() -> Command {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn run(name: &str, size: &Size) -> Ending {
    let mut command = if let Some(peer) = name.strip_prefix(PYTHON) {
        let mut command = python_command();
        command.arg(peer);
        command
    } else {
        let mut command = Command::new("/proc/self/exe");
        command.args(["measure", name]);
        command
    };
    if size.test {
        command.arg("--test");
    }
    for (name, _) in std::env::vars_os() {
        // Settings for procession would change what is measured.
        if name.to_string_lossy().starts_with("PROCESSION_") {
            command.env_remove(name);
        }
    }
    command.env("RUST_BACKTRACE", "0");
    // A group of its own, so that all of it can be killed.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ending::Missing(format!("{}: {error}", command.get_program().display())),
    };
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (ended, ending) = channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let output = match ending.recv_timeout(TIMEOUT) {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Ending::Failed(error.to_string()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            // It has not been reaped, because the thread would have reported that.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            return Ending::Failed(format!("not done in {} s", TIMEOUT.as_secs()));
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    match answer {
        Some(Value::Object(answer)) if output.status.success() => match answer.get(MISSING) {
            Some(why) => Ending::Missing(why.as_str().unwrap_or_default().to_owned()),
            None => Ending::Figures(
                answer.into_iter().filter_map(|(name, figure)| Some((name, figure.as_f64()?))).collect(),
            ),
        },
        _ => {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty() && !line.starts_with("note: "))
                .unwrap_or_default();
            Ending::Failed(format!("{}: {last}", output.status))
        }
    }
}
