//! System calls, one family a file, over `nix`: safe signatures, `io::Result`.

pub(crate) mod fd;
#[cfg_attr(any(not(test), loom), expect(dead_code, reason = "the transport over shared memory comes next"))]
pub(crate) mod futex;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod signal;
