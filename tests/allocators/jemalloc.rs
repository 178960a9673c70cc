//! The program of `tests/environments` whose memory comes from jemalloc, which some set up in constructors.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    procession_environments::run(&std::env::args().skip(1).collect::<Vec<_>>())
}
