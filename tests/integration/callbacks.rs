//! Callbacks: every public call may be made from code of the user that the library calls, on every thread, and completes there. A call
//! that waits for itself hangs, and `alone` then reports which was called last.
#![expect(unsafe_code, reason = "a waker whose clones call back")]
#![expect(clippy::print_stdout, reason = "a call that hangs is named")]

use std::{
    future::Future as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker},
    time::Duration,
};

use log::{LevelFilter, Log, Metadata, Record};
use procession::{Handle, Pool, Process, delayed, parallel, rng_seed, worker};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    Layer,
    layer::{Context as LayerContext, SubscriberExt as _},
};

use crate::{
    alone::alone,
    event::{take_time, until, until_exists},
    leak::Snapshot,
    scratch::Folder,
};

/// A callback takes this long at the most.
const DEADLINE: Duration = Duration::from_secs(30);

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn nap(millis: u64) -> u64 {
    take_time(Duration::from_millis(millis));
    millis
}

#[worker]
fn wait_for(file: &Path) {
    until_exists(file);
}

/// The name of a public call, and code that makes it.
type PublicCall = (&'static str, fn(&Pool));

/// The functions that a user who has a pool may call.
const CALLS: &[PublicCall] = &[
    ("submit and join", |pool| assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1)),
    ("join with a timeout", |pool| {
        let mut handle = pool.submit(delayed!(nap(5)));
        while handle.join_timeout(Duration::from_millis(1)).is_none() {}
    }),
    ("is_finished and cancel", |pool| {
        let handle = pool.submit(delayed!(nap(60_000)));
        assert!(!handle.is_finished());
        handle.cancel();
        assert!(handle.join().unwrap_err().is_cancelled());
    }),
    ("map", |pool| assert_eq!(pool.map((0..9).map(|n| delayed!(echo(n)))).unwrap().len(), 9)),
    ("imap", |pool| assert_eq!(pool.imap((0..9).map(|n| delayed!(echo(n)))).count(), 9)),
    ("imap, dropped early", |pool| assert!(pool.imap((0..).map(|n| delayed!(echo(n)))).next().is_some())),
    ("imap_unordered", |pool| assert_eq!(pool.imap_unordered((0..9).map(|n| delayed!(echo(n)))).count(), 9)),
    ("parallel!", |pool| assert_eq!(parallel!(pool = pool; echo(n) for n in 0..9).unwrap().len(), 9)),
    ("broadcast", |pool| assert_eq!(pool.broadcast(delayed!(echo(3))).unwrap().len(), pool.jobs())),
    ("resize", |pool| {
        pool.resize(3).unwrap();
        pool.resize(2).unwrap();
    }),
    ("stats", |pool| drop(pool.stats())),
    ("Debug", |pool| drop(format!("{pool:?}"))),
    ("a pool that is joined", |_| {
        let own = Pool::new(1).unwrap();
        let handle = own.submit(delayed!(echo(4)));
        own.join().unwrap();
        assert_eq!(handle.join().unwrap(), 4);
    }),
    ("a pool that is terminated while it is busy", |_| {
        let own = Pool::new(1).unwrap();
        let handle = own.submit(delayed!(nap(60_000)));
        own.terminate();
        assert!(handle.join().is_err());
    }),
    ("a pool that is dropped before its first task", |_| drop(Pool::new(1).unwrap())),
    ("a pool with a finalizer", |_| {
        let own = Pool::builder().jobs(1).finalizer(delayed!(echo(8))).build().unwrap();
        own.submit(delayed!(echo(4))).join().unwrap();
        assert_eq!(own.join_with_exit_results::<u64>().unwrap(), [8]);
    }),
    ("a process that is joined", |_| {
        assert_eq!(Process::spawn(delayed!(echo(5))).unwrap().join().unwrap(), 5);
    }),
    ("a process that is killed", |_| {
        let process = Process::spawn(delayed!(nap(60_000))).unwrap();
        assert!(process.is_alive() && process.exit_status().is_none());
        process.terminate().unwrap();
        process.kill().unwrap();
    }),
    ("a process that is dropped", |_| drop(Process::spawn(delayed!(nap(60_000))).unwrap())),
    ("a process that is detached", |_| Process::spawn(delayed!(echo(5))).unwrap().detach()),
    ("a pool without processes", |_| {
        assert_eq!(Pool::in_process().map([delayed!(echo(1))]).unwrap(), [1]);
    }),
    ("a task that is called", |_| assert_eq!(delayed!(echo(6)).call().unwrap(), 6)),
    ("questions", |_| {
        let _ = (rng_seed(), procession::is_cancelled(), procession::is_worker(), procession::task_id());
    }),
];

