//! The promises about speed: each figure beside the limit of the machine, in one run.
//!
//! `cargo bench -p procession-benches --bench limits` measures; with `-- --test` it runs each once, small, as a test. A word after
//! `--` picks the measurements whose name has it.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use procession::{Pool, Process, Result, StartMethod, delayed, worker};
use procession_benches::{
    BareChild, act_as_bare_child, add_one, bare_map, bare_start, cpu_ticks, first_result, is_test, is_wanted,
    leave, median, pid, repeat, resident_kib, spin, time,
};

/// The size of the measurements.
struct Size {
    tasks: u64,
    flat_tasks: u64,
    calls: usize,
    starts: usize,
    ballast_bytes: usize,
    spin_rounds: u64,
    rest: Duration,
}

const FULL: Size = Size {
    tasks: 2_000_000,
    flat_tasks: 10_000_000,
    calls: 20_000,
    starts: 200,
    ballast_bytes: 4 << 30,
    spin_rounds: 20_000_000,
    rest: Duration::from_secs(2),
};

const SMALL: Size = Size {
    tasks: 2_000,
    flat_tasks: 5_000,
    calls: 20,
    starts: 2,
    ballast_bytes: 1 << 20,
    spin_rounds: 1_000,
    rest: Duration::from_millis(50),
};

/// One measurement: its name, what was asked for, and how it is done.
type Measurement = (&'static str, &'static str, fn(&Size) -> Result<String>);

const ALL: &[Measurement] = &[
    ("map, no-op u64 -> u64, 2 workers, against a bare ring", "0.8 x", map),
    ("map, no-op u64 -> u64, 1 worker, against a bare ring", "-", map_one),
    ("imap over 10^7 tasks: resident memory", "flat", flat),
    ("submit().join() against a bare socket ping-pong", "2.0 x", round_trip),
    ("pool start to first result against a bare start", "1.6 x", start_small),
    ("the same, with 4 GiB in the parent", "1.6 x", start_large),
    ("start of a further worker under ForkServer to its first result", "0.25 ms", further),
    ("a process from spawn to join against a bare one", "1.4 x", process),
    ("two workers on CPU-bound work against one", "1.9 x", two_against_one),
    ("tasks of 20 us to 20 ms on 2 workers against the ideal", "1.1 x", uneven),
    ("map of no-ops on 4, 8, 32, 200 workers against 2", "-", many_no_ops),
    ("map of 10 us tasks on 4, 8, 32, 200 workers against 2", "-", many_short),
    ("an idle pool's CPU time, parent and workers", "0 ms", idle),
    ("the same of 200 workers", "0 ms", idle_crowd),
    ("a worker at rest, resident", "5 MiB", rest),
];

fn main() -> Result<()> {
    act_as_bare_child();
    let size = if is_test() { &SMALL } else { &FULL };
    println!("{:<52} {:>12}   measured", "what", "asked for");
    let mut passed = 0;
    for (name, asked, measure) in ALL {
        if is_wanted(name) {
            println!("{name:<52} {asked:>12}   {}", measure(size)?);
            passed += 1;
        }
    }
    println!("{passed} passed, 0 failed");
    Ok(())
}

fn millions(tasks: u64, time: Duration) -> f64 {
    tasks as f64 / time.as_secs_f64() / 1e6
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn map(size: &Size) -> Result<String> {
    map_on(2, size)
}

fn map_one(size: &Size) -> Result<String> {
    map_on(1, size)
}

fn map_on(workers: usize, size: &Size) -> Result<String> {
    let pool = Pool::new(workers)?;
    let run = |tasks: u64| -> Result<Duration> {
        let start = Instant::now();
        let results = pool.map((0..tasks).map(|n| delayed!(add_one(n))))?;
        let took = start.elapsed();
        assert!(results.into_iter().eq(1..=tasks), "every result is right and in its place");
        Ok(took)
    };
    run(size.tasks / 10)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        ours.push(run(size.tasks)?);
        bare.push(bare_map(workers, size.tasks));
    }
    let (ours, bare) = (median(ours), median(bare));
    let [ours_millions, bare_millions] = [ours, bare].map(|time| millions(size.tasks, time));
    Ok(format!(
        "{ours_millions:.2} M tasks/s, the bare ring {bare_millions:.2} M tasks/s: {:.2} x",
        ratio(bare, ours)
    ))
}

