//! The tests are the targets of this package's manifest.

/// The variable by which a process learns that it is a worker of this version of procession.
pub const MARKER: &str = concat!(
    "PROCESSION_",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "_",
    env!("CARGO_PKG_VERSION_MINOR"),
    "_",
    env!("CARGO_PKG_VERSION_PATCH"),
    "_WORKER"
);

/// The program of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
