//! The table, and its record with date, machine and commit.

use std::{fmt::Write as _, path::Path, process::Command};

use crate::{
    rows::{Asked, Line, Row, Unit},
    run::{self, Known, Runs},
};

const HEAD: &str = "\
| what | who | median | least to most | procession's ÷ this | asked for | reached |
|---|---|---:|---:|---:|---:|---|
";

/// The rows as Markdown.
pub(crate) fn markdown(rows: &[Row], runs: &Runs) -> String {
    let mut table = HEAD.to_owned();
    for row in rows {
        let ours = runs.known(row.ours.figure);
        line(&mut table, row, &row.ours, &ours, None);
        for other in &row.others {
            line(&mut table, row, other, &runs.known(other.figure), Some(&ours));
        }
    }
    table
}

/// One line: of procession's own figure, or of another that procession's is compared with.
fn line(table: &mut String, row: &Row, line: &Line, known: &Known, ours: Option<&Known>) {
    let (what, who) = match ours {
        None => (format!("**{}**", row.what), format!("**{}**", line.who)),
        Some(_) => (String::new(), line.who.to_owned()),
    };
    let (figure, spread) = match known {
        Known::Found { median, least, most } => {
            let spread = if least == most { String::new() } else { span(row.unit, *median, *least, *most) };
            (show(row.unit, *median), spread)
        }
        Known::Missing(why) => (why.replace('|', "/"), String::new()),
    };
    let ratio = match (ours, known, line.asked) {
        (Some(Known::Found { median: ours, .. }), Known::Found { median, .. }, asked)
            if !matches!(asked, Asked::NoRatio) =>
        {
            Some(ours / median)
        }
        _ => None,
    };
    // What is asked of procession's own figure is in its unit, what is asked beside another is a ratio.
    let (judged, unit) = match (ours, known) {
        (None, Known::Found { median, .. }) => (Some(*median), row.unit),
        (None, Known::Missing(_)) => (None, row.unit),
        (Some(_), _) => (ratio, Unit::Times),
    };
    let asked = match line.asked {
        Asked::Nothing | Asked::NoRatio => String::new(),
        Asked::AtLeast(least) => format!("≥ {}", show(unit, least)),
        Asked::AtMost(most) => format!("≤ {}", show(unit, most)),
    };
    let reached = match (line.asked, judged) {
        (Asked::Nothing | Asked::NoRatio, _) => "",
        (_, None) => "not known",
        (Asked::AtLeast(least), Some(found)) if found >= least => "yes",
        (Asked::AtMost(most), Some(found)) if found <= most => "yes",
        _ => "**no**",
    };
    let ratio = ratio.map(|ratio| show(Unit::Times, ratio)).unwrap_or_default();
    let _ = writeln!(table, "| {what} | {who} | {figure} | {spread} | {ratio} | {asked} | {reached} |");
}

/// A figure with the prefix that its size wants.
fn show(unit: Unit, figure: f64) -> String {
    let (scale, name) = scale(unit, figure);
    format!("{} {name}", digits(figure / scale))
}

/// Two figures in the unit that their median is shown in.
fn span(unit: Unit, median: f64, least: f64, most: f64) -> String {
    let (scale, _) = scale(unit, median);
    format!("{} – {}", digits(least / scale), digits(most / scale))
}

fn scale(unit: Unit, figure: f64) -> (f64, &'static str) {
    let size = figure.abs();
    match unit {
        Unit::TasksPerSecond if size >= 1e6 => (1e6, "M tasks/s"),
        Unit::TasksPerSecond => (1e3, "k tasks/s"),
        Unit::BytesPerSecond if size >= 1e9 => (1e9, "GB/s"),
        Unit::BytesPerSecond => (1e6, "MB/s"),
        Unit::Seconds if size >= 0.1e-3 => (1e-3, "ms"),
        Unit::Seconds => (1e-6, "µs"),
        Unit::Bytes if size >= 1_048_576.0 => (1_048_576.0, "MiB"),
        Unit::Bytes => (1024.0, "KiB"),
        Unit::Times => (1.0, "×"),
    }
}

/// Three digits that count, or all of a large number's.
pub(crate) fn digits(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        size if size >= 0.1 => format!("{figure:.3}"),
        _ => format!("{figure:.4}"),
    }
}

/// Writes a file of a record to `benches/record/`.
pub(crate) fn record(name: &str, text: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../record").join(format!("{}-{name}", date()));
    std::fs::write(&path, text).map_err(|error| format!("not recorded: {error}"))?;
    println!("recorded in {}", path.display());
    Ok(())
}

/// Returns the load average of the last minute, because other programs affect every figure.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn date() -> String {
    output("date", &["-u", "+%F"])
}

/// Returns the title of a record, and where and how its figures were taken.
pub(crate) fn heading(title: &str, command: &str, rounds: usize, load_before: &str) -> String {
    let git = |args: &[&str]| output("git", &[&["-C", env!("CARGO_MANIFEST_DIR")], args].concat());
    let changed = if git(&["status", "--porcelain"]).is_empty() { "" } else { ", with changes" };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    // AArch64 has no name for its models here.
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let virtual_machine = if cpus.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo");
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    format!(
        "# {date}: {title}\n\nCommit {commit}{changed}; {model}, {cores} cores, {memory:.0} GiB{virtual_machine}; Linux {kernel}; {rustc}; {python}; \
         load before the run {load_before}. {medians}.\n\n\
         ```sh\nbenches/compare/run.sh {command}--rounds {rounds}\n```\n",
        date = date(),
        medians = if rounds == 1 { "One round".to_owned() } else { format!("Medians of {rounds} rounds") },
        commit = git(&["rev-parse", "--short", "HEAD"]),
        memory = memory / 1_048_576.0,
        // The text after the version names a build.
        kernel = read("/proc/sys/kernel/osrelease").trim().split('-').next().unwrap_or_default(),
        rustc = output("rustc", &["--version"]),
        python = said(run::python_command().arg("versions")),
    )
}

fn output(program: &str, args: &[&str]) -> String {
    said(Command::new(program).args(args))
}

/// Returns the output of a command, or that it is missing.
fn said(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => format!("no {}", command.get_program().display()),
    }
}
