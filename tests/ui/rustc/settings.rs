//! Settings of the wrong type: the errors land on the value, and say what to write instead.
#![allow(unused)]
use procession::{parallel, worker};

#[worker]
fn f(x: u32) -> u32 {
    x
}

fn main() {
    let half = 0.5;
    let pool = procession::Pool::in_process();
    let _ = parallel!(timeout = 3; f(x) for x in 0..3);
    let _ = parallel!(jobs = half; f(x) for x in 0..3);
    let _ = parallel!(retries = "twice"; f(x) for x in 0..3);
    let _ = parallel!(pool = pool; f(x) for x in 0..3);
    let _ = parallel!(pool = 2; f(x) for x in 0..3);
    let _ = parallel!(jobs = "all"; f(x) for x in 0..3);
    let _ = parallel!(batch = half; f(x) for x in 0..3);
    let _ = parallel!(batch = "large"; f(x) for x in 0..3);
    let _ = parallel!(timeout = half; f(x) for x in 0..3);
    let _ = parallel!(timeout = "3s"; f(x) for x in 0..3);
    let _ = parallel!(timeout = secs("3"); f(x) for x in 0..3);
    let _ = parallel!(timeout = hours(3); f(x) for x in 0..3);
    let _ = parallel!(retries = true; f(x) for x in 0..3);
    let _ = parallel!(seed = "random"; f(x) for x in 0..3);
    let _ = parallel!(verbose = true; f(x) for x in 0..3);
    let _ = parallel!(progress = 5; f(x) for x in 0..3);
    let _ = parallel!(on_error = collect; f(x)? for x in 0..3);
}
