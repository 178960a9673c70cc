//! Shows deadlines, cancelling and memory limits. No task can keep others waiting or affect them.
//!
//! Prints what each task did and how it ended, which joblib's `timeout` and mpire's `task_timeout` cannot offer: the task ends, with its process
//! if necessary, and the pool continues.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{
    hint::black_box,
    thread::sleep,
    time::{Duration, Instant},
};

use procession::{Pool, TaskError, delayed, worker};
use serde::{Deserialize, Serialize};

/// The time limit of a task.
const LIMIT: Duration = Duration::from_millis(300);
/// The memory that a worker may allocate in addition to what it starts with.
const MEMORY: u64 = 256 << 20;

/// The behaviour of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Conduct {
    /// Ends long before its limit.
    InTime,
    /// Sleeps for a minute.
    Sleep,
    /// Computes without end.
    Compute,
    /// Checks whether it should end, and ends by itself.
    Heed,
    /// Allocates more memory than it may.
    Hoard,
}

/// Behaves as requested. Returns the pid of its process.
#[worker]
fn behave(conduct: Conduct) -> u32 {
    match conduct {
        Conduct::InTime => sleep(LIMIT / 100),
        Conduct::Sleep => sleep(Duration::from_secs(60)),
        Conduct::Compute => {
            while black_box(true) {
                black_box(1);
            }
        }
        Conduct::Heed => {
            while !procession::is_cancelled() {
                sleep(Duration::from_millis(1));
            }
        }
        Conduct::Hoard => {
            let mut hoard = Vec::new();
            while black_box(true) {
                // Allocated memory counts whether or not it is used.
                hoard.push(black_box(Vec::<u8>::with_capacity(16 << 20)));
            }
        }
    }
    std::process::id()
}

/// Describes the error by its predicates.
fn became(outcome: &Result<u32, TaskError>) -> String {
    match outcome {
        Ok(_) => "done".to_owned(),
        Err(error) if error.is_timeout() => "timed out".to_owned(),
        Err(error) if error.is_cancelled() => "cancelled".to_owned(),
        Err(error) if error.is_out_of_memory() => "out of memory".to_owned(),
        Err(error) => format!("something else: {error}"),
    }
}

fn main() -> procession::Result<()> {
    let pool = Pool::builder().jobs(2).task_timeout(LIMIT).memory_limit(MEMORY).build()?;

    println!("each task may run for {LIMIT:?}, and have {} MiB", MEMORY >> 20);
    println!("{:>4}  {:<8} {:<14} after", "task", "was to", "became");
    use Conduct::{Compute, Heed, Hoard, InTime, Sleep};
    let conducts = [InTime, Sleep, InTime, Compute, InTime, Heed, InTime, Hoard, InTime];
    let start = Instant::now();
    let tasks = conducts.into_iter().map(|conduct| delayed!(behave(conduct)));
    for (n, outcome) in pool.imap_unordered(tasks) {
        println!(
            "{n:>4}  {:<8} {:<14} {} ms",
            format!("{:?}", conducts[n]),
            became(&outcome),
            start.elapsed().as_millis()
        );
        match conducts[n] {
            InTime => assert!(outcome.is_ok(), "who is in time does not notice the others"),
            Sleep | Compute | Heed => assert!(outcome.is_err_and(|error| error.is_timeout())),
            Hoard => assert!(outcome.is_err_and(|error| error.is_out_of_memory())),
        }
    }

    // A task whose result is no longer wanted. It ends although most of its time is left.
    let patient = Pool::builder().jobs(1).task_timeout(Duration::from_secs(60)).build()?;
    let running = patient.submit(delayed!(behave(Sleep)));
    let waiting = patient.submit(delayed!(behave(InTime)));
    sleep(LIMIT);
    let start = Instant::now();
    running.cancel();
    let outcome = running.join();
    println!("a task of which nothing is wanted any more: {}, after {:?}", became(&outcome), start.elapsed());
    assert!(outcome.is_err_and(|error| error.is_cancelled()));
    assert!(waiting.join().is_ok(), "what waited behind it runs");

    // The text of an error, as it appears in a log.
    let error = pool.submit(delayed!(behave(Sleep))).join().expect_err("it sleeps for longer than it may");
    println!("{error}");
    assert!(error.to_string().contains("300ms"));

    pool.join()?;
    patient.join()
}
