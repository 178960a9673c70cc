//! The program of `tests/environments` whose memory comes from mimalloc, which some set up in constructors.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    procession_environments::run(&std::env::args().skip(1).collect::<Vec<_>>())
}
