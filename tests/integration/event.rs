//! Waiting for what happens, never for a time.

use std::{
    path::Path,
    thread::park_timeout,
    time::{Duration, Instant},
};

/// The smallest of executors.
pub(crate) use pollster::block_on;

/// The time within which an event must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(within(DEADLINE, is_so), "this did not come about: {what}");
}

/// Waits until the condition holds, for at most this time. Returns whether it does.
pub(crate) fn within(timeout: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        park_timeout(Duration::from_millis(1));
    }
}

/// Waits for a file that another process makes.
#[track_caller]
pub(crate) fn until_exists(path: &Path) {
    until(&format!("{} exists", path.display()), || path.exists());
}

/// The workload of a task that takes this long.
pub(crate) fn take_time(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        park_timeout(left);
    }
}

/// The process exists, zombies included.
pub(crate) fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
