//! Runs a list of jobs on a pool of five: all results at once with `map`, and one after the other with `imap`, beside a progress bar.
//!
//! `pool_map [--jobs 5] [--tasks 200]`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command line program")]

use std::io::IsTerminal;

use procession::{Pool, RemoteError, delayed, worker};

/// Counts the primes below `n` by trial division.
#[worker]
fn primes_below(n: u32) -> u32 {
    let is_prime = |n: &u32| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..n).filter(is_prime).count() as u32
}

fn options() -> Result<(usize, u32), RemoteError> {
    let (mut jobs, mut tasks) = (5, 200);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match (name.as_str(), args.next()) {
            ("--jobs", Some(n)) => jobs = n.parse()?,
            ("--tasks", Some(n)) => tasks = n.parse()?,
            _ => return Err(RemoteError::msg("usage: pool_map [--jobs N] [--tasks N]")),
        }
    }
    Ok((jobs, tasks))
}

/// Creates a bar if stderr is a terminal, and otherwise nothing.
fn show(done: u32, of: u32) {
    if std::io::stderr().is_terminal() {
        let filled = (40 * done / of.max(1)) as usize;
        let end = if done == of { "\n" } else { "" };
        eprint!("\r[{}{}] {done} of {of}{end}", "#".repeat(filled), " ".repeat(40 - filled));
    }
}

fn main() -> Result<(), RemoteError> {
    let (jobs, tasks) = options()?;
    // At most that many processes run at a time, and each of them runs one task after the other.
    let pool = Pool::new(jobs)?;

    println!("{:?}", pool.map([10, 100, 1000].map(|n| delayed!(primes_below(n))))?);

    // The results arrive in order as soon as they are ready, so they can be shown, or be the input of the next pool, while the rest is computed.
    // The input is read only as far ahead as the workers need it.
    let mut most = 0;
    for (done, count) in (1..).zip(pool.imap((0..tasks).map(|n| delayed!(primes_below(100 * n))))) {
        let count = count?;
        assert!(count >= most, "in the order of the input");
        most = count;
        show(done, tasks);
    }
    println!("there are {most} primes below {}", 100 * tasks.saturating_sub(1));

    // In order of completion. The index tells to which task a result belongs.
    let mut seen = vec![false; tasks as usize];
    for (index, count) in pool.imap_unordered((0..tasks).map(|n| delayed!(primes_below(100 * n)))) {
        count?;
        seen[index] = true;
    }
    assert!(seen.into_iter().all(|seen| seen), "each once");
    Ok(())
}
