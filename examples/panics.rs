//! Returns a panic in a worker as a value, with its message and its location. The worker process continues.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use procession::{Pool, delayed, worker};

/// Returns the remainder, and the process that computed it.
#[worker]
fn withdraw(balance: u32, amount: u32) -> (u32, u32) {
    assert!(amount <= balance, "{balance} is not enough to take {amount} from"); // HERE
    (balance - amount, std::process::id())
}

fn main() -> procession::Result<()> {
    let pool = Pool::builder().jobs(1).build()?;

    let (left, before) = pool.submit(delayed!(withdraw(100, 30))).join()?;
    assert_eq!(left, 70);

    let error = pool.submit(delayed!(withdraw(70, 80))).join().expect_err("there are only 70");
    println!("{error}\n");

    assert!(error.is_panic() && !error.is_crash());
    assert_eq!(error.worker_pid(), Some(before));
    let panic = error.panic().expect("it is a panic");
    assert_eq!(panic.message(), "70 is not enough to take 80 from");
    assert!(panic.file().ends_with("panics.rs"), "{}", panic.file());
    let line = include_str!("panics.rs").lines().position(|line| line.ends_with("// HERE"));
    assert_eq!(Some(panic.line() as usize), line.map(|index| index + 1));

    let (left, after) = pool.submit(delayed!(withdraw(70, 70))).join()?;
    assert_eq!((left, after), (0, before), "the worker lives on");
    println!("process {before} ran the task before the panic, the one that panicked, and the one after it");
    pool.join()
}
