//! Runs ordinary functions in other processes, as easily as joblib does it for Python, with every crash contained.
//!
//! # Features
//!
//! All are off by default.
//!
//! - `futures`: `Pool::stream` and `Pool::stream_unordered`, the twins of `imap` for those who await. (That a [`Handle`] is a
//!   future needs no feature.)
//! - `indicatif`: the bar that the setting `progress` of [`parallel!`] draws if stderr is a terminal. Without the feature
//!   nothing is drawn, and a line on stderr says why.
//! - `tracing`: events and spans that functions make by `tracing` in workers reach this process's subscriber: with their fields, of
//!   their types, with target, module, file, line and level, and with the fields `worker`, `pid` and `task`; under the span in which the task was
//!   handed in. Spans made in workers are made here again. What no subscriber here wants to know of, by the most verbose level of all, costs
//!   nothing in workers. A worker's subscriber is installed before its first task if this process has one then; a span's
//!   times are those of its making and of its end, and it is entered around its events only.
//! - `tokio`: `#[worker] async fn`. The function stays an `async fn` for those who call it; in a worker it runs to its end on a runtime
//!   of the worker's own (one thread, with what tokio's features `time` and `net` give), which is made at the first such task. What it
//!   has spawned and not awaited stands still until the next `async` task runs there, and ends with the worker. Without processes
//!   it blocks the calling thread; where a runtime is at work there, on a thread of its own.
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
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("procession runs on Linux only: its workers need memfd, futexes, epoll and pidfds");

extern crate self as procession;

mod arity;
mod caller;
mod captured;
mod codec;
mod dispatch;
mod error;
mod escape;
#[cfg(feature = "tokio")]
mod executor;
mod frame;
mod handle;
mod id;
mod launch;
mod macros;
mod marker;
mod panic;
mod parallel;
mod pool;
mod process;
mod protocol;
mod registry;
mod ring;
mod sample;
mod seed;
mod setting;
mod supervisor;
mod sync;
mod sys;
mod task;
mod terminal;
mod transcript;
mod transport;
mod worker;

#[cfg(all(any(fuzzing, test), not(loom)))]
#[doc(hidden)]
pub mod __fuzzing;
#[doc(hidden)]
pub mod __private;

pub use captured::Captured;
pub use codec::path;
pub use error::{Error, Exit, RemoteError, Result, TaskError};
pub use handle::Handle;
pub use id::TaskId;
pub use launch::{Output, StartMethod};
pub use panic::RemotePanic;
pub use pool::{Builder, IMap, IMapUnordered, Jobs, ParseJobsError, Pool, SlowTask, Stats, WorkerStats};
#[cfg(feature = "futures")]
pub use pool::{ResultStream, ResultStreamUnordered};
pub use process::{Process, ProcessBuilder};
pub use procession_macros::{main, worker};
pub use task::Task;
pub use worker::{is_cancelled, is_worker, report_progress, rng_seed, task_id, worker_index};
