//! The cost of locks between processes, beside those of std between threads, and how long others wait for a lock whose holder dies.
//!
//! `cargo bench -p procession-benches --bench locks` measures; with `-- --test` it runs each once, small, as a test.
#![expect(clippy::print_stdout, reason = "it prints a table")]
#![expect(clippy::exit, reason = "a process that dies is measured")]

use std::{
    hint::black_box,
    sync::{Barrier, Mutex, RwLock, atomic::Ordering},
    time::{Duration, SystemTime},
};

use procession::{
    Pool, Result, SharedAtomicU64, SharedBarrier, SharedEvent, SharedMutex, SharedRwLock, SharedSemaphore,
    delayed, worker,
};
use procession_benches::{is_test, median, repeat, time};

/// The size of the measurements.
struct Size {
    times: u32,
    samples: usize,
    deaths: usize,
}

const FULL: Size = Size { times: 2_000_000, samples: 9, deaths: 50 };
const SMALL: Size = Size { times: 100, samples: 1, deaths: 1 };

/// One measurement: its name, what was asked for, and how it is done.
type Measurement = (&'static str, &'static str, fn(&Size) -> Result<String>);

const ALL: &[Measurement] = &[
    ("mutex, uncontended", "20 ns", uncontended),
    ("mutex, contended by 2 processes, against std's between 2 threads", "1.5 x", contended),
    ("lock for readers, uncontended: read, write", "-", readers),
    ("semaphore, uncontended", "-", semaphore),
    ("a holder dies: from its end until another one has the lock", "10 ms", death),
];

fn main() -> Result<()> {
    let size = if is_test() { SMALL } else { FULL };
    println!("| what | target | measured |\n|---|---|---|");
    for (name, target, measure) in ALL {
        println!("| {name} | {target} | {} |", measure(&size)?);
    }
    println!("{} passed, 0 failed", ALL.len());
    Ok(())
}

/// Returns the median time of one of many runs, in nanoseconds.
fn each(size: &Size, mut run: impl FnMut()) -> f64 {
    let all = repeat(size.samples, || time(|| (0..size.times).for_each(|_| run())));
    nanos(median(all), size)
}

fn nanos(time: Duration, size: &Size) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(size.times)
}

fn uncontended(size: &Size) -> Result<String> {
    let (shared, own) = (SharedMutex::new(0_u64)?, Mutex::new(0_u64));
    let ours = each(size, || *black_box(&shared).lock().expect("no process dies") += 1);
    let std = each(size, || *black_box(&own).lock().expect("no thread panics") += 1);
    Ok(format!("{ours:.1} ns (std: {std:.1} ns)"))
}

fn readers(size: &Size) -> Result<String> {
    let (shared, own) = (SharedRwLock::new(0_u64)?, RwLock::new(0_u64));
    let read = each(size, || _ = black_box(*black_box(&shared).read().expect("no process dies")));
    let write = each(size, || *black_box(&shared).write().expect("no process dies") += 1);
    let std_read = each(size, || _ = black_box(*black_box(&own).read().expect("no thread panics")));
    let std_write = each(size, || *black_box(&own).write().expect("no thread panics") += 1);
    Ok(format!("{read:.1} ns, {write:.1} ns (std: {std_read:.1} ns, {std_write:.1} ns)"))
}

fn semaphore(size: &Size) -> Result<String> {
    let semaphore = SharedSemaphore::new(8)?;
    Ok(format!("{:.1} ns", each(size, || drop(black_box(&semaphore).acquire()))))
}

/// Returns how long it took.
fn add_many(times: u32, start: impl FnOnce(), mut add: impl FnMut()) -> Duration {
    start();
    time(|| (0..times).for_each(|_| add()))
}

#[worker]
fn add(times: u32, total: &SharedMutex<u64>, start: &SharedBarrier) -> Duration {
    let start = || _ = start.wait();
    add_many(times, start, || *total.lock().expect("no process dies") += 1)
}

fn contended(size: &Size) -> Result<String> {
    let (pool, total, start) = (Pool::new(2)?, SharedMutex::new(0_u64)?, SharedBarrier::new(2)?);
    let mut ours = Vec::new();
    for _ in 0..size.samples {
        let both = [(); 2].map(|()| pool.submit(delayed!(add(size.times, &total, &start))));
        let both: Vec<Duration> = both.into_iter().map(|handle| handle.join()).collect::<Result<_, _>>()?;
        ours.extend(both.into_iter().max());
    }
    let std = repeat(size.samples, || {
        let (total, start) = (Mutex::new(0_u64), Barrier::new(2));
        std::thread::scope(|scope| {
            let add = || {
                let start = || _ = start.wait();
                add_many(size.times, start, || *total.lock().expect("no thread panics") += 1)
            };
            let both = [(); 2].map(|()| scope.spawn(add));
            both.into_iter().map(|thread| thread.join().expect("it returns")).max().unwrap_or_default()
        })
    });
    // Each of the two processes, and of the two threads, has taken the lock `size.times` times.
    let (ours, std) = (nanos(median(ours), size) / 2.0, nanos(median(std), size) / 2.0);
    Ok(format!("{:.2} x ({ours:.1} ns, std: {std:.1} ns)", ours / std))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64
}

#[worker]
fn die(total: &SharedMutex<u64>, locked: &SharedEvent, died: &SharedAtomicU64) {
    let _held = total.lock();
    locked.set();
    // The others sleep by then.
    std::thread::sleep(Duration::from_millis(5));
    died.store(now(), Ordering::SeqCst);
    // Without a core, whose size would count.
    std::process::exit(1);
}

#[worker]
fn wait(total: &SharedMutex<u64>) -> u64 {
    let _held = total.lock();
    now()
}

fn death(size: &Size) -> Result<String> {
    let (total, died, locked) = (SharedMutex::new(0_u64)?, SharedAtomicU64::new(0)?, SharedEvent::new()?);
    let pool = Pool::new(2)?;
    let mut all = Vec::new();
    for _ in 0..size.deaths {
        locked.clear();
        let dying = pool.submit(delayed!(die(&total, &locked, &died)));
        locked.wait();
        let got = pool.submit(delayed!(wait(&total))).join()?;
        all.push(Duration::from_nanos(got.saturating_sub(died.load(Ordering::SeqCst))));
        assert!(dying.join().is_err(), "it has died");
    }
    let most = all.iter().max().copied().unwrap_or_default();
    Ok(format!("{:.2} ms (at most {:.2} ms)", median(all).as_secs_f64() * 1e3, most.as_secs_f64() * 1e3))
}
