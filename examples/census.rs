//! Examines every program under a folder, each file in a worker process.
//!
//! ```text
//! cargo run --release --example census -- /usr/bin
//! ```
//!
//! Parsers of binary formats meet hostile files. A damaged file is reported with its error. A file that makes the parser panic or crash is
//! reported as well, and the census continues. Afterwards the same function is called directly on the same files in this process, to show
//! what the workers gained.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command line program")]

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    ffi::OsString,
    fmt::{self, Write as _},
    fs,
    io::{self, Write as _},
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use procession::{Pool, RemoteError, TaskError, delayed, worker};
use procession_examples::{
    content::{Content, Sections},
    statistics::{mean, z_scores},
    walk::Files,
};
use serde::{Deserialize, Serialize};

const USAGE: &str = "\
Examines every file under a folder in worker processes.

usage: census [--jobs N] FOLDER

  --jobs N    as many workers (default: one for each CPU)
  --help      these words";

/// The number of lines in the table of totals. Rarer classes share the last line.
const MOST_CLASSES: usize = 24;
/// The number of files named under each heading.
const MOST_NAMED: usize = 10;
/// A class with fewer files has no typical values.
const FEWEST_TO_COMPARE: usize = 8;
/// A smaller speed-up is not reported.
const LEAST_SPEED_UP: f64 = 1.05;
/// The width of the output in columns.
const WIDTH: usize = 98;

/// The result of examining one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    len_bytes: u64,
    content: Content,
}

/// Reads a file and classifies it. Returns an error only if the system does. A damaged file is a report like others.
#[worker]
fn examine(path: &Path) -> Result<Report, RemoteError> {
    let bytes = fs::read(path)?;
    Ok(Report { len_bytes: bytes.len() as u64, content: Content::of(&bytes) })
}

/// One row of the census.
#[derive(Debug)]
enum Row {
    Examined(Report),
    Unreadable(String),
    /// The parser panicked, or its process crashed.
    Failed(TaskError),
}

impl Row {
    fn new(result: Result<Result<Report, RemoteError>, TaskError>) -> Self {
        match result {
            Ok(Ok(report)) => Self::Examined(report),
            Ok(Err(error)) => Self::Unreadable(error.to_string()),
            Err(error) => Self::Failed(error),
        }
    }
}

/// The class of a file. Files are compared within their class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Class {
    what: String,
    /// The machine, or the interpreter of a script.
    whose: String,
}

impl Class {
    fn of(content: &Content) -> Self {
        let (what, whose) = match content {
            Content::Binary(binary) => {
                (format!("{} {}", binary.format, binary.kind), binary.machine.as_str())
            }
            Content::Script { interpreter } => ("script".to_owned(), interpreter.as_str()),
            Content::Data => ("data".to_owned(), ""),
            Content::Damaged(_) => ("damaged".to_owned(), ""),
        };
        Self { what, whose: whose.to_owned() }
    }
}

/// One line of the table of totals.
#[derive(Debug, Default)]
struct Line {
    files: u64,
    len_bytes: u64,
    sections: Sections,
    entropies: Vec<f64>,
    imports: u64,
}

impl Line {
    fn add(&mut self, report: &Report) {
        self.files += 1;
        self.len_bytes += report.len_bytes;
        if let Content::Binary(binary) = &report.content {
            self.add_sizes(binary.sections);
            self.entropies.extend(binary.entropy);
            self.imports += binary.imports;
        }
    }

    fn add_sizes(&mut self, sections: Sections) {
        let sum = &mut self.sections;
        sum.code = sum.code.saturating_add(sections.code);
        sum.constants = sum.constants.saturating_add(sections.constants);
        sum.variables = sum.variables.saturating_add(sections.variables);
    }

    fn merge(&mut self, other: &Self) {
        self.files += other.files;
        self.len_bytes += other.len_bytes;
        self.add_sizes(other.sections);
        self.entropies.extend(&other.entropies);
        self.imports += other.imports;
    }

    fn cells(&self) -> [String; 7] {
        let size = |len_bytes| if len_bytes == 0 { String::new() } else { Size(len_bytes).to_string() };
        [
            Count(self.files).to_string(),
            size(self.len_bytes),
            size(self.sections.code),
            size(self.sections.constants),
            size(self.sections.variables),
            mean(&self.entropies).map(|bits| format!("{bits:.2}")).unwrap_or_default(),
            if self.imports == 0 { String::new() } else { Count(self.imports).to_string() },
        ]
    }
}

