//! A `?` in `parallel!` on a function whose error type cannot represent the failure of a task. The error says what to write instead.
#![allow(unused)]
use procession::{parallel, worker};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Missing(String);

#[worker]
fn find(word: &str) -> Result<u32, Missing> {
    Err(Missing(word.to_owned()))
}

fn first() -> Result<Vec<u32>, Missing> {
    parallel!(find(word)? for word in ["a", "b"])
}

fn every() -> procession::Result<Vec<Result<u32, Missing>>> {
    parallel!(on_error = collect; find(word)? for word in ["a", "b"])
}

fn main() {}
