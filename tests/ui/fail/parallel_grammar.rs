#![allow(unused)]
use procession::{parallel, worker};

#[worker]
fn f(x: u32) -> Result<u32, procession::RemoteError> {
    Ok(x)
}

fn main() {
    let _ = parallel!();
    let _ = parallel!(jobs = 8, f(x) for x in 0..3);
    let _ = parallel!(jobs = 8 f(x) for x in 0..3);
    let _ = parallel!(jobs = 8, jobs = 9, speed = 11; f(x) for x in 0..3);
    let _ = parallel!(jobs = 0.5, batch = -1e3, order = random, on_error(retry); f(x) for x in 0..3);
    let _ = parallel!(order(sideways); f(x) for x in 0..3);
    let _ = parallel!(order = unordered; f(1), f(2));
    let _ = parallel!(f(1)?, f(2), 3 + 4);
    let _ = parallel!(f(1), f(x) for x in 0..3);
    let _ = parallel!(x.f() for x in 0..3);
    let _ = parallel!(f(x) for x in 0..3 if x > 1 if x > 2);
    let _ = parallel!(f(x) for x in 0..3, f(1));
    let _ = parallel!(f(x) for x of 0..3);
    let _ = parallel!(f(1) f(2));
}
