//! Runs tasks that crash their process. Each fails alone with its cause of death, and the others are not affected.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::hint::black_box;

use procession::{Pool, TaskError, delayed, worker};
use serde::{Deserialize, Serialize};

/// The way in which a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum End {
    Return,
    Panic,
    Abort,
    Exit,
    StackOverflow,
}

/// Ends in the given way. Returns `n` if that way is to return.
#[worker]
fn meet(end: End, n: u32) -> u32 {
    match end {
        End::Return => n,
        End::Panic => panic!("task {n} was told to"),
        End::Abort => std::process::abort(),
        #[expect(clippy::exit, reason = "that a function leaves like this is what is shown")]
        End::Exit => std::process::exit(3),
        End::StackOverflow => deeper(n),
    }
}

/// Calls itself until the stack overflows.
fn deeper(n: u32) -> u32 {
    let frame = black_box([n; 1024]);
    if black_box(true) { deeper(n.wrapping_add(1)).wrapping_add(frame[0]) } else { n }
}

/// Describes the error by its predicates.
fn cause(error: &TaskError) -> String {
    match (error.panic(), error.exit()) {
        (Some(panic), _) => format!("panic: {}", panic.message()),
        (None, Some(exit)) if error.is_crash() => format!("crash: {exit}"),
        _ => format!("something else: {error}"),
    }
}

fn main() -> procession::Result<()> {
    const ENDS: [End; 5] = [End::Return, End::Panic, End::Abort, End::Exit, End::StackOverflow];

    let pool = Pool::builder().jobs(2).build()?;
    let ends: Vec<End> = ENDS.into_iter().flat_map(|end| [End::Return, end, End::Return]).collect();
    let tasks = ends.iter().zip(0..).map(|(&end, n)| delayed!(meet(end, n)));
    let results: Vec<Result<u32, TaskError>> = pool.imap(tasks).collect();
    pool.join()?;

    println!("task  was told to    came to");
    assert_eq!(results.len(), ends.len());
    for ((n, end), result) in (0..).zip(&ends).zip(&results) {
        match result {
            Ok(value) => println!("{n:>4}  {:<13}  {value}", format!("{end:?}")),
            Err(error) => println!("{n:>4}  {:<13}  {}", format!("{end:?}"), cause(error)),
        }

        let exit = result.as_ref().err().and_then(|error| error.exit());
        match (end, result) {
            (End::Return, result) => {
                assert_eq!(result.as_ref().ok(), Some(&n), "a task that does nothing wrong succeeds")
            }
            (_, Ok(value)) => panic!("{end:?} returned {value}"),
            (End::Panic, Err(error)) => assert!(error.is_panic() && !error.is_crash()),
            (End::Exit, Err(error)) => {
                assert!(error.is_crash());
                assert_eq!(exit.and_then(|exit| exit.code()), Some(3));
            }
            (End::Abort | End::StackOverflow, Err(error)) => {
                assert!(error.is_crash() && error.worker_pid().is_some());
                assert!(exit.is_some_and(|exit| exit.signal().is_some()), "a signal ended it");
            }
        }
    }

    let fine = results.iter().filter(|result| result.is_ok()).count();
    println!("{fine} tasks returned, {} failed, and this process is here to say so", results.len() - fine);
    Ok(())
}
