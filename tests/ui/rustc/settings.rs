//! Settings of the wrong type: the errors land on the value, and say what to write instead.
#![allow(unused)]
use procession::{parallel, worker};

#[worker]
fn f(x: u32) -> u32 {
    x
}

fn main() {
    let half = 0.5;
    let _ = parallel!(timeout = 3; f(x) for x in 0..3);
    let _ = parallel!(jobs = half; f(x) for x in 0..3);
    let _ = parallel!(retries = "twice"; f(x) for x in 0..3);
    let _ = parallel!(on_error = collect; f(x)? for x in 0..3);
}