/// Makes every call once in a process, and then reports it.
struct Caller {
    pool: Arc<Pool>,
    has_begun: AtomicBool,
    done: Sender<()>,
}

impl Caller {
    fn call(&self, from: &str) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            for (name, call) in CALLS {
                println!("{name}, called from {from}");
                call(&self.pool);
            }
            self.done.send(()).unwrap();
        }
    }
}

/// Plays what has the library call `Caller::call`, and waits until that has made every call.
fn check(play: impl FnOnce(&Arc<Pool>, Arc<Caller>)) {
    let before = Snapshot::take();
    let pool = Arc::new(Pool::new(2).unwrap());
    let (done, is_done) = channel();
    let caller = Arc::new(Caller { pool: pool.clone(), has_begun: AtomicBool::new(false), done });
    play(&pool, caller);
    is_done.recv_timeout(DEADLINE).expect("every call comes to its end");
    drop(pool);
    // What one of the library's own threads has dropped ends by itself, and what was detached, too.
    until("nothing is left", || Snapshot::take() == before);
}

struct Waking(Arc<Caller>);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.0.call("a waker");
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) {
    assert!(Pin::new(future).poll(&mut Context::from_waker(waker)).is_pending());
}

#[test]
fn every_call_completes_in_a_waker_that_the_pools_own_thread_wakes() {
    alone(|| {
        check(|pool, caller| {
            let mut handle = pool.submit(delayed!(nap(20)));
            poll_once(&mut handle, &Waker::from(Arc::new(Waking(caller.clone()))));
            until("the waker is woken", || caller.has_begun.load(Ordering::Relaxed));
        });
    });
}

#[test]
fn every_call_completes_in_a_waker_that_the_end_of_a_process_wakes() {
    alone(|| {
        check(|_, caller| {
            let mut process = Process::spawn(delayed!(nap(20))).unwrap();
            poll_once(&mut process, &Waker::from(Arc::new(Waking(caller.clone()))));
            until("the waker is woken", || caller.has_begun.load(Ordering::Relaxed));
            assert_eq!(process.join().unwrap(), 20);
        });
    });
}

/// Calls while a waker is cloned, and while a clone is dropped.
static CLONED: Mutex<Option<Arc<Caller>>> = Mutex::new(None);
static DROPPED: Mutex<Option<Arc<Caller>>> = Mutex::new(None);

fn call_once(from: &str, of: &Mutex<Option<Arc<Caller>>>) {
    let caller = of.lock().unwrap().take();
    if let Some(caller) = caller {
        caller.call(from);
    }
}

const CALLING: RawWakerVTable = RawWakerVTable::new(
    |data| {
        call_once("a waker's clone", &CLONED);
        RawWaker::new(data, &CALLING)
    },
    |_| {},
    |_| {},
    |_| call_once("a waker's drop", &DROPPED),
);

fn calling_waker() -> Waker {
    // SAFETY: the functions of the table take no notice of the data, and may be called from any thread.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &CALLING)) }
}

#[test]
fn every_call_completes_while_a_waker_is_cloned() {
    alone(|| {
        check(|pool, caller| {
            // It ends while its waker is cloned. The thread that has its result must not wait for the clone, which waits for later tasks.
            let mut handle = pool.submit(delayed!(nap(5)));
            *CLONED.lock().unwrap() = Some(caller);
            let _ = Pin::new(&mut handle).poll(&mut Context::from_waker(&calling_waker()));
        });
    });
}

