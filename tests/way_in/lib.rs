//! A small program in every shape that cargo knows. `ci/way-in.sh` builds it in every manner and runs it; `cargo test` runs its tests.
//!
//! A doc test is a program, too, and its workers find its functions:
//!
//! ```
//! # fn main() {
//! procession_way_in::prove!("a doc test");
//! # }
//! ```
//!
//! So do those of a second one, which may share an executable with the first:
//!
//! ```
//! # fn main() {
//! procession_way_in::prove!("another doc test");
//! # }
//! ```

#[doc(hidden)]
pub use {procession, procession_foreign};

use procession::worker;

/// Twice `n`, and the process that found it out.
#[worker]
pub fn double(n: u64) -> (u64, u32) {
    (2 * n, std::process::id())
}

/// Declares workers where it stands and proves that they, this crate's, and those of a dependency run in another process, and that a
/// panic comes back with its words. Says so on stdout.
///
/// # Panics
///
/// Something is not so.
#[macro_export]
macro_rules! prove {
    ($place:literal) => {{
        use $crate::procession::{Pool, delayed, worker};

        #[worker(crate = $crate::procession)]
        fn here(n: u64) -> (u64, u32) {
            (n, ::std::process::id())
        }

        #[worker(crate = $crate::procession)]
        fn fail(words: &str) {
            panic!("{words}")
        }

        let pool = Pool::new(2).expect("a pool");
        let own = ::std::process::id();
        let tasks = (0..64).flat_map(|n| {
            [
                delayed!(here(n)),
                delayed!($crate::double(n)),
                delayed!($crate::procession_foreign::triple(n)),
                delayed!($crate::procession_foreign::inner::triple(n)),
            ]
        });
        let results = pool.map(tasks).expect("every task has a result");
        for (results, n) in results.chunks(4).zip(0..64) {
            let values: Vec<u64> = results.iter().map(|&(value, _)| value).collect();
            assert_eq!(values, [n, 2 * n, 3 * n, 3000 * n], "each task ran its own function");
            assert!(results.iter().all(|&(_, pid)| pid != own), "each task ran in another process");
        }
        let error = pool.submit(delayed!(fail("as it was told"))).join().expect_err("it panics");
        let message = error.panic().map(|panic| panic.message().to_owned());
        assert_eq!(message.as_deref(), Some("as it was told"), "{error}");
        $crate::say($place);
    }};
}

/// Says on stdout that workers run from such a place.
#[doc(hidden)]
#[expect(clippy::print_stdout, reason = "what the script that runs it looks for")]
pub fn say(place: &str) {
    println!("workers run from {place}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn workers_run_from_a_unit_test() {
        crate::prove!("a unit test");
    }
}
