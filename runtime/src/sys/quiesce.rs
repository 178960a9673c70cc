//! Lets this library's own threads rest while this process is copied by `fork`.
//!
//! A copy has only the thread that made it, and locks held by other threads stay locked there forever. A thread that waits in a
//! system call holds no lock. Each of our threads therefore holds `awake` of [`THREADS`] for reading except while it waits, and the
//! thread that makes a copy holds it for writing.
//!
//! The driver's background thread waits with [`OwnThread::rest`]. `launch` calls [`quiet`].

use std::{
    cell::Cell,
    io,
    sync::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{per_process::PerProcess, procfs::thread_count};
use crate::sync::{if_free, ignore_poison};

/// A copy of this process has none of its threads, and locks held by them stay locked there.
static THREADS: PerProcess<Threads> = PerProcess::new();

#[derive(Debug, Default)]
struct Threads {
    /// Held by the thread that is about to make a copy. A thread that rests, however briefly, then rests on.
    copying: Mutex<()>,
    /// Held for reading by each of our threads that does not rest.
    awake: RwLock<()>,
    /// The number of our threads that have begun. Changed while `awake` is held.
    own: AtomicUsize,
    /// The number of our threads, those included that are about to begin.
    announced: AtomicUsize,
}

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

fn threads() -> &'static Threads {
    THREADS.get_or_init(Threads::default)
}

/// Returns whether this thread is one of ours. Such a thread must not wait for another of them to end, which may wait for it.
pub(crate) fn is_own_thread() -> bool {
    IS_OWN.get()
}

/// One of our threads that is about to begin, which may take a while.
#[derive(Debug)]
pub(crate) struct Announced(());

impl Announced {
    pub(crate) fn new() -> Self {
        threads().announced.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Marks this thread as the one that was announced.
    pub(crate) fn begin(self) -> OwnThread {
        // Not by `wake`: a thread that is about to make a copy waits for it to be counted.
        let awake = ignore_poison(threads().awake.read());
        threads().own.fetch_add(1, Ordering::Relaxed);
        IS_OWN.set(true);
        OwnThread { awake: Some(awake), _announced: self }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        threads().announced.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Marks this thread as one of ours.
#[derive(Debug)]
pub(crate) struct OwnThread {
    awake: Option<RwLockReadGuard<'static, ()>>,
    _announced: Announced,
}

impl OwnThread {
    /// Waits in a way that needs nothing and leaves nothing locked.
    pub(crate) fn rest<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        self.awake = None;
        let result = wait();
        self.awake = Some(wake());
        result
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        // It is never dropped while it rests, because `rest` borrows it.
        threads().own.fetch_sub(1, Ordering::Relaxed);
    }
}

fn wake() -> RwLockReadGuard<'static, ()> {
    let _no_copy = ignore_poison(threads().copying.lock());
    ignore_poison(threads().awake.read())
}

/// While this exists, the thread that holds it is the only one that runs.
#[derive(Debug)]
pub(crate) struct Quiet {
    _copying: MutexGuard<'static, ()>,
    _all_rest: RwLockWriteGuard<'static, ()>,
}

/// The time that our own threads may take to rest, on a loaded machine.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until the other threads are only our own, and these rest. Others have `timeout` to end.
///
/// # Errors
///
/// There are other threads. Returns the number of all threads, or the error that occurred while counting them.
pub(crate) fn quiet(timeout: Duration) -> Result<Quiet, io::Result<usize>> {
    if is_own_thread() {
        // It is awake, and so is never alone.
        return Err(thread_count());
    }
    let begun = Instant::now();
    let mut copying = None;
    loop {
        let mut all_rest = if_free(threads().awake.try_write());
        let count = thread_count().map_err(Err)?;
        let are_ours = count <= 1 + threads().announced.load(Ordering::Relaxed);
        if all_rest.is_some() && count == 1 + threads().own.load(Ordering::Relaxed) {
            // Not by waiting: a thread of ours may hold it and wait for `awake`.
            let copying = copying.take().or_else(|| if_free(threads().copying.try_lock()));
            if let (Some(copying), Some(all_rest)) = (copying, all_rest.take()) {
                return Ok(Quiet { _copying: copying, _all_rest: all_rest });
            }
        }
        // A thread of ours rests sooner or later. A thread that has just ended is counted, so it is waited for, too.
        if begun.elapsed() > if are_ours { REST_TIMEOUT } else { timeout } {
            return Err(Ok(count));
        }
        drop(all_rest);
        // Ours rest on from now on. While there are others they must not: another thread may wait for what one of ours does.
        copying = are_ours.then(|| copying.unwrap_or_else(|| ignore_poison(threads().copying.lock())));
        std::thread::sleep(Duration::from_millis(1));
    }
}
