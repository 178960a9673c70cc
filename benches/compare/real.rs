//! Real work on two workers, beside two plain threads, rayon, and Python's pools: who needs how much more than the function itself.
//!
//! For each row, all sides take turns in one process, and with Python's, which is one further process. The yardstick of a pool is half of
//! what its own function takes without a pool, corrected by what this machine's second core gave two plain threads in the same round.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    rc::Rc,
    time::Duration,
};

use procession::{Pool, delayed};
use procession_benches::{cpu_of, own_switches, pid, switches_of};
use rayon::ThreadPoolBuilder;
use serde_json::Value;

use crate::{
    run,
    table::digits,
    timing::median,
    work::{Inputs, Row, Run},
};

/// Less than this says that two threads did not have two cores.
const LEAST_GAIN: f64 = 1.8;
/// What two plain threads take at a time, in seconds.
const THREADS_TAKE: f64 = 100e-6;

/// The columns of the record. `draw.rs` reads them.
pub(crate) const HEAD: &str = "\
| work | by | time per task | time over two threads | CPU time over theirs | host CPU per task | workers' CPU per task | switches per task |
|---|---|---:|---:|---:|---:|---:|---:|
";

/// What the record says of its columns.
pub(crate) const ABOUT: &str = "\
All sides of a row take turns, each with two workers or threads. Figures are medians, with the least and the greatest in brackets. *Time over
two threads* is beside two plain threads in the same round. For Python's pools it is beside the same Python function without a pool, divided by
what two plain threads gained in that round. The CPU time is that of the host and the workers together, beside that of the two threads, or of
Python without a pool. Computing in Python takes as long as in Rust, in a loop of Python.
";

/// The sides, in the order in which they take turns.
pub(crate) const ONE: &str = "one thread";
const TWO: &str = "two threads";
const PYTHON: &str = "Python, no pool";
pub(crate) const POOLS: [&str; 4] = ["procession", "rayon", "multiprocessing", "joblib"];

/// What one run took, for each task.
#[derive(Clone, Copy)]
struct Sample {
    seconds: f64,
    host: f64,
    workers: f64,
    switches: f64,
}

impl Sample {
    fn cpu(&self) -> f64 {
        self.host + self.workers
    }
}

/// One side: its processes, how it runs all tasks, and what was measured.
struct Side<'r> {
    name: &'static str,
    host: u32,
    workers: Vec<u32>,
    tasks: usize,
    run: Box<dyn FnMut() -> Duration + 'r>,
    samples: Vec<Sample>,
}

impl Side<'_> {
    fn measure(&mut self) {
        let usage = || {
            let workers: Duration = self.workers.iter().map(|&pid| cpu_of(pid)).sum();
            let switches: u64 = self.workers.iter().map(|&pid| switches_of(pid)).sum();
            let is_here = self.host == std::process::id();
            let of_host = if is_here { own_switches() } else { switches_of(self.host) };
            (cpu_of(self.host), workers, of_host + switches)
        };
        let (host, workers, switches) = usage();
        let took = (self.run)();
        let after = usage();
        let each = |whole: f64| whole / self.tasks as f64;
        self.samples.push(Sample {
            seconds: each(took.as_secs_f64()),
            host: each((after.0 - host).as_secs_f64()),
            workers: each((after.1 - workers).as_secs_f64()),
            switches: each((after.2 - switches) as f64),
        });
    }
}

/// Measures a row and returns its lines. If two threads did not have two cores, that is said, and it is measured again.
pub(crate) fn measure(row: &Row, inputs: &Inputs, rounds: usize, is_test: bool) -> Result<String, String> {
    let (lines, gain) = once(row, inputs, rounds, is_test)?;
    if gain >= LEAST_GAIN || is_test {
        return Ok(lines);
    }
    let (lines, again) = once(row, inputs, rounds, is_test)?;
    let gains = format!("{} and then {} ×", digits(gain), digits(again));
    Ok(format!("{lines}| | measured twice: two threads gained {gains} | | | | | | |\n"))
}

/// The lines of a row, and how many times as fast as one thread two were.
fn once(row: &Row, inputs: &Inputs, rounds: usize, is_test: bool) -> Result<(String, f64), String> {
    let work = (row.work)(inputs);
    let (took, check) = work.alone();
    let length = took.as_secs_f64() / work.tasks() as f64;
    let rayon = ThreadPoolBuilder::new().num_threads(2).build().map_err(|error| error.to_string())?;
    let pool = Pool::new(2).map_err(|error| error.to_string())?;
    let workers = pool.broadcast(delayed!(pid())).map_err(|error| error.to_string())?;
    let some = ((THREADS_TAKE / length) as usize).max(1);

    let host = std::process::id();
    let here = |name, workers, run: Box<dyn Fn() -> Run>| {
        let run = move || {
            let (took, found) = run();
            assert_eq!(found, check, "{name}: every result is right");
            took
        };
        Side { name, host, workers, tasks: work.tasks(), run: Box::new(run), samples: Vec::new() }
    };
    let mut sides = vec![
        here(ONE, Vec::new(), Box::new(|| work.alone())),
        here(TWO, Vec::new(), Box::new(|| work.threads(some))),
        here(POOLS[0], workers, Box::new(|| work.ours(&pool))),
        here(POOLS[1], Vec::new(), Box::new(|| work.rayon(&rayon))),
    ];
    let mut notes = Vec::new();
    match row.no_python {
        Some(why) => notes.push(why.to_owned()),
        None => {
            let (theirs, missing) = python::sides(row.name, inputs, work.tasks(), is_test)?;
            sides.extend(theirs);
            notes.extend(missing);
        }
    }

    // What is new is not measured.
    for side in sides.iter_mut().filter(|_| !is_test) {
        let _ = (side.run)();
    }
    for _ in 0..rounds {
        sides.iter_mut().for_each(Side::measure);
    }
    Ok(lines(row, work.tasks(), &sides, &notes))
}

