//! What the examples share: [`walk`], the files of a folder, and [`statistics`] of bytes and of numbers.
//!
//! The examples themselves lie beside this file, one idea each; `cargo run --example squares` runs the first to read.

pub mod statistics;
pub mod walk;
