//! The same program, whose workers start in `main`.
#![expect(unsafe_code, reason = "constructors, and closing descriptors that nothing owns")]
#![expect(
    clippy::exit,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it is a program that misbehaves when told to"
)]

mod scenes;

#[procession::main]
fn main() {
    scenes::play();
}