/// Computes the table of totals, with the largest class first.
fn totals(rows: &[Row]) -> String {
    let mut lines: BTreeMap<Class, Line> = BTreeMap::new();
    for row in rows {
        if let Row::Examined(report) = row {
            lines.entry(Class::of(&report.content)).or_default().add(report);
        }
    }
    let mut lines: Vec<(Class, Line)> = lines.into_iter().collect();
    lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.files));

    let mut all = Line::default();
    for (_, line) in &lines {
        all.merge(line);
    }
    if lines.len() > MOST_CLASSES {
        let mut others = Line::default();
        let rest = lines.split_off(MOST_CLASSES - 1);
        let class = Class { what: format!("{} other classes", rest.len()), whose: String::new() };
        for (_, line) in &rest {
            others.merge(line);
        }
        lines.push((class, others));
    }
    lines.push((Class { what: "all".to_owned(), whose: String::new() }, all));

    let mut table = String::new();
    let mut print = |what: &str, whose: &str, cells: [String; 7]| {
        let [files, bytes, code, constants, variables, entropy, imports] = cells;
        let line = format!(
            "{what:<18} {whose:<16}{files:>7}{bytes:>9}{code:>9}{constants:>10}{variables:>10}{entropy:>8}{imports:>10}"
        );
        table.push_str(line.trim_end());
        table.push('\n');
    };
    let heads = ["files", "bytes", "code", "constants", "variables", "entropy", "imports"];
    print("", "", heads.map(str::to_owned));
    for (class, line) in &lines {
        print(&class.what, &class.whose, line.cells());
    }
    table
}

/// A file that differs from the others of its class.
#[derive(Debug)]
struct Unusual {
    index: usize,
    class: Class,
    /// The sum of the distances of its features from the means of the class, in standard deviations.
    score: f64,
    /// Each feature as text, and its distance, the farthest first.
    features: Vec<(String, f64)>,
}

/// Returns all files with code whose class is large enough for a comparison, the most unusual first.
///
/// Four features are compared: the logarithms of size and imports, because a few huge files would otherwise be the only unusual ones, the
/// share of code in the file, and the entropy of the code.
fn unusual(rows: &[Row]) -> Vec<Unusual> {
    let mut classes: HashMap<Class, Vec<(usize, Features)>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let Row::Examined(report) = row else { continue };
        if let Some(features) = features_of(report) {
            classes.entry(Class::of(&report.content)).or_default().push((index, features));
        }
    }
    let mut found = Vec::new();
    for (class, members) in classes {
        if members.len() < FEWEST_TO_COMPARE {
            continue;
        }
        let scores: [Vec<f64>; 4] = std::array::from_fn(|feature| {
            z_scores(&members.iter().map(|(_, features)| features[feature].1).collect::<Vec<_>>())
        });
        for (member, (index, features)) in members.into_iter().enumerate() {
            let mut features: Vec<(String, f64)> = features
                .into_iter()
                .zip(&scores)
                .map(|((words, _), scores)| (words, scores[member]))
                .collect();
            features.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            let score = features.iter().map(|(_, score)| score.abs()).sum();
            found.push(Unusual { index, class: class.clone(), score, features });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    found
}

/// Returns each feature as text and as the number to compare.
type Features = [(String, f64); 4];

/// Returns `None` for a file without code.
fn features_of(report: &Report) -> Option<Features> {
    let Content::Binary(binary) = &report.content else { return None };
    let entropy = binary.entropy?;
    let len_bytes = report.len_bytes as f64;
    let share = binary.sections.code as f64 / len_bytes;
    Some([
        (format!("size {}", Size(report.len_bytes)), len_bytes.ln()),
        (format!("code {:.1}%", 100.0 * share), share),
        (format!("entropy {entropy:.2}"), entropy),
        (format!("imports {}", Count(binary.imports)), (binary.imports as f64).ln_1p()),
    ])
}

impl Unusual {
    /// Returns the features that are far from the mean, or the farthest one.
    fn why(&self) -> String {
        const FAR: f64 = 1.5;

        let far = self.features.iter().take_while(|(_, score)| score.abs() >= FAR).count().max(1);
        let words: Vec<String> = self
            .features
            .iter()
            .take(far)
            .map(|(feature, score)| format!("{feature} ({score:+.1}σ)"))
            .collect();
        words.join(", ")
    }
}

/// Formats a number of bytes with four digits and a unit.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if size < 1023.5 {
                let places = usize::from(size < 9.95 && unit != "B");
                return write!(f, "{size:.places$} {unit}");
            }
            size /= 1024.0;
        }
        write!(f, "{size:.1} TiB")
    }
}

