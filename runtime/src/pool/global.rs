//! The pool of the process, which `parallel!` uses.
//!
//! It is built on first use and lives as long as the process. A worker has one without processes instead.

use std::sync::{Mutex, PoisonError};

use super::Pool;
use crate::{error::Result, sys::per_process::PerProcess};

/// Returns the process's own pool. It is built on first use and kept.
///
/// Inside a worker, calls that name no pool run in the worker.
pub(crate) fn global() -> Result<&'static Pool> {
    static POOL: PerProcess<Pool> = PerProcess::new();
    if crate::context::is_worker() {
        static HERE: PerProcess<Pool> = PerProcess::new();
        return Ok(HERE.get_or_init(Pool::in_process));
    }
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    // If several threads arrive at once, one builds, and the others wait for its pool.
    static BUILDING: PerProcess<Mutex<()>> = PerProcess::new();
    let _building = BUILDING.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = Pool::builder().build()?;
    Ok(POOL.get_or_init(|| pool))
}
