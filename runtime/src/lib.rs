//! Runs ordinary functions in other processes, as easily as joblib does it for Python, with every crash contained.

extern crate self as procession;

mod arity;
mod call_site;
mod claim;
mod codec;
mod dispatch;
mod error;
mod frame;
mod handle;
mod id;
mod launch;
mod marker;
mod panic;
mod parallel;
mod pool;
mod protocol;
mod registry;
mod ring;
mod supervisor;
mod sync;
mod sys;
mod task;
mod transport;
mod worker;

#[cfg(all(any(fuzzing, test), not(loom)))]
#[doc(hidden)]
pub mod __fuzzing;
#[doc(hidden)]
pub mod __private;

pub use error::{Error, Exit, RemoteError, Result, TaskError};
pub use handle::Handle;
pub use id::TaskId;
pub use launch::StartMethod;
pub use panic::RemotePanic;
pub use pool::{Builder, IMap, IMapUnordered, Jobs, Pool};
pub use procession_macros::{main, worker};
pub use task::Task;
pub use worker::{is_cancelled, is_worker, task_id, worker_index};
