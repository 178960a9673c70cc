//! Runs ordinary Rust functions in other processes, as easily as joblib does it for Python, with every crash contained.
//!
//! # A first program
//!
//! ```
//! use procession::{parallel, worker};
//!
//! /// Counts the steps that the Collatz sequence takes from `n` to 1.
//! #[worker]
//! fn collatz(n: u64) -> u32 {
//!     match n {
//!         1 => 0,
//!         n if n % 2 == 0 => 1 + collatz(n / 2),
//!         n => 1 + collatz(3 * n + 1),
//!     }
//! }
//!
//! fn main() -> procession::Result<()> {
//!     let steps: Vec<u32> = parallel!(collatz(n) for n in 1..10_000)?;
//!     println!("the longest sequence takes {} steps", steps.iter().max().unwrap());
//! #   assert_eq!(steps.iter().max(), Some(&261));
//!     Ok(())
//! }
//! ```
//!
//! [`#[worker]`](macro@worker) makes a function callable in other processes. The function itself does not change: `collatz(27)` is still a
//! plain call.
//!
//! [`parallel!`] runs a comprehension on a pool of worker processes and returns the results in the order of the input. The pool belongs to
//! the process. It is started on first use, has one worker per CPU, and stays warm for the next call.
//!
//! A worker is the same program, executed again. It looks up `collatz` in a table made by the linker, before `main` is reached, and never
//! runs `main`. Arguments and results are encoded with serde and travel through shared memory.
//!
//! # Pools
//!
//! A [`Pool`] of your own has its own settings. [`delayed!`] makes a [`Task`], which is one call of a function that has not run yet:
//!
//! ```
//! use std::time::Duration;
//! use procession::{Pool, delayed, worker};
//!
//! #[worker]
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! # fn main() -> procession::Result<()> {
//! let pool = Pool::builder()
//!     .jobs(2)
//!     .memory_limit(1 << 30) // bytes for each worker
//!     .max_tasks_per_worker(1000) // then the worker is replaced
//!     .build()?;
//!
//! // All results, in order.
//! assert_eq!(pool.map((1..=3).map(|n| delayed!(square(n))))?, [1, 4, 9]);
//!
//! // An iterator over the results. The input is read only as far as needed, so it may be endless.
//! for result in pool.imap((1..).map(|n| delayed!(square(n)))).take(3) {
//!     println!("{}", result?);
//! }
//!
//! // One task.
//! let handle = pool.submit(delayed!(square(7)));
//! assert_eq!(handle.join()?, 49);
//! # Ok(())
//! # }
//! ```
//!
//! Pass a pool to `parallel!` with `parallel!(pool = &pool; square(n) for n in 1..=3)`. Other settings of a call, such as `jobs`,
//! `retries`, `order` and `progress`, are listed at [`parallel!`].
//!
//! # Errors
//!
//! A task fails with a [`TaskError`], and only that task fails. After a panic the worker continues. After a crash (a signal, `abort`,
//! `exit`, a stack overflow) another worker takes its place, and tasks that were waiting behind the failed one run elsewhere.
//!
//! ```
//! use procession::{parallel, worker};
//!
//! #[worker]
//! fn divide(a: u32, b: u32) -> u32 {
//!     if a > 100 {
//!         std::process::abort();
//!     }
//!     a / b
//! }
//!
//! # fn main() -> procession::Result<()> {
//! let results = parallel!(on_error = collect; divide(a, b) for (a, b) in [(6, 2), (6, 0), (101, 1)])?;
//! assert_eq!(results[0].as_ref().unwrap(), &3);
//!
//! let panicked = results[1].as_ref().unwrap_err();
//! assert!(panicked.is_panic());
//! println!("{panicked}"); // task 1 of `divide` panicked in worker 0 (pid 4242): attempt to divide by zero ...
//!
//! let crashed = results[2].as_ref().unwrap_err();
//! assert!(crashed.is_crash());
//! assert_eq!(crashed.exit().unwrap().to_string(), "SIGABRT");
//! # Ok(())
//! # }
//! ```
//!
//! Without `on_error = collect`, the first failure ends the call and is returned as an [`Error`]. A function may also return a `Result`
//! of its own. A `?` after the call, as in `parallel!(f(x)? for x in xs)`, then returns the function's first `Err`. [`RemoteError`]
//! carries errors of any type across processes.
//!
//! # Timeouts and cancelling
//!
//! [`Builder::task_timeout`] limits how long a task may run. A task that exceeds the limit learns of it through [`is_cancelled`]. If it does
//! not return, its process is terminated and then killed. [`Handle::cancel`] stops a task in the same way.
//!
//! ```
//! use std::time::Duration;
//! use procession::{parallel, worker};
//!
//! #[worker]
//! fn hang() {
//!     std::thread::sleep(Duration::from_secs(3600));
//! }
//!
//! let error = parallel!(timeout = millis(50); hang() for _ in 0..1).unwrap_err();
//! assert!(error.as_task_error().unwrap().is_timeout());
//! ```
//!
//! # Async
//!
//! A [`Handle`] is a [`Future`]. It works on any executor and blocks no thread:
//!
//! ```
//! use procession::{Pool, delayed, worker};
//!
//! #[worker]
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! # pollster::block_on(async {
//! let pool = Pool::new(2)?;
//! let (a, b) = (pool.submit(delayed!(square(3))), pool.submit(delayed!(square(4))));
//! assert_eq!(a.await? + b.await?, 25);
//! # Ok::<(), procession::Error>(())
//! # }).unwrap();
//! ```
//!
//! The feature `futures` adds `Pool::stream` and the awaiting of channels, and the feature `tokio` allows `async` functions as workers.
//!
//! # Processes
//!
//! A [`Process`] runs one function in a process of its own, like `multiprocessing.Process` in Python:
//!
//! ```
//! use std::time::Duration;
//! use procession::{Process, delayed, worker};
//!
//! #[worker]
//! fn serve() {
//!     loop {
//!         std::thread::park();
//!     }
//! }
//!
//! # fn main() -> procession::Result<()> {
//! let mut server = Process::spawn(delayed!(serve()))?;
//! assert!(server.is_alive());
//! assert!(server.join_timeout(Duration::from_millis(10)).is_none());
//! server.terminate()?;
//! assert_eq!(server.join().unwrap_err().exit().unwrap().to_string(), "SIGTERM");
//! # Ok(())
//! # }
//! ```
//!
//! A dropped `Process` is killed. No worker and no process outlives the process that started it, even if that is killed.
//!
//! # Cargo features
//!
//! All are off by default.
//!
//! - `futures`: adds `Pool::stream` and `Pool::stream_unordered`, which return results as a `Stream`, and `Receiver::recv_async`,
//!   `Receiver::into_stream` and `Sender::send_async`, which await channels.
//! - `indicatif`: draws the bar of the setting `progress` of [`parallel!`] if stderr is a terminal. Without the feature nothing is drawn,
//!   and a line on stderr says why.
//! - `ndarray`: adds `SharedSlice::view`, `SharedSliceMut::view_mut` and their relatives, which show shared elements as arrays.
//! - `tracing`: forwards events and spans that functions create with `tracing` in workers to this process's subscriber. They keep their
//!   typed fields, target, module, file, line and level, gain the fields `worker`, `pid` and `task`, and appear under the span in which the
//!   task was submitted. Levels that the subscriber has turned off cost nothing in workers. Workers forward only if this process has a
//!   subscriber when they start. A forwarded span is entered only around its events.
//! - `tokio`: allows `#[worker] async fn`. The function stays an `async fn` for its callers. In a worker it runs to completion on a
//!   runtime with one thread, timers and sockets, created for the first such task. Tasks that it spawns and does not await are paused
//!   until the next `async` task runs in that worker, and end with the worker. In a pool without processes the calling thread is blocked,
//!   or another thread if the calling thread already runs a runtime.
#![cfg_attr(
    feature = "tokio",
    doc = r##"

