//! System calls, one family per file, mostly through `nix`: safe signatures that return `io::Result`.
//!
//! Every other module may use it. It knows nothing about tasks, workers or the protocol, and imports nothing from modules above it.

pub(crate) mod buffer_cache;
pub(crate) mod child;
pub(crate) mod cpu;
pub(crate) mod env;
pub(crate) mod exit;
pub(crate) mod fault;
pub(crate) mod fd;
pub(crate) mod file_lock;
pub(crate) mod futex;
pub(crate) mod generation;
pub(crate) mod held;
pub(crate) mod identified;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod pass;
pub(crate) mod per_process;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod quiesce;
pub(crate) mod signal;
pub(crate) mod spin;
pub(crate) mod thread;