/// Formats a whole number in groups of three digits.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Returns text that is safe to print on one line. Names of files and errors may contain anything.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
}

/// Returns at most `width` columns of a text, without its end.
fn beginning(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Returns at most `width` columns of a path, without its beginning, because the name identifies the file.
fn ending(path: &str, width: usize) -> String {
    let path = printable(path);
    let len = path.chars().count();
    if len <= width {
        return path;
    }
    ['…'].into_iter().chain(path.chars().skip(len - (width - 1))).collect()
}

/// The arguments of the program.
#[derive(Debug, PartialEq)]
struct Options {
    folder: PathBuf,
    jobs: usize,
}

/// Parses the arguments. Returns `None` if they ask for help.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Options>, String> {
    let (mut folder, mut jobs) = (None, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(None),
            Some("--jobs") => {
                let number = arguments.next().ok_or("--jobs needs a number")?;
                let number: Option<NonZero<usize>> = number.to_str().and_then(|n| n.parse().ok());
                jobs = Some(number.ok_or("--jobs needs a number from 1")?);
            }
            Some(option) if option.starts_with('-') => return Err(format!("there is no option {option}")),
            _ if folder.is_some() => return Err("one folder at a time".to_owned()),
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    let folder = folder.ok_or("which folder?")?;
    let jobs = jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
    Ok(Some(Options { folder, jobs }))
}

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("census: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match census(&options) {
        Ok(text) => {
            // A reader that has seen enough, such as `head`, is not a failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("census: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Examines all files twice and prints the results.
fn census(options: &Options) -> Result<String, Box<dyn Error>> {
    let Options { folder, jobs } = options;
    let files = Files::under(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (mut paths, mut rows) = (Vec::new(), Vec::new());
    for file in files {
        match file {
            Ok(path) => paths.push(path),
            Err((path, error)) => rows.push((path, Row::Unreadable(error.to_string()))),
        }
    }
    warm(&paths);

    let start = Instant::now();
    let found = in_workers(&paths, *jobs)?;
    let in_workers = start.elapsed();

    let (alone, differing) = plainly(&paths, &found);

    let compared = found.len();
    rows.extend(paths.into_iter().zip(found));
    let (paths, rows): (Vec<PathBuf>, Vec<Row>) = rows.into_iter().unzip();
    let name = |index: usize| {
        let path: &PathBuf = &paths[index];
        path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
    };
    let mut text = totals(&rows);
    text += &most_unusual(&rows, name);
    text += &failures(&rows, name);
    text += &times(compared, *jobs, in_workers, alone);
    if differing > 0 {
        text += &format!("{} files changed between the two.\n", Count(differing));
    }
    Ok(text)
}

/// Reads every file once, so that both measurements find all files in the page cache.
fn warm(paths: &[PathBuf]) {
    for path in paths {
        // A file that cannot be read is reported by the examination.
        let _ = fs::read(path);
    }
}

/// Examines the files in `jobs` worker processes, including the start and the end of the pool.
fn in_workers(paths: &[PathBuf], jobs: usize) -> procession::Result<Vec<Row>> {
    let pool = Pool::builder().jobs(jobs).name("census").build()?;
    let mut rows: Vec<Option<Row>> = Vec::new();
    rows.resize_with(paths.len(), || None);
    for (index, result) in pool.imap_unordered(paths.iter().map(|path| delayed!(examine(path)))) {
        rows[index] = Some(Row::new(result));
    }
    pool.join()?;
    Ok(rows.into_iter().map(|row| row.expect("every task has one result")).collect())
}

/// Examines the files again in this process, one after the other. Returns the time, and the number of files with another result.
///
/// Files at which a worker failed are left out, because they would end this process.
fn plainly(paths: &[PathBuf], found: &[Row]) -> (Duration, u64) {
    let start = Instant::now();
    let mut differing = 0;
    for (path, row) in paths.iter().zip(found) {
        let same = match row {
            Row::Failed(_) => true,
            Row::Unreadable(_) => examine(path).is_err(),
            Row::Examined(report) => examine(path).is_ok_and(|again| again == *report),
        };
        differing += u64::from(!same);
    }
    (start.elapsed(), differing)
}

/// Prints the files that differ most from others of their class, and how.
fn most_unusual(rows: &[Row], name: impl Fn(usize) -> String) -> String {
    let unusual = unusual(rows);
    let mut text = String::new();
    for file in unusual.iter().take(MOST_NAMED).take_while(|file| file.score > 0.0) {
        let class = format!("{} {}", file.class.what, file.class.whose);
        let path = ending(&name(file.index), WIDTH - 10 - class.chars().count());
        text += &format!("{:>6.1}  {path}  {class}\n", file.score);
        text += &format!("        {}\n", beginning(&file.why(), WIDTH - 8));
    }
    if !text.is_empty() {
        let files = Count(unusual.len() as u64);
        text.insert_str(
            0,
            &format!("\nThe most unusual of {files} files with code, each by the means of its class:\n"),
        );
    }
    text
}

/// Prints the files that could not be examined, by the kind of failure.
fn failures(rows: &[Row], name: impl Fn(usize) -> String) -> String {
    let mut groups: BTreeMap<&str, Vec<(usize, String)>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let (group, why) = match row {
            Row::Examined(Report { content: Content::Damaged(error), .. }) => ("damaged", error.clone()),
            Row::Examined(_) => continue,
            Row::Unreadable(error) => ("could not be read", error.clone()),
            Row::Failed(error) => why_failed(error),
        };
        groups.entry(group).or_default().push((index, why));
    }
    let mut text = String::new();
    for (group, files) in groups {
        text += &format!("\n{} {group}:\n", Count(files.len() as u64));
        for (index, why) in files.iter().take(MOST_NAMED) {
            // The path gets up to half of the line, and the error the rest.
            let path = ending(&name(*index), WIDTH / 2);
            let room = WIDTH - 10 - path.chars().count();
            text += &format!("        {path}: {}\n", beginning(why, room));
        }
        if files.len() > MOST_NAMED {
            text += &format!("        and {} more\n", Count((files.len() - MOST_NAMED) as u64));
        }
    }
    text
}

/// Describes the failure of a task, as a heading and in detail.
fn why_failed(error: &TaskError) -> (&'static str, String) {
    match (error.panic(), error.exit()) {
        (Some(panic), _) => (
            "made the parser panic",
            format!("{} ({}:{})", panic.message().escape_debug(), panic.file(), panic.line()),
        ),
        (None, Some(exit)) if error.is_crash() => ("killed their worker", exit.to_string()),
        (None, _) if error.is_crash() => ("killed their worker", error.to_string()),
        _ => ("failed otherwise", error.to_string()),
    }
}

fn times(files: usize, jobs: usize, in_workers: Duration, alone: Duration) -> String {
    let (workers, alone) = (in_workers.as_secs_f64(), alone.as_secs_f64());
    let (files, plural) = (Count(files as u64), if jobs == 1 { "" } else { "s" });
    format!(
        "\n{files} files: {workers:.2} s in {jobs} worker{plural}, {alone:.2} s in this process alone: {}.\n\
         Both read warm files; the workers' start and end are counted.\n",
        speed_up(jobs, alone / workers)
    )
}

/// Describes how much faster the workers were than one process.
fn speed_up(jobs: usize, ratio: f64) -> String {
    match jobs {
        1 => "no speed-up: there is one worker".to_owned(),
        _ if ratio >= LEAST_SPEED_UP => format!("{ratio:.1}x faster"),
        _ => "no speed-up: the CPUs are busy with other programs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use procession_examples::content::Binary;

    use super::*;

    #[test]
    fn the_speed_up_is_told_as_people_tell_it() {
        assert_eq!(speed_up(2, 1.63), "1.6x faster");
        assert_eq!(speed_up(2, 0.76), "no speed-up: the CPUs are busy with other programs");
        assert_eq!(speed_up(2, 1.04), "no speed-up: the CPUs are busy with other programs");
        assert_eq!(speed_up(1, 1.3), "no speed-up: there is one worker");
    }

    fn row(len_bytes: u64, imports: u64) -> Row {
        let binary = Binary {
            format: "ELF".to_owned(),
            kind: "executable".to_owned(),
            machine: "x86_64".to_owned(),
            sections: Sections { code: len_bytes / 2, ..Sections::default() },
            entropy: Some(6.0),
            imports,
        };
        Row::Examined(Report { len_bytes, content: Content::Binary(binary) })
    }

    #[test]
    fn the_most_unusual_file_says_why() {
        let mut rows: Vec<Row> = (0..9).map(|_| row(1000, 10)).collect();
        assert_eq!(unusual(&rows)[0].score, 0.0);
        rows.insert(4, row(1000, 5000));
        let found = unusual(&rows);
        assert_eq!((found.len(), found[0].index), (10, 4));
        // One among ten lies three deviations from the mean, however far it is.
        assert!((found[0].score - 3.0).abs() < 1e-9, "{}", found[0].score);
        assert_eq!(found[0].why(), "imports 5,000 (+3.0σ)");
    }

    #[test]
    fn a_small_class_has_nothing_unusual() {
        let rows: Vec<Row> = (0..FEWEST_TO_COMPARE as u64 - 1).map(|n| row(1000 + n, n)).collect();
        assert!(unusual(&rows).is_empty());
    }

    #[test]
    fn the_table_keeps_to_its_columns() {
        let mut rows: Vec<Row> = (0..100).map(|n| row(u64::from(u32::MAX) << (n % 8), 123_456)).collect();
        rows.extend((0..40).map(|n| {
            let content = Content::Script { interpreter: format!("interpreter-{n:04}") };
            Row::Examined(Report { len_bytes: 1, content })
        }));
        let table = totals(&rows);
        assert_eq!(table.lines().count(), MOST_CLASSES + 2);
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        assert!(
            table.lines().last().is_some_and(|line| line.starts_with("all") && line.contains(" 140 ")),
            "{table}"
        );
    }

    #[test]
    fn what_is_said_of_files_keeps_to_its_columns() {
        let mut rows: Vec<Row> = (0..20).map(|n| row(1 << n, n * n * n)).collect();
        rows.push(Row::Unreadable("words without end ".repeat(20)));
        let long = |index| format!("{}/{index}", "a folder/".repeat(20));
        let text = most_unusual(&rows, long)
            + &failures(&rows, long)
            + &times(1 << 30, 99, Duration::from_secs(100_000), Duration::from_secs(200_000));
        assert!(text.contains("1 could not be read:\n") && text.contains("of 20 files"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn numbers_are_written_to_be_read() {
        let sizes =
            [0, 9, 1023, 1024, 10_239, 10_240, 1 << 20, (1 << 30) - 1, u64::MAX].map(|n| Size(n).to_string());
        assert_eq!(
            sizes,
            ["0 B", "9 B", "1023 B", "1.0 KiB", "10 KiB", "10 KiB", "1.0 MiB", "1.0 GiB", "16777216.0 TiB"]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(|n| Count(n).to_string()),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn hostile_names_are_printed_in_one_line() {
        assert_eq!(beginning("a\nb\u{1b}[2J", 20), "a\\nb\\u{1b}[2J");
        assert_eq!(beginning("abcdef", 4), "abc…");
        assert_eq!(ending("abcdef", 4), "…def");
        assert_eq!(ending("abcd", 4), "abcd");
    }

    #[test]
    fn arguments_are_understood() {
        let parse = |words: &[&str]| parse(words.iter().map(OsString::from));
        assert_eq!(parse(&["--jobs", "3", "/usr"]), Ok(Some(Options { folder: "/usr".into(), jobs: 3 })));
        assert_eq!(parse(&["/usr", "--help"]), Ok(None));
        for wrong in [&[][..], &["--jobs"], &["--jobs", "0", "/usr"], &["--fast", "/usr"], &["/usr", "/bin"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
