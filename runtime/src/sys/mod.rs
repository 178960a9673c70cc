//! System calls, one family a file, over `nix`: safe signatures, `io::Result`.

pub(crate) mod fd;
pub(crate) mod futex;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod per_process;
pub(crate) mod process;
pub(crate) mod rest;
pub(crate) mod signal;
pub(crate) mod spare;
