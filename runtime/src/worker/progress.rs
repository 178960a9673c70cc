//! Defines [`report_progress`], which sends the progress of the running task to the host, at a limited rate.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::host_link::send;
use crate::{context::running_seq, protocol::Notice};

/// The host shows progress.
static WANTED: AtomicBool = AtomicBool::new(false);
/// The task that reported last, and when.
static LAST: Mutex<Option<(u32, Instant)>> = Mutex::new(None);

/// The minimum time between two reports of one task. More would not be visible.
const PAUSE: Duration = Duration::from_millis(50);

/// Sets whether the progress of the following tasks is shown.
pub(super) fn set_wanted(wanted: bool) {
    WANTED.store(wanted, Ordering::Relaxed);
}

/// Reports how much of the running task is done, as a fraction from 0 to 1.
///
/// The fraction is shown by the setting `progress` of [`parallel!`](crate::parallel) and by `verbose` from 50. Values outside the
/// range are clamped. Reports are limited to what a person can see. If they are not shown, and outside of workers, the function
/// does nothing.
///
/// # Examples
///
/// ```
/// use procession::{parallel, report_progress, worker};
///
/// #[worker]
/// fn simulate(steps: u32) -> u32 {
///     for step in 0..steps {
///         // ... one step ...
///         report_progress(f64::from(step + 1) / f64::from(steps));
///     }
///     steps
/// }
///
/// assert_eq!(parallel!(jobs = 1, progress = "simulating"; simulate(n * 100) for n in 1..3)?, [100, 200]);
/// # Ok::<(), procession::Error>(())
/// ```
pub fn report_progress(fraction: impl Into<f64>) {
    if WANTED.load(Ordering::Relaxed) {
        report(fraction.into());
    }
}

#[cold]
fn report(fraction: f64) {
    let Some(seq) = running_seq().filter(|_| !fraction.is_nan()) else { return };
    let now = Instant::now();
    {
        // One thread at a time reports. A report that is skipped meanwhile is no loss.
        let Ok(mut last) = LAST.try_lock() else { return };
        let is_early = last.is_some_and(|(of, at)| of == seq && now.duration_since(at) < PAUSE);
        if is_early && fraction < 1.0 {
            return;
        }
        *last = Some((seq, now));
    }
    send(&Notice::Progress { seq, fraction: fraction.clamp(0.0, 1.0) });
}
