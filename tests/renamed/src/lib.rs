//! A crate that knows procession by another name. Attributes need the name as an option, call sites do not.

/// Adds.
#[parade::worker(crate = parade)]
pub fn add(a: u32, #[default(1)] b: u32) -> u32 {
    a + b
}

/// The larger one.
#[parade::worker(crate = ::parade, instances(<u32>))]
pub fn larger<T: Ord>(a: T, b: T) -> T {
    a.max(b)
}

/// Calls in every way that there is.
///
/// # Errors
///
/// A task failed.
pub fn calls() -> parade::Result<(Vec<u32>, u32, u32)> {
    let sums = parade::parallel!(add(n) for n in 0..3)?;
    let (sum, largest) = parade::parallel!(add(1, b = 5), larger(3u32, 4))?;
    Ok((sums, sum + parade::delayed!(add(1)).call()?, largest))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_macro_works_under_another_name() {
        assert_eq!(super::calls().unwrap(), (vec![1, 2, 3], 8, 4));
    }
}