#[test]
fn every_call_completes_while_a_waker_is_dropped() {
    alone(|| {
        check(|pool, caller| {
            let mut handle = pool.submit(delayed!(nap(300)));
            let waker = calling_waker();
            poll_once(&mut handle, &waker);
            std::mem::forget(waker);
            *DROPPED.lock().unwrap() = Some(caller);
            // This thread waits in its place.
            assert_eq!(handle.join().unwrap(), 300);
        });
    });
}

#[test]
fn every_call_completes_while_a_waker_of_a_process_is_dropped() {
    alone(|| {
        check(|_, caller| {
            let folder = Folder::new();
            let file = folder.path("go");
            let mut process = Process::spawn(delayed!(wait_for(&file))).unwrap();
            let waker = calling_waker();
            poll_once(&mut process, &waker);
            std::mem::forget(waker);
            *DROPPED.lock().unwrap() = Some(caller);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    until("the waker is dropped", || DROPPED.lock().unwrap().is_none());
                    std::fs::write(&file, "").unwrap();
                });
                // This thread waits in its place.
                process.join().unwrap();
            });
        });
    });
}

/// Owns another process, which ends with it. Then it makes the file.
struct Owning(Option<Process<u64>>, PathBuf);

impl Wake for Owning {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Owning {
    fn drop(&mut self) {
        drop(self.0.take());
        std::fs::write(&self.1, "").unwrap();
    }
}

#[test]
fn a_waker_of_a_process_may_own_another_process() {
    alone(|| {
        let before = Snapshot::take();
        let folder = Folder::new();
        let file = folder.path("go");
        let mut process = Process::spawn(delayed!(wait_for(&file))).unwrap();
        let other = Process::spawn(delayed!(nap(60_000))).unwrap();
        // The process has the only reference to the waker, and drops it when this thread waits in its place.
        poll_once(&mut process, &Waker::from(Arc::new(Owning(Some(other), file.clone()))));
        process.join().unwrap();
        drop(process);
        until("nothing is left", || Snapshot::take() == before);
    });
}

/// Calls when a record arrives.
struct Logger(Mutex<Option<Arc<Caller>>>);

static LOGGER: Logger = Logger(Mutex::new(None));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.args().to_string() == "call" {
            call_once("a logger", &self.0);
        }
    }

    fn flush(&self) {}
}

#[worker]
fn log_call() {
    log::info!("call");
}

fn set_logger(caller: Arc<Caller>) {
    log::set_logger(&LOGGER).unwrap();
    log::set_max_level(LevelFilter::Info);
    *LOGGER.0.lock().unwrap() = Some(caller);
}

#[test]
fn every_call_completes_in_a_logger_on_the_thread_that_waits() {
    alone(|| {
        check(|pool, caller| {
            set_logger(caller);
            pool.submit(delayed!(log_call())).join().unwrap();
        });
    });
}

#[test]
fn every_call_completes_in_a_logger_on_the_pools_own_thread() {
    alone(|| {
        check(|pool, caller| {
            set_logger(caller.clone());
            let _handle = pool.submit(delayed!(log_call()));
            until("the logger is called", || caller.has_begun.load(Ordering::Relaxed));
        });
    });
}

#[test]
fn every_call_completes_in_a_logger_that_receives_records_of_a_process() {
    alone(|| {
        check(|_, caller| {
            set_logger(caller);
            Process::spawn(delayed!(log_call())).unwrap().join().unwrap();
        });
    });
}

struct Calling(Arc<Caller>);

impl<S: Subscriber> Layer<S> for Calling {
    fn on_event(&self, _: &Event<'_>, _: LayerContext<'_, S>) {
        self.0.call("a subscriber");
    }
}

#[worker]
fn trace_call() {
    tracing::info!("call");
}

#[test]
fn every_call_completes_in_a_subscriber() {
    alone(|| {
        check(|pool, caller| {
            let subscriber = tracing_subscriber::registry().with(Calling(caller));
            tracing::subscriber::with_default(subscriber, || {
                pool.submit(delayed!(trace_call())).join().unwrap();
            });
        });
    });
}

