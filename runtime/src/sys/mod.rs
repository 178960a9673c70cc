//! System calls, one family a file, over `nix`: safe signatures, `io::Result`.

pub(crate) mod buffer_cache;
pub(crate) mod cpu;
pub(crate) mod env;
pub(crate) mod fd;
pub(crate) mod futex;
pub(crate) mod generation;
pub(crate) mod held;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod pass;
pub(crate) mod per_process;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod quiesce;
pub(crate) mod signal;