```
use std::time::Duration;
use procession::{Pool, delayed, worker};

#[worker]
async fn later(n: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(n)).await;
    n
}

let pool = Pool::new(2)?;
assert_eq!(pool.map([3, 1, 2].map(|n| delayed!(later(n))))?, [3, 1, 2]);
# Ok::<(), procession::Error>(())
```
"##
)]
//!
//! # Environment variables
//!
//! | variable | meaning |
//! |---|---|
//! | `PROCESSION_JOBS` | the default number of workers, as for [`Builder::jobs`]: a number, or `-1` for all CPUs, `-2` for all but one |
//! | `PROCESSION_START_METHOD` | the default [`StartMethod`]: `spawn`, `forkserver` or `fork` |
//! | `PROCESSION_IN_PROCESS` | `1` runs every call in the calling process, so that breakpoints, coverage and Valgrind work |
//! | `PROCESSION_VERBOSE` | the default of `verbose` in [`parallel!`] and [`Pool::map`]: how much each call reports on stderr |
//! | `PROCESSION_TRACE` | the file to which a timeline of every task is written, in the format of Perfetto and chrome://tracing |
//! | `PROCESSION_SHARE_BYTES` | the size in bytes from which arguments of numbers (`&[f64]`), and of bytes and text when they are given again, are shared without being asked: a number from 65536 (default: 1048576), or `never` |
//! | `PROCESSION_TRANSPORT` | `memory` (default) or `socket`: how hosts and workers exchange data |
//! | `PROCESSION_WAIT_FOR_DEBUGGER` | `1` makes each worker print its pid and wait for a debugger before its first task |
//!
//! An invalid value is an error when a pool is built or a process is spawned. A program that is setuid or has file capabilities ignores
//! all of them. The variables `PROCESSION_CPUS` and `PROCESSION_DEPTH` are set by the library in the environment of workers. They divide
//! the CPUs among nested pools, and limit how deeply pools may be nested.
//!
//! # Limits
//!
//! - Linux 5.4 or later, on 64-bit machines.
//! - A task calls a function, not a closure. The function receives its arguments by value or lent, and shares nothing else with the
//!   caller. A `static` has a separate value in each process.
//! - Arguments and results are encoded in a compact format that does not describe itself. Types that need a self-describing format
//!   (`#[serde(flatten)]`, untagged enums, `serde_json::Value`) fail with an error that says so.
//! - Workers start before `main`, when constructors of other crates may not have run. [`#[procession::main]`](macro@main) makes them
//!   start in `main` instead.
//! - A task is started once, unless [`Builder::retries`] allows more attempts.
//!
//! # Where to read more
//!
//! - [`Builder`]: every setting of a pool. [`parallel!`]: every setting of a call.
//! - [`StartMethod`]: how workers are started, and how they share what is loaded once.
//! - [`Output`]: where the output of workers goes. [`Pool::stats`]: where the time goes.
//! - [`rng_seed`]: random numbers that do not depend on the number of workers.
//! - The folder `docs` of the repository has pages on architecture, debugging, environments and the move from Python's libraries.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("procession runs on Linux only: its workers need memfd, futexes, epoll and pidfds");

