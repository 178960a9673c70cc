//! Numbers for generators of random numbers: a function of a call's seed and of the task's index in it, and of nothing else, so that
//! what is drawn does not depend on how many workers there are.

use std::cell::Cell;

/// The step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// Tasks that were handed in singly are no call's: their numbers are others.
const SINGLE: u64 = 0x5EED_0F51_6E91_E5A1;
/// The seed of a call that was given none.
pub(crate) const DEFAULT: u64 = 0;

thread_local! {
    /// The number of the task that runs on this thread in the process that called it.
    static HERE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The number of a task.
pub(crate) fn of(call: u64, index: u64) -> u64 {
    mix(mix(call).wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)))
}

/// The seed of the tasks that are handed in singly to a pool of this seed.
pub(crate) fn of_singles(pool: u64) -> u64 {
    mix(pool ^ SINGLE)
}

/// The number of the task that runs on this thread, if it runs in the process that called it.
pub(crate) fn here() -> Option<u64> {
    HERE.try_with(Cell::get).ok().flatten()
}

/// Runs a task that has this number.
pub(crate) fn with<R>(number: u64, run: impl FnOnce() -> R) -> R {
    struct Back(Option<u64>);
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = HERE.try_with(|here| here.set(self.0));
        }
    }
    let _back = Back(HERE.replace(Some(number)));
    run()
}

/// Each bit of the outcome depends on each bit of `z`, and no two numbers come to the same: the finish of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neighbours_have_nothing_in_common() {
        let all: BTreeSet<u64> =
            (0..100).flat_map(|call| (0..100).map(move |index| of(call, index))).collect();
        assert_eq!(all.len(), 10_000);
        let ones: u32 = (0..1000).map(|index| (of(1, index) ^ of(1, index + 1)).count_ones()).sum();
        assert!((30_000..34_000).contains(&ones), "{ones} of 64,000 bits differ");
        assert!((0..100).all(|index| !all.contains(&of(of_singles(0), index))));
    }

    #[test]
    fn a_task_in_a_task_has_its_own_number_and_gives_it_back() {
        assert_eq!(here(), None);
        with(1, || {
            assert_eq!(here(), Some(1));
            let caught = std::panic::catch_unwind(|| with(2, || panic!("{:?}", here())));
            assert_eq!(*caught.unwrap_err().downcast::<String>().unwrap(), "Some(2)");
            assert_eq!(here(), Some(1));
        });
        assert_eq!(here(), None);
    }
}
