//! Values whose last owner has gone, and that wait for a place where code of users may run.
//!
//! A segment may be dropped anywhere, also while a driver is locked. The destructor of its value is code of users.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::Value;
use crate::{
    sync::ignore_poison,
    sys::{memory::View, per_process::PerProcess},
};

/// The values, each before the memory that it borrows. A copy of this process leaves those that it has inherited alone.
static DEAD: PerProcess<Mutex<Vec<Dead>>> = PerProcess::new();

/// A value, and the memory that it borrows.
type Dead = (Value, Arc<View>);

/// There are some. A hint.
static HAS_DEAD: AtomicBool = AtomicBool::new(false);

/// Keeps a value until [`bury`] is called.
pub(super) fn bury_later(value: Value, view: Arc<View>) {
    ignore_poison(DEAD.get_or_init(Mutex::default).lock()).push((value, view));
    HAS_DEAD.store(true, Ordering::Relaxed);
}

/// Drops the values that wait for it. Called where no lock is held.
pub(crate) fn bury() {
    if HAS_DEAD.load(Ordering::Relaxed) && HAS_DEAD.swap(false, Ordering::Relaxed) {
        let dead = DEAD.get().map(|dead| std::mem::take(&mut *ignore_poison(dead.lock())));
        for value in dead.into_iter().flatten() {
            // The panic hook has reported it. It concerns no task.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                std::mem::forget(payload);
            }
        }
    }
}

/// Calls [`bury`] on drop: the last field of what users own.
#[derive(Clone, Debug)]
pub(crate) struct Bury;

impl Drop for Bury {
    fn drop(&mut self) {
        bury();
    }
}
