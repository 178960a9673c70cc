//! The lines in which a call reports its progress, and the bar that it draws.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::pty::{Winsize, openpty};
use procession::{Pool, StartMethod, delayed, parallel, report_progress, worker};

use super::{double, strike_if};
use crate::{
    end::End,
    event::{take_time, until, within},
};

/// In a process that plays a scene: its name.
const SCENE: &str = "PROCESSION_TESTS_SCENE";

/// The program whose output the tests below read. Under Fork a second thread is refused, and a test has two.
#[test]
fn scene() {
    let Ok(name) = std::env::var(SCENE) else { return };
    let pool = Pool::builder().jobs(2).start_method(StartMethod::Spawn).build().unwrap();
    let verbose = |n: u32, tasks: u64| {
        let results = parallel!(pool = &pool, verbose = n, batch = 5; double(n) for n in 0..tasks).unwrap();
        assert_eq!(results.len() as u64, tasks);
    };
    match &*name {
        "now and then" => verbose(1, 100),
        "each batch" => verbose(10, 40),
        "each task" => verbose(50, 12),
        "nothing" => verbose(0, 100),
        "by default" => {
            pool.map((0..12).map(|n| delayed!(double(n)))).unwrap();
        }
        "a generator" => {
            parallel!(pool = &pool, verbose = 50; double(n) for n in 0..9 if n % 3 == 0).unwrap();
        }
        "a tuple" => {
            parallel!(pool = &pool, verbose = 10; double(1), double(2)).unwrap();
        }
        "a failure" => {
            parallel!(pool = &pool, verbose = 1; strike_if(n, 0, End::Panic) for n in 0..40).unwrap_err();
        }
        "failures" => {
            parallel!(pool = &pool, verbose = 1, on_error = collect; strike_if(n, 3, End::Exit) for n in 0..40)
                .unwrap();
        }
        "steps" => {
            parallel!(pool = &pool, verbose = 50; step_by_step() for _ in 0..2).unwrap();
        }
        name => draw_bar(name, &pool),
    }
}

/// Plays a scene in which a call draws a bar.
fn draw_bar(name: &str, pool: &Pool) {
    match name {
        "a bar" => {
            parallel!(pool = pool, progress = "doubling"; double(n) for n in 0..500).unwrap();
        }
        "a bar of steps" => {
            parallel!(pool = pool, progress = true; step_by_step() for _ in 0..2).unwrap();
        }
        "a bar that fails" => {
            parallel!(pool = pool, progress = "striking"; strike_if(n, 70, End::Panic) for n in 0..500)
                .unwrap_err();
        }
        "a bar with failures" => {
            let outcomes = parallel!(pool = pool, progress = "striking", on_error = collect; strike_if(n, 70, End::Panic) for n in 0..500);
            assert_eq!(outcomes.unwrap().len(), 500);
        }
        "a bar among records" => {
            log::set_logger(&PRINTER).unwrap();
            log::set_max_level(log::LevelFilter::Info);
            parallel!(pool = pool, progress = "speaking", batch = 1; speak(n) for n in 0..RECORDS).unwrap();
        }
        "a bar among lines" => {
            parallel!(pool = pool, progress = "tel\x1b[2Jling", verbose = 50, batch = 1; speak(n) for n in 0..RECORDS)
                .unwrap();
        }
        "a bar while a logger waits" => {
            log::set_logger(&WAITER).unwrap();
            log::set_max_level(log::LevelFilter::Info);
            let drawing = std::thread::spawn(|| {
                until("the logger waits", || WAITER.waits.load(Ordering::Relaxed));
                parallel!(pool = &WAITER.pool, progress = "doubling", batch = 1; double(n) for n in 0..100)
                    .unwrap();
                WAITER.drawn.store(true, Ordering::Relaxed);
            });
            parallel!(pool = pool, progress = "speaking", batch = 1; speak(n) for n in 0..3).unwrap();
            drawing.join().unwrap();
        }
        other => panic!("no scene {other}"),
    }
}

/// Waits until another call's bar was drawn to its end, and for tasks meanwhile.
struct Waiter {
    pool: LazyLock<Pool>,
    waits: AtomicBool,
    drawn: AtomicBool,
}

static WAITER: Waiter = Waiter {
    pool: LazyLock::new(|| {
        Pool::builder().jobs(1).start_method(StartMethod::Spawn).build().expect("there is room")
    }),
    waits: AtomicBool::new(false),
    drawn: AtomicBool::new(false),
};

impl log::Log for Waiter {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.waits.store(true, Ordering::Relaxed);
        let is_drawn = || {
            let doubled = self.pool.submit(delayed!(double(4))).join();
            doubled.is_ok_and(|n| n == 8) && self.drawn.load(Ordering::Relaxed)
        };
        let outcome = if within(Duration::from_secs(30), is_drawn) { "after" } else { "without" };
        PRINTER.log(
            &log::Record::builder().args(format_args!("{} {outcome} the other bar", record.args())).build(),
        );
    }

    fn flush(&self) {}
}