fn flat(size: &Size) -> Result<String> {
    let pool = Pool::new(2)?;
    let mut sizes = Vec::new();
    let part = size.flat_tasks / 10;
    let start = Instant::now();
    for (n, result) in (0..).zip(pool.imap((0..size.flat_tasks).map(|n| delayed!(add_one(n))))) {
        assert_eq!(result?, n + 1);
        if (n + 1) % part == 0 {
            sizes.push(resident_kib(std::process::id()).0);
        }
    }
    let took = start.elapsed();
    assert_eq!(sizes.len(), 10);
    let (first, last) = (sizes[0], sizes[9]);
    assert!(last < first + (8 << 10), "memory grew from {first} to {last} KiB");
    Ok(format!(
        "{first} KiB after a tenth, {last} KiB at the end, {:.2} M tasks/s",
        millions(size.flat_tasks, took)
    ))
}

fn round_trip(size: &Size) -> Result<String> {
    let pool = Pool::new(1)?;
    let mut echo = BareChild::echo();
    // A request or a reply has about 40 bytes.
    let mut bytes = [7; 40];
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for n in 0..size.calls as u64 {
        ours.push(time(|| assert_eq!(pool.submit(delayed!(add_one(n))).join().ok(), Some(n + 1))));
        bare.push(time(|| echo.ping(&mut bytes)));
    }
    // Alternating keeps both ends cold alike; runs of one kind keep them warm alike.
    let alternating = ratio(median(ours), median(bare));
    let ours = median(repeat(size.calls, || time(|| drop(pool.submit(delayed!(add_one(1))).join()))));
    let bare = median(repeat(size.calls, || time(|| echo.ping(&mut bytes))));
    Ok(format!("{:.2} x ({ours:.1?} against {bare:.1?}; taking turns {alternating:.2} x)", ratio(ours, bare)))
}

fn start(size: &Size) -> Result<String> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..size.starts {
        ours.push(first_result());
        bare.push(bare_start());
    }
    let (ours, bare) = (median(ours), median(bare));
    Ok(format!("{:.2} x ({ours:.2?} against {bare:.2?})", ratio(ours, bare)))
}

fn start_small(size: &Size) -> Result<String> {
    start(size)
}

fn start_large(size: &Size) -> Result<String> {
    let ballast = vec![1u8; size.ballast_bytes];
    let words = start(size);
    assert_eq!(black_box(&ballast)[size.ballast_bytes - 1], 1);
    words
}

fn further(size: &Size) -> Result<String> {
    let pool = Pool::builder().jobs(1).start_method(StartMethod::ForkServer).build()?;
    pool.submit(delayed!(add_one(1))).join()?;
    let times = repeat(size.starts, || {
        // When the error is returned, its end has been handled, and no other worker has been requested yet.
        assert!(pool.submit(delayed!(leave())).join().is_err());
        time(|| drop(pool.submit(delayed!(add_one(1))).join()))
    });
    let average = times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("not that many");
    Ok(format!("{:.3} ms ({:.3} on average)", median(times).as_secs_f64() * 1e3, average.as_secs_f64() * 1e3))
}

fn process(size: &Size) -> Result<String> {
    let ours = || {
        time(|| {
            let joined = Process::spawn(delayed!(add_one(1))).map(|mut process| process.join());
            assert!(matches!(joined, Ok(Ok(2))));
        })
    };
    let (mut first, mut further, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.starts {
        // Without another there is no thread yet that watches.
        first.push(ours());
        let _another = Process::spawn(delayed!(rest_for_ever()))?;
        further.push(ours());
        // Its end included.
        bare.push(time(|| {
            let _first_byte = bare_start();
        }));
    }
    let (first, further, bare) = (median(first), median(further), median(bare));
    Ok(format!(
        "{:.2} x ({further:.2?} against {bare:.2?}); beside no other {:.2} x",
        ratio(further, bare),
        ratio(first, bare)
    ))
}

#[worker]
fn rest_for_ever() {
    loop {
        std::thread::park();
    }
}

fn two_against_one(size: &Size) -> Result<String> {
    let tasks = 64;
    let (one, two) = (Pool::new(1)?, Pool::new(2)?);
    let run = |pool: &Pool| {
        time(|| {
            let results = pool.map((0..tasks).map(|_| delayed!(spin(size.spin_rounds))));
            assert_eq!(results.map(|r| r.len()).ok(), Some(64));
        })
    };
    run(&one);
    run(&two);
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(run(&one));
        together.push(run(&two));
    }
    Ok(format!("{:.2} x", ratio(median(alone), median(together))))
}

