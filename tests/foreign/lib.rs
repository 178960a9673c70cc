//! Workers that a crate brings to the programs which depend on it.

use procession::worker;

/// Three times `n`, and the process that found it out.
#[worker]
pub fn triple(n: u64) -> (u64, u32) {
    (3 * n, std::process::id())
}

/// Inner modules bring theirs, too.
pub mod inner {
    use procession::worker;

    /// Shares its name with the function outside.
    #[worker]
    pub fn triple(n: u64) -> (u64, u32) {
        (3000 * n, std::process::id())
    }
}
