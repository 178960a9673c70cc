//! The tests are the targets of this package's manifest.

/// The program of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
