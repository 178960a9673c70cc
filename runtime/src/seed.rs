//! Seeds for random number generators in tasks. A seed depends only on the seed of the call and the index of the task in it, so
//! results do not depend on the number of workers.
//!
//! `pool` and `call` derive seeds here, and workers derive the seeds of their tasks.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

/// The step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// For tasks that are submitted individually. Their seeds differ from those of calls.
const SINGLE: u64 = 0x5EED_0F51_6E91_E5A1;
/// Separates the seeds of calls from other seeds that are derived from the same number.
const CALL: u64 = 0xCA11_5EED_0B1E_55ED;
/// The base for the seeds of calls if neither the call, nor its pool, nor a task sets one.
pub(crate) const DEFAULT: u64 = 0;

thread_local! {
    /// The task that runs on this thread in the process that called it.
    static HERE: Cell<Option<LocalTask>> = const { Cell::new(None) };
}

/// A task that runs in the process that called it.
#[derive(Clone, Copy)]
struct LocalTask {
    /// Its seed.
    number: u64,
    /// The number of calls that it has made.
    calls: u64,
}

/// Numbers calls in the order in which they begin.
#[derive(Debug, Default)]
pub(crate) struct Calls(AtomicU64);

impl Calls {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns the number of a call that begins now.
    pub(crate) fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Restarts at zero.
    #[inline]
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Returns the seed of a call, from its number among the calls whose seeds are derived from `base`.
pub(crate) fn of_call(base: u64, number: u64) -> u64 {
    of(base ^ CALL, number)
}

/// Returns the seed of a task.
pub(crate) fn of(call: u64, index: u64) -> u64 {
    mix(mix(call).wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)))
}

/// Returns the seed for the tasks that are submitted individually to a pool with this seed.
pub(crate) fn of_singles(pool: u64) -> u64 {
    mix(pool ^ SINGLE)
}

/// Returns the seed of the task that runs on this thread, if it runs in the process that called it.
pub(crate) fn here() -> Option<u64> {
    HERE.try_with(Cell::get).ok().flatten().map(|task| task.number)
}

/// Returns the number of a call that begins in the task on this thread, if that task runs in the process that called it.
pub(crate) fn begin_call_here() -> Option<u64> {
    let task = HERE.try_with(Cell::get).ok().flatten()?;
    HERE.set(Some(LocalTask { calls: task.calls + 1, ..task }));
    Some(task.calls)
}

/// Runs a task that has this seed.
pub(crate) fn with<R>(number: u64, run: impl FnOnce() -> R) -> R {
    struct Back(Option<LocalTask>);
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = HERE.try_with(|here| here.set(self.0));
        }
    }
    let _back = Back(HERE.replace(Some(LocalTask { number, calls: 0 })));
    run()
}

/// Mixes the bits of `z`, so that each output bit depends on each input bit. Different inputs have different outputs. This is the
/// last step of SplitMix64.
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
    fn the_calls_of_a_pool_and_their_tasks_have_nothing_in_common() {
        let calls: BTreeSet<u64> = (0..100).map(|number| of_call(DEFAULT, number)).collect();
        assert_eq!(calls.len(), 100);
        let tasks: BTreeSet<u64> =
            calls.iter().flat_map(|&call| (0..100).map(move |index| of(call, index))).collect();
        assert_eq!(tasks.len(), 10_000);
        assert!((0..100).all(|index| !tasks.contains(&of(DEFAULT, index))));
    }

    #[test]
    fn a_task_numbers_its_own_calls() {
        assert_eq!(begin_call_here(), None);
        with(1, || {
            assert_eq!(begin_call_here(), Some(0));
            with(2, || assert_eq!(begin_call_here(), Some(0)));
            assert_eq!(begin_call_here(), Some(1));
            assert_eq!(here(), Some(1));
        });
        with(1, || assert_eq!(begin_call_here(), Some(0)));
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
