//! Looks up values in a table that is sent to each worker once, for rows that are not copied at all.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::collections::HashMap;

use procession::{Shared, SharedSlice, parallel, worker};

/// Returns the sum of the prices of some items. It takes any references, and does not notice that they are shared.
#[worker]
fn total(prices: &HashMap<u32, u64>, items: &[u32]) -> u64 {
    items.iter().filter_map(|item| prices.get(item)).sum()
}

fn main() -> procession::Result<()> {
    let prices: HashMap<u32, u64> = (0..10_000).map(|item| (item, u64::from(item) * 3)).collect();
    // Encoded once, and decoded once by each worker.
    let table = Shared::new(&prices)?;
    // Mapped by the workers. Every part of it is a view.
    let items = SharedSlice::from_iter(1_000_000, (0_u32..).map(|n| n % 20_000))?;

    let totals = parallel!(total(&table, part) for part in items.chunks(10_000))?;
    let sum: u64 = totals.iter().sum();
    assert_eq!(totals.len(), 100);
    assert_eq!(sum, total(&prices, &items), "the same as without other processes");
    println!("{} orders come to {sum}", totals.len());
    Ok(())
}
