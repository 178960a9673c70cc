//! The common parts of the measurements: their size, and how a figure is computed.

use std::time::{Duration, Instant};

/// The figures of a measurement by name, or why it cannot be done here.
pub(crate) type Outcome = Result<Vec<(&'static str, f64)>, String>;

/// The size of the measurements.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// The smallest size, to check that they work.
    pub(crate) test: bool,
}

impl Size {
    /// Returns this number of tasks, or a few.
    pub(crate) fn tasks(self, full: u64) -> u64 {
        if self.test { (full / 1000).clamp(20, 2000) } else { full }
    }

    /// Returns this number of samples, or very few.
    pub(crate) fn samples(self, full: usize) -> usize {
        if self.test { 2 } else { full }
    }

    /// Returns this number of bytes, or a hundredth of it.
    pub(crate) fn bytes(self, full: usize) -> usize {
        if self.test { full / 100 } else { full }
    }
}

/// The time for which runs are repeated within one measurement.
const BUDGET: Duration = Duration::from_millis(500);
/// The time for which samples are taken that last seconds and not microseconds.
const LONG_BUDGET: Duration = Duration::from_secs(3);
/// The most of such samples.
pub(crate) const LONG_SAMPLES: usize = 7;
/// The rest before a call that is to find everything asleep.
pub(crate) const REST: Duration = Duration::from_millis(10);

/// The median; of an even number, between the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len().is_multiple_of(2) {
        figures[middle - 1].midpoint(figures[middle])
    } else {
        figures[middle]
    }
}

/// The median of times, in seconds.
pub(crate) fn median_time(times: Vec<Duration>) -> f64 {
    procession_benches::median(times).as_secs_f64()
}

/// Tasks per second: a tenth of them to warm up, then the median of as many runs as the budget allows, but one.
///
/// `run` takes the number of tasks, and returns how long they took.
pub(crate) fn rate(size: &Size, tasks: u64, mut run: impl FnMut(u64) -> Duration) -> f64 {
    run(tasks.div_ceil(10));
    let begun = Instant::now();
    let mut rates = Vec::new();
    while rates.is_empty() || (!size.test && rates.len() < 5 && begun.elapsed() < BUDGET) {
        rates.push(tasks as f64 / run(tasks).as_secs_f64());
    }
    median(rates)
}

/// Seconds that one call takes while calls follow each other.
pub(crate) fn hot(size: &Size, calls: usize, mut call: impl FnMut()) -> f64 {
    let calls = size.samples(calls);
    (0..calls / 10).for_each(|_| call());
    median_time(procession_benches::repeat(calls, || procession_benches::time(&mut call)))
}

/// Seconds that one call takes after a rest.
pub(crate) fn rested(size: &Size, mut call: impl FnMut()) -> f64 {
    call();
    let sample = || {
        std::thread::sleep(REST);
        procession_benches::time(&mut call)
    };
    median_time(procession_benches::repeat(size.samples(100), sample))
}

/// Returns the bytes per second of `run`, which moves this many.
pub(crate) fn throughput(size: &Size, bytes: usize, mut run: impl FnMut()) -> f64 {
    run();
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || (times.len() < size.samples(LONG_SAMPLES) && begun.elapsed() < LONG_BUDGET) {
        times.push(procession_benches::time(&mut run));
    }
    bytes as f64 / median_time(times)
}

/// Returns how many times as fast the second is. The two take turns.
pub(crate) fn gain(size: &Size, mut one: impl FnMut(), mut two: impl FnMut()) -> f64 {
    one();
    two();
    let begun = Instant::now();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    while alone.is_empty() || (alone.len() < size.samples(LONG_SAMPLES) && begun.elapsed() < LONG_BUDGET) {
        alone.push(procession_benches::time(&mut one));
        together.push(procession_benches::time(&mut two));
    }
    median_time(alone) / median_time(together)
}

/// The number of bytes that the large measurements move.
pub(crate) const LARGE_BYTES: usize = 64 << 20;

/// Memory that was touched, as a large program has it; none if this machine cannot spare it.
pub(crate) fn ballast(size: &Size) -> Result<Vec<u8>, String> {
    let bytes = size.bytes(4 << 30);
    let spare = available_bytes();
    if spare < bytes as u64 + (2 << 30) {
        return Err(format!(
            "4 GiB are wanted, with some to spare; {:.1} GiB are free",
            spare as f64 / 1.07e9
        ));
    }
    // Not zeroes, which would come untouched.
    Ok(vec![1; bytes])
}

fn available_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// The no-op of the threads: a call that the compiler does not see through.
#[inline(never)]
pub(crate) fn add_one(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

/// Work for the CPU alone.
pub(crate) fn spin(rounds: u64) -> u64 {
    (0..rounds)
        .fold(1u64, |x, n| std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n)))
}

/// The number of tasks in the CPU-bound measurements, and the rounds of each.
pub(crate) const SPINS: u64 = 64;

/// Rounds of a CPU-bound task.
pub(crate) fn spin_rounds(size: &Size) -> u64 {
    if size.test { 1_000 } else { 2_500_000 }
}
