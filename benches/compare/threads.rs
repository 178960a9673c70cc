//! The peers within one process: rayon, and `std::thread` with channels.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Instant,
};

use procession_benches::time;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use crate::timing::{self, Outcome, Size, add_one, gain, hot, rate, rested};

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads")
}

/// `par_iter` of a no-op, gathered in order.
pub(crate) fn par_iter(size: &Size) -> Outcome {
    let pool = pool(2);
    let rate = rate(size, size.tasks(20_000_000), |tasks| {
        let start = Instant::now();
        let results: Vec<u64> = pool.install(|| (0..tasks).into_par_iter().map(add_one).collect());
        let took = start.elapsed();
        assert!(results.into_iter().eq(1..=tasks));
        took
    });
    Ok(vec![("rate", rate)])
}

/// `spawn` for each task, results through a channel, put in order.
pub(crate) fn spawn(size: &Size) -> Outcome {
    let pool = pool(2);
    let rate = rate(size, size.tasks(500_000), |tasks| {
        let start = Instant::now();
        let (results, ours) = channel();
        for n in 0..tasks {
            let results = results.clone();
            pool.spawn(move || results.send((n, add_one(n))).expect("the results are awaited"));
        }
        drop(results);
        let ordered = in_order(tasks, &ours);
        let took = start.elapsed();
        assert!(ordered.into_iter().eq(1..=tasks));
        took
    });
    Ok(vec![("rate", rate)])
}

fn in_order(tasks: u64, results: &Receiver<(u64, u64)>) -> Vec<u64> {
    let mut ordered = vec![0; tasks as usize];
    (0..tasks).for_each(|_| {
        let (n, result) = results.recv().expect("a result for each task");
        ordered[n as usize] = result;
    });
    ordered
}

/// One call at a time.
pub(crate) fn install(size: &Size) -> Outcome {
    let pool = pool(1);
    let call = || assert_eq!(pool.install(|| add_one(1)), 2);
    Ok(vec![("hot", hot(size, 20_000, call)), ("rested", rested(size, call))])
}

/// From nothing to the first result.
pub(crate) fn start(size: &Size) -> Outcome {
    let first = || time(|| assert_eq!(pool(1).install(|| add_one(1)), 2));
    Ok(vec![("small", timing::median_time(procession_benches::repeat(size.samples(30), first)))])
}

/// Two threads against one, on work for the CPU.
pub(crate) fn two(size: &Size) -> Outcome {
    let (one, two) = (pool(1), pool(2));
    let rounds = timing::spin_rounds(size);
    let run = |pool: &ThreadPool| {
        pool.install(|| {
            let sum: u64 = (0..timing::SPINS).into_par_iter().map(|_| timing::spin(rounds) & 1).sum();
            assert!(sum <= timing::SPINS);
        })
    };
    Ok(vec![("gain", gain(size, || run(&one), || run(&two)))])
}

/// Two threads, a channel to each, and one back.
struct Threads {
    tasks: Vec<Sender<u64>>,
    results: Receiver<(u64, u64)>,
}

impl Threads {
    fn start(threads: usize) -> Self {
        let (results, ours) = channel();
        let worker = |_| {
            let (tasks, theirs) = channel();
            let results = results.clone();
            std::thread::spawn(move || theirs.iter().try_for_each(|n| results.send((n, add_one(n)))));
            tasks
        };
        Self { tasks: (0..threads).map(worker).collect(), results: ours }
    }

    fn send(&self, n: u64) {
        self.tasks[n as usize % self.tasks.len()].send(n).expect("the thread lives");
    }
}

/// Every task a message, in turn to two threads, and every result a message back; and one at a time.
pub(crate) fn channels(size: &Size) -> Outcome {
    let threads = Threads::start(2);
    let rate = rate(size, size.tasks(500_000), |tasks| {
        let start = Instant::now();
        (0..tasks).for_each(|n| threads.send(n));
        let ordered = in_order(tasks, &threads.results);
        let took = start.elapsed();
        assert!(ordered.into_iter().eq(1..=tasks));
        took
    });
    let threads = Threads::start(1);
    let call = || {
        threads.send(1);
        assert_eq!(threads.results.recv(), Ok((1, 2)));
    };
    Ok(vec![("rate", rate), ("hot", hot(size, 20_000, call)), ("rested", rested(size, call))])
}