const RECORDS: u64 = 60;

#[worker]
fn speak(n: u64) -> u64 {
    log::info!("record {n} from a worker");
    take_time(Duration::from_millis(5));
    n
}

/// Prints as most loggers do.
struct Printer;

static PRINTER: Printer = Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    #[expect(clippy::print_stderr, reason = "that is where loggers print")]
    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}", record.args());
    }

    fn flush(&self) {}
}

/// Reports its progress, and values that are impossible.
#[worker]
fn step_by_step() {
    report_progress(f32::NAN);
    report_progress(0.25);
    take_time(Duration::from_millis(60));
    report_progress(0.5);
    report_progress(2);
    std::thread::spawn(|| report_progress(1.0)).join().expect("it only speaks");
}

fn command(scene: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "settings::verbose::scene", "--nocapture", "--test-threads=1"])
        .env(SCENE, scene)
        // The report is about two workers.
        .env_remove("PROCESSION_IN_PROCESS")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The lines that a scene prints on stderr, without how long it took.
fn lines_of(command: &mut Command) -> Vec<String> {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    words.lines().map(str::to_owned).collect()
}

/// The counts in the lines.
fn counts(lines: &[String]) -> Vec<usize> {
    let count = |line: &String| line.split("Done ").nth(1)?.split_whitespace().next()?.parse().ok();
    lines.iter().filter_map(count).collect()
}

#[test]
fn a_larger_verbose_reports_more() {
    assert_eq!(lines_of(&mut command("nothing")), [""; 0]);
    let lines = lines_of(&mut command("now and then"));
    assert!(lines[0].starts_with("[Parallel(jobs=2)]: 2 workers"), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.starts_with("[Parallel(jobs=2)]: Done 100 out of 100 | elapsed: "), "{lines:?}");
    assert!(last.ends_with("s finished"), "{lines:?}");
    let seldom = counts(&lines);
    assert!(seldom.len() <= 5 && seldom.is_sorted(), "{lines:?}");
    let lines = lines_of(&mut command("each batch"));
    assert_eq!(counts(&lines), [5, 10, 15, 20, 25, 30, 35, 40], "{lines:?}");
    assert!(
        lines[1].contains("Done   5 out of  40 | elapsed: ") && lines[1].contains(" remaining: "),
        "{lines:?}"
    );
    assert_eq!(counts(&lines_of(&mut command("each task"))), (1..=12).collect::<Vec<_>>());
}

#[test]
fn the_environment_sets_verbose_of_calls_that_do_not() {
    assert_eq!(lines_of(&mut command("by default")), [""; 0]);
    let counted = counts(&lines_of(command("by default").env("PROCESSION_VERBOSE", "50")));
    assert_eq!(counted, (1..=12).collect::<Vec<_>>());
    assert_eq!(lines_of(command("nothing").env("PROCESSION_VERBOSE", "50")), [""; 0]);
    let output =
        command("by default").env("PROCESSION_VERBOSE", "loud").stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("PROCESSION_VERBOSE=loud"), "{words}");
}

#[test]
fn verbose_reports_inputs_without_a_length_tuples_failures_and_steps() {
    let lines = lines_of(&mut command("a generator"));
    assert_eq!(counts(&lines), [1, 2, 3], "{lines:?}");
    assert!(lines.last().unwrap().contains("Done   3 out of   3 | "), "{lines:?}");
    assert_eq!(counts(&lines_of(&mut command("a tuple"))).last(), Some(&2));
    let lines = lines_of(&mut command("a failure"));
    assert!(
        lines.last().unwrap().contains("out of  40, 1 failed | ")
            && lines.last().unwrap().ends_with(" stopped"),
        "{lines:?}"
    );
    let lines = lines_of(&mut command("failures"));
    assert!(lines.last().unwrap().contains("Done  40 out of  40, 1 failed | "), "{lines:?}");
    let lines = lines_of(&mut command("steps"));
    for step in ["Task   0 at  25.0 %", "Task   1 at 100.0 %"] {
        assert!(lines.iter().any(|line| line.contains(step)), "{step}: {lines:?}");
    }
}

/// A terminal is so wide.
const COLUMNS: u16 = 120;

/// Returns what a scene draws on a terminal: each state of the line.
pub(super) fn drawn(scene: &str) -> Vec<String> {
    let states = written(scene);
    states.split(['\r', '\n']).map(str::to_owned).filter(|state| !state.trim().is_empty()).collect()
}

