//! What the examples are built on: [`walk`], the files of a folder; [`content`], what a file is; [`statistics`] of bytes and numbers.
//!
//! The examples themselves lie beside this file, one idea each; `cargo run --example squares` runs the first to read.

pub mod content;
pub mod statistics;
pub mod walk;