fn lines(row: &Row, tasks: usize, sides: &[Side<'_>], notes: &[String]) -> (String, f64) {
    let samples = |name| &sides.iter().find(|side| side.name == name).expect("it takes part").samples;
    let seconds = |name| samples(name).iter().map(|sample| sample.seconds);
    let gains: Vec<f64> = seconds(ONE).zip(seconds(TWO)).map(|(one, two)| one / two).collect();
    let mut what = format!("**{} × {tasks}**", row.what);
    let mut lines = String::new();
    for side in sides {
        let over = |of: fn(&Sample) -> f64, yardsticks: Vec<f64>| {
            let over = side.samples.iter().zip(yardsticks);
            spread(over.map(|(sample, yardstick)| (of(sample) / yardstick - 1.0) * 100.0), " %", signed)
        };
        let is_python = [POOLS[2], POOLS[3]].contains(&side.name);
        let (time_over, cpu_over) = match side.name {
            ONE | PYTHON => (String::new(), String::new()),
            TWO => (format!("{} as fast as one", spread(gains.iter().copied(), " ×", digits)), String::new()),
            _ => {
                let yardstick = if is_python { PYTHON } else { TWO };
                let gained = |gain: &f64| if is_python { *gain } else { 1.0 };
                let times = seconds(yardstick).zip(&gains).map(|(seconds, gain)| seconds / gained(gain));
                let cpus = samples(yardstick).iter().map(Sample::cpu);
                (over(|sample| sample.seconds, times.collect()), over(Sample::cpu, cpus.collect()))
            }
        };
        let time = |of: fn(&Sample) -> f64| {
            let (scale, unit) = unit(median(side.samples.iter().map(of).collect()));
            spread(side.samples.iter().map(|sample| of(sample) / scale), unit, digits)
        };
        let _ = writeln!(
            lines,
            "| {} | {} | {} | {time_over} | {cpu_over} | {} | {} | {} |",
            std::mem::take(&mut what),
            side.name,
            time(|sample| sample.seconds),
            time(|sample| sample.host),
            if side.workers.is_empty() { String::new() } else { time(|sample| sample.workers) },
            spread(side.samples.iter().map(|sample| sample.switches), "", digits),
        );
    }
    for note in notes {
        let _ = writeln!(lines, "| | Python: {note} | | | | | | |");
    }
    (lines, median(gains))
}

/// The unit of a time, in seconds.
fn unit(seconds: f64) -> (f64, &'static str) {
    match seconds {
        1e-3.. => (1e-3, " ms"),
        _ => (1e-6, " µs"),
    }
}

/// The median and the range.
fn spread(values: impl Iterator<Item = f64>, unit: &str, show: fn(f64) -> String) -> String {
    let values: Vec<f64> = values.collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{}{unit} ({} – {})", show(median(values)), show(least), show(most))
}

fn signed(percent: f64) -> String {
    format!("{percent:+.1}")
}

/// The sides of Python, all in one process and its workers: `peers.py real`.
mod python {
    use super::*;

    /// The process, asked for one run after the other.
    struct Peer {
        child: Child,
        input: ChildStdin,
        output: BufReader<ChildStdout>,
    }

    impl Peer {
        fn ask(&mut self, word: &str) -> io::Result<Value> {
            writeln!(self.input, "{word}")?;
            self.answer()
        }

        fn answer(&mut self) -> io::Result<Value> {
            let mut line = String::new();
            self.output.read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        }
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            let _ = self.ask("end");
            let _ = self.child.wait();
        }
    }

    /// The sides, and what is missing. Python gets a part of the tasks, because it takes longer.
    pub(super) fn sides(
        name: &str,
        inputs: &Inputs,
        tasks: usize,
        is_test: bool,
    ) -> Result<(Vec<Side<'static>>, Option<String>), String> {
        let tasks = (tasks / 4).max(tasks.min(64));
        let mut command = run::python_command();
        command.args(["real", name]).arg(inputs.folder.path()).arg(tasks.to_string());
        if is_test {
            command.arg("--test");
        }
        let mut child = match command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return Ok((Vec::new(), Some(format!("not here: {error}")))),
        };
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let host = child.id();
        let mut peer = Peer { child, input, output: BufReader::new(output) };
        let began = peer.answer().map_err(|error| format!("{name} in Python: {error}"))?;
        let peer = Rc::new(RefCell::new(peer));
        let side = |name: &'static str| {
            let workers = began[name].as_array()?.iter().filter_map(|pid| u32::try_from(pid.as_u64()?).ok());
            let peer = Rc::clone(&peer);
            let run = move || {
                let took = peer.borrow_mut().ask(name).ok().and_then(|answer| answer.as_f64());
                Duration::from_secs_f64(took.expect("Python's peers answer"))
            };
            Some(Side {
                name,
                host,
                workers: workers.collect(),
                tasks,
                run: Box::new(run),
                samples: Vec::new(),
            })
        };
        let missing = began[run::MISSING].as_str().map(str::to_owned);
        Ok(([PYTHON, POOLS[2], POOLS[3]].into_iter().filter_map(side).collect(), missing))
    }
}
