//! What a pool adds to real work: CPU-bound tasks of 1 us to 1 ms beside two plain threads that run the same functions.
//!
//! `cargo bench -p procession-benches --bench real` measures; with `-- --test` it runs each once, small, as a test. A word after `--` picks
//! the measurements whose name has it. Both sides take turns. A row has the median and the range of its rounds. On a machine that does
//! something else, the CPU time and the sleeps say more than the time.
#![expect(clippy::print_stdout, reason = "it prints tables")]

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use procession::{Pool, Result, delayed};
use procession_benches::{cpu_of, is_test, is_wanted, median, own_cpu, pid, rounds_of, sleeps, spin};

/// The number of rounds in which both sides take turns, and the part of the tasks that is run.
struct Size {
    rounds: usize,
    part: usize,
    calls: usize,
}

const FULL: Size = Size { rounds: 7, part: 1, calls: 2_000 };

const SMALL: Size = Size { rounds: 1, part: 100, calls: 5 };

/// The approximate duration of a task in nanoseconds, and the number of tasks.
const ROWS: [(f64, usize); 4] =
    [(900.0, 100_000), (9_300.0, 20_000), (93_000.0, 4_000), (1_000_000.0, 1_000)];

/// One measurement: its name and how it is done.
type Measurement = (&'static str, fn(&Size) -> Result<()>);

const ALL: &[Measurement] = &[
    ("map on 2 workers against two threads", of_two),
    ("map on 200 workers against two threads", of_many),
    ("imap: first item", first_item),
    ("imap: all items", all_items),
    ("submit().join()", hot),
    ("submit().join() beside a map", beside_map),
];

fn main() -> Result<()> {
    let size = if is_test() { &SMALL } else { &FULL };
    for (name, measure) in ALL.iter().filter(|(name, _)| is_wanted(name)) {
        println!("{name}");
        measure(size)?;
    }
    Ok(())
}

/// Two threads run the tasks. Each takes about 100 us of them at a time.
fn threads(rounds: u64, tasks: usize, nanos: f64) -> Duration {
    let some = ((100_000.0 / nanos) as usize).max(1);
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    let run = || {
        let mut results = Vec::new();
        loop {
            let first = next.fetch_add(some, Ordering::Relaxed);
            if first >= tasks {
                return results;
            }
            results.extend((first..tasks.min(first + some)).map(|_| spin(black_box(rounds))));
        }
    };
    let all = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        run().len() + other.join().expect("it does not panic").len()
    });
    assert_eq!(all, tasks);
    start.elapsed()
}

/// Median, least and greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn percent(values: Vec<f64>) -> String {
    let (middle, least, most) = spread(values);
    format!("{:+6.1} % ({:+.1} to {:+.1})", middle * 100.0, least * 100.0, most * 100.0)
}

fn against_threads(size: &Size, workers: usize) -> Result<()> {
    println!(
        "  {:>18}   {:<29} {:<29} {:<24} sleeps of the host per task",
        "", "time over threads", "CPU time over threads", "host CPU per task, us"
    );
    let pool = Pool::new(workers)?;
    let pids: Vec<u32> = pool.broadcast(delayed!(pid()))?;
    for (nanos, tasks) in ROWS {
        let tasks = tasks / size.part;
        let rounds = rounds_of(nanos);
        let map = || pool.map((0..tasks).map(|_| delayed!(spin(rounds))));
        map()?;
        let (mut times, mut cpus, mut hosts, mut slept) = (vec![], vec![], vec![], vec![]);
        for _ in 0..size.rounds {
            let cpu = own_cpu();
            let bare = threads(rounds, tasks, nanos);
            let bare_cpu = own_cpu() - cpu;

            let of_workers = || pids.iter().map(|&pid| cpu_of(pid)).sum::<Duration>();
            let (theirs, cpu, before) = (of_workers(), own_cpu(), sleeps());
            let start = Instant::now();
            assert_eq!(map()?.len(), tasks);
            let ours = start.elapsed();
            let host = own_cpu() - cpu;
            slept.push((sleeps() - before) as f64 / tasks as f64);
            let all = host + of_workers() - theirs;

            times.push(ours.as_secs_f64() / bare.as_secs_f64() - 1.0);
            cpus.push(all.as_secs_f64() / bare_cpu.as_secs_f64() - 1.0);
            hosts.push(host.as_secs_f64() * 1e6 / tasks as f64);
        }
        let (host, least, most) = spread(hosts);
        let (slept, least_slept, most_slept) = spread(slept);
        println!(
            "  {:>6.1} us x {tasks:>7}   {:<29} {:<29} {:<24} {slept:.4} ({least_slept:.4} to {most_slept:.4})",
            nanos / 1e3,
            percent(times),
            percent(cpus),
            format!("{host:.2} ({least:.2} to {most:.2})"),
        );
    }
    Ok(())
}

