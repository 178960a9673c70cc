//! The ways in which processes become workers and end: programs of `bin/` are run, and all their processes are observed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a test that is not run says so")]

mod causes;
mod closed;
mod death;
mod limits;
mod missing;
mod numbers;
mod program;
mod refused;
mod unsignalled;
mod versions;
mod way_in;
