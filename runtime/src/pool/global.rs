//! The pool of the process, behind `parallel!`.

use std::sync::{Mutex, PoisonError};

use super::Pool;
use crate::{error::Result, setting::flag, sys::per_process::PerProcess};

/// `PROCESSION_IN_PROCESS=1`, or this is a worker, whose nested calls run where they are.
///
/// # Errors
///
/// It is neither 0 nor 1.
pub(crate) fn in_process_by_env() -> Result<bool> {
    flag("PROCESSION_IN_PROCESS")
}

/// The process's own pool, behind `parallel!`: made at first use and kept warm.
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
    // Where several threads come at once, one builds, and the others wait for its pool.
    static BUILDING: PerProcess<Mutex<()>> = PerProcess::new();
    let _building = BUILDING.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = Pool::builder().build()?;
    Ok(POOL.get_or_init(|| pool))
}