extern crate self as procession;

mod arity;
mod batch;
mod call;
mod caller;
mod captured;
mod channel;
mod codec;
mod context;
mod dispatch;
mod driver;
mod error;
mod escape;
#[cfg(feature = "tokio")]
mod executor;
mod frame;
mod handle;
mod id;
mod launch;
mod locks;
mod macros;
pub mod manager;
mod marker;
mod observe;
mod panic;
mod parallel;
mod pool;
mod process;
mod protocol;
mod registry;
mod ring;
mod sample;
mod scheduler;
mod seed;
mod segment;
mod setting;
mod shared;
mod start;
mod supervisor;
mod sync;
mod sys;
mod task;
mod terminal;
mod transport;
mod worker;

#[cfg(all(any(fuzzing, test), not(loom)))]
#[doc(hidden)]
pub mod __fuzzing;
#[doc(hidden)]
pub mod __private;

pub use captured::Captured;
#[cfg(feature = "futures")]
pub use channel::ReceiverStream;
pub use channel::{
    IntoIter, Iter, Pipe, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender,
    TryIter, TryRecvError, TrySendError, channel, pipe,
};
pub use codec::path;
pub use context::{is_cancelled, is_worker, rng_seed, task_id, worker_index};
pub use error::{Error, Exit, RemoteError, Result, TaskError};
pub use handle::Handle;
pub use id::TaskId;
pub use launch::{Output, StartMethod};
pub use locks::{
    BarrierWaitResult, BrokenBarrier, OwnerDied, SharedAtomicBool, SharedAtomicI32, SharedAtomicI64,
    SharedAtomicIsize, SharedAtomicU32, SharedAtomicU64, SharedAtomicUsize, SharedBarrier, SharedCondvar,
    SharedEvent, SharedMutex, SharedMutexGuard, SharedRwLock, SharedRwLockReadGuard, SharedRwLockWriteGuard,
    SharedSemaphore, SharedSemaphorePermit, WaitTimeoutResult,
};
pub use manager::{Counter, Dict, List, Manager, Namespace, Queue};
pub use observe::stats::{SlowTask, Stats, WorkerStats};
pub use panic::RemotePanic;
pub use pool::{Builder, IMap, IMapUnordered, Jobs, ParseJobsError, Pool};
#[cfg(feature = "futures")]
pub use pool::{ResultStream, ResultStreamUnordered};
pub use process::{Process, ProcessBuilder};
pub use procession_macros::{main, worker};
pub use shared::{ChunksMut, Fd, Part, Shared, SharedSlice, SharedSliceMut};
pub use task::{Task, Update};
pub use worker::report_progress;
