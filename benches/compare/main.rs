//! Measures procession beside other pools, of Rust and of Python, and beside what the machine allows, in one run.
//!
//! Each measurement is a process of its own, which this program starts: itself again, or Python with `peers.py`. A round runs each of
//! them once, so that what drifts hits all alike; after some rounds it prints one table of medians and ratios, and writes it with
//! date, machine and commit to `benches/record/`. A peer that is not here is named in the table.

mod channels;
mod draw;
mod futex;
mod machine;
mod ours;
mod process_pool;
mod real;
mod rows;
mod run;
mod table;
mod threads;
mod timing;
mod work;

use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{run::Runs, timing::Size};

const HELP: &str = "\
compare [real] [--rounds N] [--test] [WORD]...
  real         instead: real work on procession's workers, beside plain threads, rayon and Python's pools
  draw RECORD  instead: prints the picture of a record of real work
  --rounds N   how often each measurement is run (5 if not said); the table shows medians
  --test       everything once, as small as can be, with the results checked: for CI; writes no record
  WORD         only the rows in whose text or names one of the words occurs; writes no record";

/// The options of the command line.
struct Options {
    rounds: usize,
    test: bool,
    words: Vec<String>,
}

impl Options {
    fn is_wanted(&self, mentions: impl Fn(&str) -> bool) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| mentions(word))
    }
}

fn main() -> ExitCode {
    procession_benches::act_as_bare_child();
    procspawn::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["measure", name, ref size @ ..] => measure(name, &Size { test: size.contains(&"--test") }),
        ["futex", manner] => futex::answer(manner),
        ["channel", kind, server] => channels::answer(kind, server),
        ["--help"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        ["draw", record] => {
            let record = std::fs::read_to_string(record).expect("the record can be read");
            print!("{}", draw::svg(&record));
            ExitCode::SUCCESS
        }
        ["real", ref args @ ..] => run(args, real),
        _ => run(&words, compare),
    }
}

/// Runs a comparison with the options that the arguments are.
fn run(args: &[&str], compare: fn(&Options) -> Result<ExitCode, String>) -> ExitCode {
    options(args).and_then(|options| compare(&options)).unwrap_or_else(|words| {
        println!("{words}");
        ExitCode::FAILURE
    })
}

fn options(args: &[&str]) -> Result<Options, String> {
    let mut options = Options { rounds: 5, test: false, words: Vec::new() };
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        match arg {
            "--test" => (options.test, options.rounds) = (true, 1),
            "--rounds" => {
                let n = args.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                options.rounds = n.ok_or("--rounds wants a number from 1")?;
            }
            word if !word.starts_with('-') => options.words.push(word.to_owned()),
            _ => return Err(HELP.to_owned()),
        }
    }
    Ok(options)
}

/// Runs one measurement in this process and prints what it found as one line of JSON.
fn measure(name: &str, size: &Size) -> ExitCode {
    let Some((_, measurement)) = rows::MEASUREMENTS.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no measurement `{name}`");
        return ExitCode::FAILURE;
    };
    // Who interrupts the comparison does not wait for what it was at.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux has it");
    let line = match measurement(size) {
        Ok(figures) => figures.into_iter().map(|(name, figure)| (name.to_owned(), figure.into())).collect(),
        Err(why) => serde_json::Map::from_iter([(run::MISSING.to_owned(), why.into())]),
    };
    println!("{}", serde_json::Value::Object(line));
    ExitCode::SUCCESS
}

fn compare(options: &Options) -> Result<ExitCode, String> {
    let wanted = |row: &rows::Row| options.is_wanted(|word| row.mentions(word));
    let rows: Vec<rows::Row> = rows::all().into_iter().filter(wanted).collect();
    let load_before = table::load();
    let runs = Runs::of(&rows, options.rounds, &Size { test: options.test });
    if options.test {
        return Ok(runs.verdict());
    }
    let table = table::markdown(&rows, &runs);
    println!("{table}");
    if options.words.is_empty() {
        let title = "procession beside others, each measurement in a process of its own";
        let heading = table::heading(title, "", options.rounds, &load_before);
        table::record("compare.md", &format!("{heading}\n{table}"))?;
    }
    Ok(runs.verdict())
}

fn real(options: &Options) -> Result<ExitCode, String> {
    let load_before = table::load();
    let inputs = work::Inputs::new(Size { test: options.test }).map_err(|error| error.to_string())?;
    let mut table = real::HEAD.to_owned();
    print!("{table}");
    for row in work::ROWS.iter().filter(|row| options.is_wanted(|word| row.mentions(word))) {
        let lines = real::measure(row, &inputs, options.rounds, options.test)?;
        print!("{lines}");
        table += &lines;
    }
    if options.words.is_empty() && !options.test {
        let title = "real work beside threads and other pools";
        let heading = table::heading(title, "real ", options.rounds, &load_before);
        table::record("real-work.md", &format!("{heading}\n{}\n{table}", real::ABOUT))?;
        table::record("real-work.svg", &draw::svg(&table))?;
    }
    Ok(ExitCode::SUCCESS)
}