/// Calls while it is encoded or decoded in the host.
struct Value;

static ENCODED: Mutex<Option<Arc<Caller>>> = Mutex::new(None);
static DECODED: Mutex<Option<Arc<Caller>>> = Mutex::new(None);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        call_once("a Serialize", &ENCODED);
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer)?;
        call_once("a Deserialize", &DECODED);
        Ok(Self)
    }
}

#[worker]
fn pass(value: Value) -> Value {
    value
}

#[test]
fn every_call_completes_while_arguments_are_encoded_and_results_decoded() {
    alone(|| {
        check(|pool, caller| {
            *ENCODED.lock().unwrap() = Some(caller);
            let Value = pool.submit(delayed!(pass(Value))).join().unwrap();
        });
        check(|pool, caller| {
            *DECODED.lock().unwrap() = Some(caller);
            assert_eq!(pool.map((0..3).map(|_| delayed!(pass(Value)))).unwrap().len(), 3);
        });
        check(|pool, caller| {
            *DECODED.lock().unwrap() = Some(caller);
            assert_eq!(pool.imap((0..3).map(|_| delayed!(pass(Value)))).count(), 3);
        });
    });
}

#[test]
fn every_call_completes_in_the_iterator_that_gives_a_call_its_tasks() {
    alone(|| {
        check(|pool, caller| {
            let input = (0..100).map(|n| {
                if n == 50 {
                    caller.call("an iterator");
                }
                delayed!(echo(n))
            });
            assert_eq!(pool.map(input).unwrap().len(), 100);
        });
    });
}

/// Drops the last handle on a pool when it is woken, and counts that the drop has returned.
struct Dropping {
    pools: Mutex<Vec<Pool>>,
    ends: AtomicUsize,
}

impl Wake for Dropping {
    fn wake(self: Arc<Self>) {
        let pools = std::mem::take(&mut *self.pools.lock().unwrap());
        drop(pools);
        self.ends.fetch_add(1, Ordering::Relaxed);
    }
}

fn dropping(pools: Vec<Pool>) -> Arc<Dropping> {
    Arc::new(Dropping { pools: Mutex::new(pools), ends: AtomicUsize::new(0) })
}

#[test]
fn a_pool_that_its_own_thread_drops_in_a_waker_ends_by_itself_and_the_waker_goes_on() {
    alone(|| {
        let before = Snapshot::take();
        for busy in [false, true] {
            let pool = Pool::new(2).unwrap();
            let mut handle = pool.submit(delayed!(nap(50)));
            let other = busy.then(|| pool.submit(delayed!(nap(60_000))));
            let wake = dropping(vec![pool]);
            poll_once(&mut handle, &Waker::from(wake.clone()));
            until("the waker comes to its end", || wake.ends.load(Ordering::Relaxed) == 1);
            assert!(matches!(
                Pin::new(&mut handle).poll(&mut Context::from_waker(Waker::noop())),
                Poll::Ready(Ok(50))
            ));
            if let Some(other) = other {
                assert!(other.join().unwrap_err().is_cancelled());
            }
            until("nothing is left of the pool", || Snapshot::take() == before);
        }
    });
}

#[test]
fn pools_whose_own_threads_drop_each_other_end_both() {
    alone(|| {
        let before = Snapshot::take();
        for _ in 0..10 {
            let pools = [(); 2].map(|()| Pool::new(1).unwrap());
            let mut handles = pools.each_ref().map(|pool| pool.submit(delayed!(nap(20))));
            let [one, two] = pools;
            let wakes = [dropping(vec![two]), dropping(vec![one])];
            for (handle, wake) in handles.iter_mut().zip(&wakes) {
                let _ = Pin::new(handle).poll(&mut Context::from_waker(&Waker::from(wake.clone())));
            }
            let is_over = |handle: &Handle<u64>| handle.is_finished();
            until("both tasks are over", || handles.iter().all(is_over));
            // One of the two may have been dropped before its task had ended, or was polled too late to be woken.
            drop(wakes);
            drop(handles);
            until("nothing is left of the pools", || Snapshot::take() == before);
        }
    });
}
