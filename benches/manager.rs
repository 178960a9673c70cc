//! Operations of a manager, over rings and over sockets, beside those of `multiprocessing.Manager` and calls of a pool in the same run.
//!
//! `cargo bench -p procession-benches --bench manager`. Without `python3` its column is left out.
#![expect(clippy::print_stdout, reason = "it reports what it measures")]

use std::{
    hint::black_box,
    process::Command,
    time::{Duration, Instant},
};

use procession::{Manager, Pool, delayed, worker};
use procession_benches::median;

/// The operations of one measurement.
const ROUNDS: u32 = 100;
/// The measurements. Their median is reported, and the best one, which other programs have disturbed least.
const SAMPLES: usize = 200;

/// Prints the time of each operation in microseconds.
const PYTHON: &str = r#"
import statistics, time
from multiprocessing import Manager

def measure(operation):
    times = []
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(100):
            operation()
        times.append((time.perf_counter() - start) / 100)
    print(statistics.median(times) * 1e6, min(times) * 1e6)

if __name__ == "__main__":
    manager = Manager()
    counts, queue, lock = manager.dict({"key": 7}), manager.Queue(), manager.Lock()
    measure(lambda: counts.get("key"))
    measure(lambda: counts.__setitem__("key", 7))
    measure(lambda: (queue.put(1), queue.get()))
    measure(lambda: (lock.acquire(), lock.release()))
"#;

#[worker]
fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

/// The median and the best time of one operation, in microseconds.
type Times = (f64, f64);

/// Measures one operation.
fn measure(mut operation: impl FnMut() -> procession::Result<()>) -> procession::Result<Times> {
    let mut sample = || {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            operation()?;
        }
        Ok(start.elapsed() / ROUNDS)
    };
    let samples = (0..SAMPLES).map(|_| sample()).collect::<procession::Result<Vec<_>>>()?;
    let best = samples.iter().min().copied().unwrap_or_default();
    Ok((in_micros(median(samples)), in_micros(best)))
}

fn in_micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

const NAMES: [&str; 6] = [
    "dict get",
    "dict insert",
    "queue put and get",
    "mutex lock and unlock",
    "dict update",
    "call of a pool, for comparison",
];

fn ours() -> procession::Result<Vec<Times>> {
    let manager = Manager::start()?;
    let counts = manager.dict::<String, u64>()?;
    let (queue, mutex) = (manager.queue(1)?, manager.mutex(0_u64)?);
    counts.insert("key".to_owned(), 7)?;
    let pool = Pool::new(1)?;
    pool.broadcast(delayed!(add(1, 2)))?;
    Ok(vec![
        measure(|| counts.get("key").map(|value| _ = black_box(value)))?,
        measure(|| counts.insert("key".to_owned(), 7).map(|value| _ = black_box(value)))?,
        measure(|| queue.put(1_u64).and_then(|()| queue.get().map(drop)))?,
        measure(|| mutex.lock().map(drop))?,
        measure(|| counts.update("key", delayed!(add(_, 1))).map(drop))?,
        measure(|| pool.submit(delayed!(add(1, 2))).join().map(drop).map_err(Into::into))?,
    ])
}

/// Runs a program that prints the times of each operation on a line.
fn read_times(command: &mut Command) -> Vec<Times> {
    let output = command.output();
    let words = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let times = |line: &str| {
        let (median, best) = line.split_once(' ')?;
        Some((median.parse().ok()?, best.parse().ok()?))
    };
    words.lines().filter_map(times).collect()
}

fn main() -> procession::Result<()> {
    // The transport is chosen when a connection is made.
    if std::env::args().any(|argument| argument == "--sockets") {
        for (median, best) in ours()? {
            println!("{median} {best}");
        }
        return Ok(());
    }
    let rings = ours()?;
    let program = std::env::current_exe().expect("the path of this program");
    let sockets = read_times(Command::new(program).arg("--sockets").env("PROCESSION_TRANSPORT", "socket"));
    let python = read_times(Command::new("python3").args(["-c", PYTHON]));
    println!("Microseconds: the median, and the best of {SAMPLES} samples.\n");
    println!("| operation | rings | sockets | multiprocessing.Manager | times as fast |");
    println!("|---|---|---|---|---|");
    let shown = |times: Option<&Times>| {
        times.map_or("–".to_owned(), |(median, best)| format!("{median:.2} ({best:.2})"))
    };
    for (at, (name, ours)) in NAMES.iter().zip(rings).enumerate() {
        let (sockets, theirs) = (sockets.get(at), python.get(at));
        let ratio = theirs.map_or("–".to_owned(), |(median, best)| {
            format!("{:.0} ({:.0})", median / ours.0, best / ours.1)
        });
        let (sockets, theirs) = (shown(sockets), shown(theirs));
        println!("| {name} | {} | {sockets} | {theirs} | {ratio} |", shown(Some(&ours)));
    }
    Ok(())
}
