//! Code that the examples share: [`walk`] lists the files of a folder, [`content`] classifies a file, and [`statistics`] is for bytes and numbers.
//!
//! The examples are beside this file, one idea each. Start with `cargo run --example squares`.

pub mod content;
pub mod statistics;
pub mod walk;
