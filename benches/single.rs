//! Single tasks beside what the machine and threads do: one call at a time, calls after a rest, and many calls from several threads.
//!
//! `cargo bench -p procession-benches --bench single` measures; with `-- --test` it runs each once, small, as a test. A word after `--`
//! picks the measurements whose name has it. Both sides take turns in each round. A figure is the median of the rounds, with their range.
#![expect(clippy::print_stdout, reason = "it prints tables")]

#[path = "compare/futex.rs"]
mod futex;

use std::{
    process::ExitCode,
    sync::{Barrier, mpsc::channel},
    time::{Duration, Instant},
};

use futex::{Manner, Peer, answer};
use procession::{Pool, Result, delayed};
use procession_benches::{add_one, is_test, is_wanted, time};

/// The size of the measurements.
struct Size {
    rounds: usize,
    hot: usize,
    rested: usize,
    tasks: u64,
}

const FULL: Size = Size { rounds: 7, hot: 20_000, rested: 60, tasks: 200_000 };

const SMALL: Size = Size { rounds: 1, hot: 50, rested: 2, tasks: 800 };

/// The rest before a call that is to find everything asleep.
const REST: Duration = Duration::from_millis(10);

/// One measurement: its name and how it is done.
type Measurement = (&'static str, fn(&Size) -> Result<()>);

const ALL: &[Measurement] = &[
    ("submit().join(), hot, in us", hot),
    ("submit().join() after 10 ms of rest, in us", rested),
    ("submit many, join all, on 2 workers, in M tasks/s", many),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, manner] = &arguments[..]
        && role == "futex"
    {
        return answer(manner);
    }
    let size = if is_test() { &SMALL } else { &FULL };
    for (name, measure) in ALL.iter().filter(|(name, _)| is_wanted(name)) {
        println!("{name}");
        measure(size).expect("the pool works");
    }
    ExitCode::SUCCESS
}

/// Writes the median of the rounds and their range.
fn spread(mut rounds: Vec<f64>) -> String {
    rounds.sort_by(f64::total_cmp);
    let (middle, last) = (rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    format!("{middle:.2} ({:.2} to {last:.2})", rounds[0])
}

/// The quantiles of each round.
#[derive(Default)]
struct Quantiles([Vec<f64>; 4]);

impl Quantiles {
    fn add(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let last = times.len() - 1;
        for (rounds, part) in self.0.iter_mut().zip([0.5, 0.99, 0.999, 1.0]) {
            rounds.push(times[(last as f64 * part) as usize].as_secs_f64() * 1e6);
        }
    }

    fn print(self, what: &str) {
        let [median, p99, p999, most] = self.0.map(spread);
        println!("  {what:<28} p50 {median:<24} p99 {p99:<24} p99.9 {p999:<24} max {most}");
    }
}

/// Takes turns in measuring a call and a bare round trip, `calls` of each in a round and `together` of them at a time.
fn round_trips(size: &Size, calls: usize, together: usize, rest: Duration, manner: Manner) -> Result<()> {
    let pool = Pool::new(2)?;
    pool.broadcast(delayed!(add_one(0)))?;
    let (mut ours, mut bare) = (Quantiles::default(), Quantiles::default());
    for _ in 0..size.rounds {
        let (mut calls_took, mut pings_took) = (Vec::new(), Vec::new());
        for _ in 0..calls / together {
            for n in 0..together as u64 {
                std::thread::sleep(rest);
                calls_took
                    .push(time(|| assert_eq!(pool.submit(delayed!(add_one(n))).join().ok(), Some(n + 1))));
            }
            let mut peer = Peer::start(manner);
            peer.ping();
            for _ in 0..together {
                std::thread::sleep(rest);
                pings_took.push(time(|| peer.ping()));
            }
        }
        ours.add(calls_took);
        bare.add(pings_took);
    }
    ours.print("submit().join()");
    bare.print(match manner {
        Manner::Sleep => "a bare pair over a futex",
        Manner::Spin => "a bare pair that spins",
    });
    Ok(())
}

fn hot(size: &Size) -> Result<()> {
    round_trips(size, size.hot, size.hot, Duration::ZERO, Manner::Spin)
}

fn rested(size: &Size) -> Result<()> {
    round_trips(size, size.rested, size.rested, REST, Manner::Sleep)
}

/// Has several threads call `run` at the same time. Returns the time until the last of them has returned, and the mean of what the calls returned.
fn on_threads(threads: u64, run: impl Fn() -> Duration + Sync) -> (Duration, Duration) {
    let barrier = Barrier::new(threads as usize + 1);
    let (mut start, mut submitting) = (Instant::now(), Duration::ZERO);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    run()
                })
            })
            .collect();
        start = Instant::now();
        barrier.wait();
        submitting = all.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
    });
    (start.elapsed(), submitting / threads as u32)
}

fn many(size: &Size) -> Result<()> {
    let pool = Pool::new(2)?;
    pool.broadcast(delayed!(add_one(0)))?;
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool of threads");
    for from in [1, 2, 8] {
        let tasks = size.tasks / from;
        let ours = || {
            let start = Instant::now();
            let handles: Vec<_> = (0..tasks).map(|n| pool.submit(delayed!(add_one(n)))).collect();
            let submitted = start.elapsed();
            assert!(handles.into_iter().map(|handle| handle.join().ok()).eq((1..=tasks).map(Some)));
            submitted
        };
        let rayons = || {
            let start = Instant::now();
            let (results, received) = channel();
            for n in 0..tasks {
                let results = results.clone();
                threads.spawn(move || results.send((n, add_one(n))).expect("the results are awaited"));
            }
            drop(results);
            let submitted = start.elapsed();
            let mut all = vec![0; tasks as usize];
            received.into_iter().for_each(|(n, result)| all[n as usize] = result);
            assert!(all.into_iter().eq(1..=tasks));
            submitted
        };
        let mut rates = [const { Vec::new() }; 4];
        on_threads(from, ours);
        on_threads(from, rayons);
        for _ in 0..size.rounds {
            let ((ours, ours_submitted), (rayons, rayons_submitted)) =
                (on_threads(from, ours), on_threads(from, rayons));
            for (rates, time) in rates.iter_mut().zip([ours, ours_submitted, rayons, rayons_submitted]) {
                rates.push(size.tasks as f64 / time.as_secs_f64() / 1e6);
            }
        }
        let [ours, ours_submitted, rayons, rayons_submitted] = rates.map(spread);
        println!("  from {from} threads  submit and join {ours:<22} of which submit {ours_submitted}");
        println!("  {:14}  rayon's spawn   {rayons:<22} of which spawn  {rayons_submitted}", "");
    }
    Ok(())
}