/// Returns the lines on a terminal and above it when the scene has ended.
fn screen(scene: &str) -> Vec<String> {
    let text = written(scene);
    let (mut rows, mut row, mut column): (Vec<Vec<char>>, usize, usize) = (vec![Vec::new()], 0, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "{text:?}");
                let (mut number, mut command) = (String::new(), ' ');
                for c in chars.by_ref() {
                    if c.is_ascii_alphabetic() {
                        command = c;
                        break;
                    }
                    number.push(c);
                }
                let n = number.parse().unwrap_or(1);
                match command {
                    'A' => row = row.saturating_sub(n),
                    'B' => row += n,
                    'C' => column += n,
                    'D' => column = column.saturating_sub(n),
                    'K' if number == "2" => rows[row].clear(),
                    'K' => rows[row].truncate(column),
                    'm' | 'h' | 'l' => {}
                    other => panic!("{number}{other} in {text:?}"),
                }
            }
            c => {
                if column == usize::from(COLUMNS) {
                    (row, column) = (row + 1, 0);
                }
                rows.resize_with(rows.len().max(row + 1), Vec::new);
                let cells = &mut rows[row];
                cells.resize(cells.len().max(column + 1), ' ');
                cells[column] = c;
                column += 1;
            }
        }
        rows.resize_with(rows.len().max(row + 1), Vec::new);
    }
    let lines = rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn records_and_lines_do_not_tear_a_bar() {
    let lines = screen("a bar among records");
    let (bar, records) = lines.split_last().unwrap();
    let mut expected: Vec<String> = (0..RECORDS).map(|n| format!("record {n} from a worker")).collect();
    let mut records = records.to_vec();
    expected.sort_unstable();
    records.sort_unstable();
    assert_eq!(records, expected, "each on a line of its own: {lines:#?}");
    assert!(bar.starts_with("speaking ") && bar.contains(" 100% 60/60 [00:00:0"), "{lines:#?}");
    assert!(bar.contains(", 00:00:00 left, "), "one format of time: {lines:#?}");
    let lines = screen("a bar among lines");
    let (bars, lines): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| !line.starts_with("[Parallel(jobs=2)]: "));
    assert!(bars.len() == 1 && bars[0].starts_with("tel\\u{1b}[2Jling "), "{bars:#?} {lines:#?}");
    assert!(lines.len() as u64 > RECORDS && lines.iter().all(|line| !line.contains("ling")), "{lines:#?}");
}

#[test]
fn a_logger_may_wait_for_tasks_and_for_calls_that_draw_bars() {
    let lines = screen("a bar while a logger waits");
    let (bars, records): (Vec<_>, Vec<_>) = lines.iter().partition(|line| !line.starts_with("record "));
    let mut records = records;
    records.sort_unstable();
    let expected: Vec<String> =
        (0..3).map(|n| format!("record {n} from a worker after the other bar")).collect();
    assert_eq!(records, expected.iter().collect::<Vec<_>>(), "{lines:#?}");
    // Each bar ends full and is drawn whole, even the one that ended while a record was printed.
    for (label, count) in [("speaking ", " 3/3 ["), ("doubling ", " 100/100 [")] {
        let of_label: Vec<_> = bars.iter().filter(|line| line.starts_with(label)).collect();
        assert!(of_label.len() == 1 && of_label[0].contains(count), "{label}: {lines:#?}");
    }
}

fn written(scene: &str) -> String {
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let slave: OwnedFd = terminal.slave;
    let mut command = command(scene);
    let mut child = command.stderr(slave).spawn().unwrap();
    drop(command);
    let mut bytes = Vec::new();
    // The end is an error, because no process has the other side any more.
    let _ = File::from(terminal.master).read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_bar_is_drawn_on_a_terminal_and_ends_full() {
    let states = drawn("a bar");
    let last = states.last().unwrap();
    assert!(last.contains("doubling ") && last.contains("500/500") && last.contains("/s"), "{states:#?}");
    assert!(!last.contains("failed"), "{states:#?}");
    let states = drawn("a bar of steps");
    assert!(states.iter().any(|state| state.contains("#0 ") && state.contains('%')), "{states:#?}");
    assert!(states.last().unwrap().contains("2/2"), "{states:#?}");
}

#[test]
fn a_bar_of_a_call_that_fails_stays_where_it_was_and_counts_failures() {
    let states = drawn("a bar that fails");
    let last = states.last().unwrap();
    assert!(last.contains("/500") && last.contains("1 failed stopped"), "{states:#?}");
    let states = drawn("a bar with failures");
    let last = states.last().unwrap();
    assert!(last.contains("500/500") && last.contains("1 failed"), "{states:#?}");
}

#[test]
fn a_bar_is_not_drawn_without_a_terminal() {
    for scene in ["a bar", "a bar of steps", "a bar that fails"] {
        assert_eq!(lines_of(&mut command(scene)), [""; 0], "{scene}");
    }
}
