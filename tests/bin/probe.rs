//! A program for tests to run, whose workers start before `main`.
#![expect(unsafe_code, reason = "constructors, and closing descriptors that nothing owns")]
#![expect(
    clippy::exit,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it is a program that misbehaves when told to"
)]

mod scenes;

fn main() {
    scenes::play();
}
