//! The program that `ci/environments.sh` runs. Its arguments name the parts to try.

use std::process::ExitCode;

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    procession_environments::run(&parts)
}
