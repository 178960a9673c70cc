//! Runs ordinary functions in other processes, as easily as joblib does it for Python, with every crash contained.

extern crate self as procession;

mod arity;
mod call_site;
mod codec;
mod dispatch;
mod error;
mod id;
mod panic;
mod parallel;
mod pool;
mod registry;
mod task;

#[doc(hidden)]
pub mod __private;

pub use error::{Error, Exit, RemoteError, Result, TaskError};
pub use id::TaskId;
pub use panic::RemotePanic;
pub use pool::{Jobs, Pool};
pub use procession_macros::{main, worker};
pub use task::Task;
