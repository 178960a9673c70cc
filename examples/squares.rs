//! Runs an ordinary function in other processes. The smallest program.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use procession::{parallel, worker};

/// Returns the square, and the process that computed it.
#[worker]
fn square(n: u64) -> (u64, u32) {
    (n * n, std::process::id())
}

fn main() -> procession::Result<()> {
    let answers: Vec<(u64, u32)> = parallel!(square(n) for n in 1..=100_000)?;

    let sum: u64 = answers.iter().map(|(square, _)| square).sum();
    assert_eq!(sum, 333_338_333_350_000);
    assert!(answers.is_sorted(), "results come in the order of the input");
    assert_eq!(square(12).0, 144, "and the function is still a function");

    let workers: std::collections::BTreeSet<u32> = answers.iter().map(|(_, pid)| *pid).collect();
    assert!(!workers.contains(&std::process::id()), "no worker is this process");
    println!("the squares of 1 to 100,000 add up to {sum}");
    println!("worked out by the processes {workers:?}, for process {}", std::process::id());
    Ok(())
}
