//! Shows calls within calls: a worker whose function calls `parallel!` itself, or creates a pool of its own.
//!
//! A `parallel!` within a worker runs in that worker. Two nested parallel loops therefore do not multiply the number of workers, and no call
//! waits for a worker that waits for it.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::collections::BTreeSet;

use procession::{Pool, RemoteError, delayed, is_worker, parallel, worker};

/// Computes a cell of the table, and returns the process that computed it.
#[worker]
fn cell(row: u64, column: u64) -> (u64, u32) {
    (row * column, std::process::id())
}

/// Computes a row of the table, and returns the processes that worked on it. The author of the loop did not know that others run it in parallel.
#[worker]
fn row(row: u64, columns: u64) -> Result<(Vec<u64>, BTreeSet<u32>), RemoteError> {
    let cells = parallel!(cell(row, column) for column in 1..=columns)?;
    let pids = cells.iter().map(|(_, pid)| *pid).collect();
    Ok((cells.into_iter().map(|(product, _)| product).collect(), pids))
}

/// Does the same with a pool that the worker creates. It was requested explicitly, so it exists.
#[worker]
fn row_with_a_pool(row: u64, columns: u64, jobs: usize) -> Result<(Vec<u64>, BTreeSet<u32>), RemoteError> {
    let pool = Pool::new(jobs)?;
    let cells = pool.map((1..=columns).map(|column| delayed!(cell(row, column))))?;
    let pids = cells.iter().map(|(_, pid)| *pid).collect();
    Ok((cells.into_iter().map(|(product, _)| product).collect(), pids))
}

fn main() -> Result<(), RemoteError> {
    assert!(!is_worker());
    let (rows, columns) = (6, 8);
    let pool = Pool::new(2)?;
    let table: Vec<(Vec<u64>, BTreeSet<u32>)> = parallel!(pool = &pool; row(r, columns)? for r in 1..=rows)?;
    for (r, (products, pids)) in (1..=rows).zip(&table) {
        let cells: Vec<String> = products.iter().map(|product| format!("{product:>3}")).collect();
        println!("{}   by {pids:?}", cells.join(" "));
        assert_eq!(products[..], (1..=columns).map(|c| r * c).collect::<Vec<_>>());
        assert_eq!(pids.len(), 1, "a row's cells are worked out where the row is");
    }
    let workers: BTreeSet<u32> = table.iter().flat_map(|(_, pids)| pids).copied().collect();
    assert!(workers.len() <= 2, "two workers were given, and no more worked");
    println!("two loops, one in the other, and no process but those of the outer one: {workers:?}");

    let (products, pids) = pool.submit(delayed!(row_with_a_pool(7, columns, 2))).join()??;
    assert_eq!(products[..], (1..=columns).map(|c| 7 * c).collect::<Vec<_>>());
    assert!(pids.is_disjoint(&workers) && pids.len() <= 2, "{pids:?} are the worker's own workers");
    println!("a row by a worker with a pool of its own: {products:?}   by {pids:?}");
    Ok(())
}