fn of_two(size: &Size) -> Result<()> {
    against_threads(size, 2)
}

fn of_many(size: &Size) -> Result<()> {
    against_threads(size, 200)
}

/// Prints quantiles.
fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("  {what:<42} median {:>9.1?}, p90 {:>9.1?}, p99 {:>9.1?}", at(0.5), at(0.9), at(0.99));
}

fn first_item(size: &Size) -> Result<()> {
    let pool = Pool::new(2)?;
    for (nanos, tasks) in [(25.0, 10_000), (9_300.0, 1_000), (93_000.0, 100)] {
        let rounds = rounds_of(nanos);
        let read = AtomicU64::new(0);
        let mut most = 0;
        let mut times = Vec::new();
        for _ in 0..(size.calls / 10).max(2) {
            read.store(0, Ordering::Relaxed);
            let start = Instant::now();
            let input = (0..tasks).inspect(|_| _ = read.fetch_add(1, Ordering::Relaxed));
            let mut results = pool.imap(input.map(|_| delayed!(spin(rounds))));
            results.next().expect("there is one")?;
            times.push(start.elapsed());
            most = most.max(read.load(Ordering::Relaxed));
            assert_eq!(results.count(), tasks - 1);
        }
        print_times(&format!("of {:.1} us, {most} inputs read at most", nanos / 1e3), times);
    }
    Ok(())
}

fn all_items(size: &Size) -> Result<()> {
    let pool = Pool::new(2)?;
    for (nanos, tasks) in [(25.0, 1_000_000), (9_300.0, 20_000), (93_000.0, 4_000)] {
        let (tasks, rounds) = (tasks / size.part, rounds_of(nanos));
        let mut times = Vec::new();
        let (mut most, mut host, mut slept) = (0, vec![], vec![]);
        for _ in 0..size.rounds {
            let read = AtomicUsize::new(0);
            let (cpu, before, start) = (own_cpu(), sleeps(), Instant::now());
            let input = (0..tasks).inspect(|_| _ = read.fetch_add(1, Ordering::Relaxed));
            for (taken, result) in pool.imap(input.map(|_| delayed!(spin(rounds)))).enumerate() {
                result?;
                most = most.max(read.load(Ordering::Relaxed) - taken);
            }
            times.push(start.elapsed());
            host.push((own_cpu() - cpu).as_secs_f64() * 1e6 / tasks as f64);
            slept.push((sleeps() - before) as f64 / tasks as f64);
        }
        println!(
            "  of {:.1} us: {:.2?}, {most} read ahead at most, host {:.2} us per task, {:.4} sleeps per task",
            nanos / 1e3,
            median(times),
            spread(host).0,
            spread(slept).0
        );
    }
    Ok(())
}

fn hot(size: &Size) -> Result<()> {
    let pool = Pool::new(2)?;
    for nanos in [25.0, 93_000.0] {
        let rounds = rounds_of(nanos);
        let mut times = Vec::new();
        for _ in 0..size.calls {
            let start = Instant::now();
            pool.submit(delayed!(spin(rounds))).join()?;
            times.push(start.elapsed());
        }
        print_times(&format!("of {:.1} us", nanos / 1e3), times);
    }
    Ok(())
}

/// Another thread maps tasks of 93 us all the time.
fn beside_map(size: &Size) -> Result<()> {
    let pool = Pool::new(2)?;
    let rounds = rounds_of(93_000.0);
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while ended.load(Ordering::Relaxed) == 0 {
                let results = pool.map((0..4_000 / size.part).map(|_| delayed!(spin(rounds))));
                assert!(results.is_ok());
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        let mut times = Vec::new();
        for _ in 0..(size.calls / 10).max(2) {
            std::thread::sleep(Duration::from_micros(1_700));
            let start = Instant::now();
            assert!(pool.submit(delayed!(spin(1))).join().is_ok());
            times.push(start.elapsed());
        }
        ended.store(1, Ordering::Relaxed);
        print_times("of 25 ns", times);
    });
    Ok(())
}
