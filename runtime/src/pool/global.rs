//! The pool of the process, which `parallel!` uses.
//!
//! It is built on first use and lives as long as the process. If other code has closed its descriptors, the next call builds another
//! one. A worker has one without processes instead.

use std::sync::Mutex;

use super::Pool;
use crate::{error::Result, sync::ignore_poison, sys::per_process::PerProcess};

/// Returns the process's own pool. It is built on first use and kept.
///
/// Inside a worker, calls that name no pool run in the worker.
pub(crate) fn global() -> Result<&'static Pool> {
    if crate::context::is_worker() {
        static HERE: PerProcess<Pool> = PerProcess::new();
        return Ok(HERE.get_or_init(Pool::in_process));
    }
    static POOL: PerProcess<Mutex<Option<&'static Pool>>> = PerProcess::new();
    // If several threads arrive at once, one builds, and the others wait for its pool.
    let mut pool = ignore_poison(POOL.get_or_init(Mutex::default).lock());
    if let Some(pool) = pool.filter(|pool| !pool.is_broken_down()) {
        return Ok(pool);
    }
    Ok(pool.insert(Box::leak(Box::new(Pool::builder().build()?))))
}
