//! A `main` with an attribute of its own below ours, and a return type that is no name.
use std::process::{ExitCode, Termination};

/// Speaks.
#[procession::main]
#[expect(unused_variables, reason = "it belongs to the body")]
pub fn main() -> impl Termination {
    let unused = 1;
    #[procession::worker]
    fn f() -> u8 {
        1
    }
    assert_eq!(procession::delayed!(f()).call().unwrap(), 1);
    ExitCode::SUCCESS
}
