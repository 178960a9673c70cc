//! Deadlines, cancelling, and limits of memory: whatever a task does, it does not keep anybody waiting, and nobody else notices.
//!
//! Prints what each task was told to do and what became of it, as joblib's `timeout` and mpire's `task_timeout` never could: the task
//! ends, its process with it if need be, and the pool goes on.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{
    hint::black_box,
    thread::sleep,
    time::{Duration, Instant},
};

use procession::{Pool, TaskError, delayed, worker};
use serde::{Deserialize, Serialize};

/// How long a task may run.
const LIMIT: Duration = Duration::from_millis(300);
/// How much memory a worker may have on top of what it begins with.
const MEMORY: u64 = 256 << 20;

/// What a task does with its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Conduct {
    /// It is done long before its limit.
    InTime,
    /// It sleeps, and would for a minute.
    Sleep,
    /// It computes without end.
    Compute,
    /// It looks whether it is to end, and ends by itself.
    Heed,
    /// It asks for more memory than it may have.
    Hoard,
}

/// Behaves as it is told to; returns its process's number.
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
                // Asked for is had, used or not.
                hoard.push(black_box(Vec::<u8>::with_capacity(16 << 20)));
            }
        }
    }
    std::process::id()
}

/// What the error's questions make of it.
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

    // One that is not wanted any more: it ends though it has most of its time left.
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

    // The words of an error, for whoever reads a log.
    let error = pool.submit(delayed!(behave(Sleep))).join().expect_err("it sleeps for longer than it may");
    println!("{error}");
    assert!(error.to_string().contains("300ms"));

    pool.join()?;
    patient.join()
}
