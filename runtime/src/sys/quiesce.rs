//! This library's own threads, which may sleep while this process is copied by `fork`.
//!
//! A copy has only the thread that made it, and what another had locked there stays locked for ever. A thread that is known to wait in
//! a system call has nothing locked: so each of ours holds `awake` of [`THREADS`] for reading, but while it waits, and whoever makes a copy holds it
//! for writing meanwhile.

use std::{
    cell::Cell,
    io,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{per_process::PerProcess, procfs::thread_count};

/// A copy of this process has none of its threads, and what they had locked stays locked there.
static THREADS: PerProcess<Threads> = PerProcess::new();

#[derive(Debug, Default)]
struct Threads {
    /// Held for reading by each of our threads that does not rest.
    awake: RwLock<()>,
    /// How many threads of ours there are. Changed with `awake` held.
    own: AtomicUsize,
}

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

fn threads() -> &'static Threads {
    THREADS.get_or_init(Threads::default)
}

/// Whether this thread is one of ours: it must not wait for another of ours to end, which may wait for it.
pub(crate) fn is_own_thread() -> bool {
    IS_OWN.get()
}

/// This thread is one of ours.
#[derive(Debug)]
pub(crate) struct OwnThread(Option<RwLockReadGuard<'static, ()>>);

impl OwnThread {
    pub(crate) fn new() -> Self {
        let awake = wake();
        threads().own.fetch_add(1, Ordering::Relaxed);
        IS_OWN.set(true);
        Self(Some(awake))
    }

    /// Waits, in a way that needs nothing and leaves nothing locked.
    pub(crate) fn rest<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        self.0 = None;
        let result = wait();
        self.0 = Some(wake());
        result
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        // Never dropped while it rests: `rest` has it.
        threads().own.fetch_sub(1, Ordering::Relaxed);
    }
}

fn wake() -> RwLockReadGuard<'static, ()> {
    threads().awake.read().unwrap_or_else(PoisonError::into_inner)
}

/// While this is held, this thread is the only one that runs.
#[derive(Debug)]
pub(crate) struct Quiet {
    _all_rest: RwLockWriteGuard<'static, ()>,
}

/// Waits, at most so long, until this thread is the only one but for those of ours, and these rest.
///
/// # Errors
///
/// There are others; how many threads there are in all comes back, or what went wrong as they were counted.
pub(crate) fn quiet(timeout: Duration) -> Result<Quiet, io::Result<usize>> {
    let deadline = Instant::now() + timeout;
    loop {
        let all_rest = match threads().awake.try_write() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let count = thread_count().map_err(Err)?;
        // One that has just ended or just begun is counted and is none of ours: it is waited for.
        match all_rest {
            Some(all_rest) if count == 1 + threads().own.load(Ordering::Relaxed) => {
                return Ok(Quiet { _all_rest: all_rest });
            }
            _ if Instant::now() > deadline => return Err(Ok(count)),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