/// Takes so long, without a core.
#[worker]
fn take(micros: u64) -> u64 {
    let start = Instant::now();
    let time = Duration::from_micros(micros);
    while start.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(start.elapsed()));
    }
    u64::try_from(start.elapsed().as_nanos()).expect("centuries are too long")
}

/// Keeps a core busy for so long.
#[worker]
fn busy(micros: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        black_box(0);
    }
}

fn uneven(size: &Size) -> Result<String> {
    let many = size.tasks.min(600);
    let mut random = 1u64;
    let mut times: Vec<u64> =
        (0..many).map(|n| (20.0 * 1000f64.powf(n as f64 / many as f64)) as u64).collect();
    for n in (1..times.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        times.swap(n, (random >> 33) as usize % (n + 1));
    }
    let pool = Pool::new(2)?;
    pool.broadcast(delayed!(take(1)))?;
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let took = pool.map(times.iter().map(|&micros| delayed!(take(micros))))?;
        let all = start.elapsed();
        // The time that they took, not the time that they asked for, because timers are late, which is not the fault of the scheduler.
        let ideal = Duration::from_nanos(took.iter().sum::<u64>() / 2);
        ratios.push(ratio(all, ideal));
    }
    ratios.sort_by(f64::total_cmp);
    Ok(format!("{:.3} x", ratios[1]))
}

fn crowds(size: &Size, run: impl Fn(&Pool) -> Result<Duration>) -> Result<String> {
    let mut words = Vec::new();
    let mut two = None;
    for workers in [2, 4, 8, 32, 200] {
        let pool = Pool::new(workers)?;
        pool.broadcast(delayed!(pid()))?;
        run(&pool)?;
        let took = median(vec![run(&pool)?, run(&pool)?, run(&pool)?]);
        let two = *two.get_or_insert(took);
        words.push(if workers == 2 {
            format!("{:.2} M tasks/s;", millions(size.tasks / 20, took))
        } else {
            format!("{:.2} x", ratio(two, took))
        });
    }
    Ok(words.join(" "))
}

fn many_no_ops(size: &Size) -> Result<String> {
    crowds(size, |pool| {
        let start = Instant::now();
        let results = pool.map((0..size.tasks / 20).map(|n| delayed!(add_one(n))))?;
        let took = start.elapsed();
        assert!(results.into_iter().eq(1..=size.tasks / 20));
        Ok(took)
    })
}

fn many_short(size: &Size) -> Result<String> {
    crowds(size, |pool| {
        let start = Instant::now();
        pool.map((0..size.tasks / 20).map(|_| delayed!(busy(10))))?;
        Ok(start.elapsed())
    })
}

fn idle_of(workers: usize, size: &Size) -> Result<String> {
    let pool = Pool::new(workers)?;
    // After a burst.
    pool.map((0..size.tasks / 20).map(|n| delayed!(add_one(n))))?;
    let mut pids = pool.broadcast(delayed!(pid()))?;
    pids.push(std::process::id());
    let before: u64 = pids.iter().map(|&pid| cpu_ticks(pid)).sum();
    std::thread::sleep(size.rest);
    let after: u64 = pids.iter().map(|&pid| cpu_ticks(pid)).sum();
    Ok(format!("{} ms in {:.0?}", (after - before) * 10, size.rest))
}

fn idle(size: &Size) -> Result<String> {
    idle_of(2, size)
}

fn idle_crowd(size: &Size) -> Result<String> {
    idle_of(200, size)
}

fn rest(_size: &Size) -> Result<String> {
    let pool = Pool::new(1)?;
    let pid = pool.submit(delayed!(pid())).join()?;
    pool.map((0..10_000).map(|n| delayed!(add_one(n))))?;
    let (all, own) = resident_kib(pid);
    Ok(format!("{:.1} MiB, of which {:.1} MiB its own", all as f64 / 1024.0, own as f64 / 1024.0))
}
