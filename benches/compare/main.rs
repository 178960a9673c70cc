//! Measures procession beside other pools, of Rust and of Python, and beside what the machine allows, in one run.
//!
//! Each measurement is a process of its own, which this program starts: itself again, or Python with `peers.py`. A round runs each of
//! them once, so that what drifts hits all alike; after some rounds it prints one table of medians and ratios, and writes it with
//! date, machine and commit to `benches/record/`. A peer that is not here is named in the table.

mod channels;
mod futex;
mod machine;
mod ours;
mod process_pool;
mod rows;
mod run;
mod table;
mod threads;
mod timing;

use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{run::Runs, timing::Size};

const HELP: &str = "\
compare [--rounds N] [--test] [WORD]
  --rounds N   how often each measurement is run (5 if not said); the table shows medians
  --test       everything once, as small as can be, with the results checked: for CI; writes no record
  WORD         only the rows in whose text, or in whose measurements' names, it occurs; writes no record";

/// The options of the command line.
struct Options {
    rounds: usize,
    test: bool,
    word: Option<String>,
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
        _ => match options(&words) {
            Ok(options) => compare(&options),
            Err(words) => {
                println!("{words}");
                ExitCode::FAILURE
            }
        },
    }
}

fn options(args: &[&str]) -> Result<Options, String> {
    let mut options = Options { rounds: 5, test: false, word: None };
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        match arg {
            "--test" => (options.test, options.rounds) = (true, 1),
            "--rounds" => {
                let n = args.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                options.rounds = n.ok_or("--rounds wants a number from 1")?;
            }
            word if !word.starts_with('-') && options.word.is_none() => options.word = Some(word.to_owned()),
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

fn compare(options: &Options) -> ExitCode {
    let wanted = |row: &rows::Row| options.word.as_ref().is_none_or(|word| row.mentions(word));
    let rows: Vec<rows::Row> = rows::all().into_iter().filter(wanted).collect();
    let load_before = table::load();
    let runs = Runs::of(&rows, options.rounds, &Size { test: options.test });
    if options.test {
        return runs.verdict();
    }
    let table = table::markdown(&rows, &runs);
    println!("{table}");
    if options.word.is_none()
        && let Err(error) = table::record(&table, options.rounds, &load_before)
    {
        println!("not recorded: {error}");
        return ExitCode::FAILURE;
    }
    runs.verdict()
}
