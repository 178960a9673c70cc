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
    let _ = parallel!(retries = 1.0, seed = 2.5, verbose = -0.1, on_error = 3, order = "unordered"; f(x) for x in 0..3);
    let _ = parallel!(pool = &p, pool = &p, batch = 1, batch = 2, timeout = t, timeout = t, retries = 1, retries = 1; f(1));
    let _ = parallel!(seed = 1, seed = 1, verbose = 1, verbose = 1, progress = "", progress = ""; f(1));
    let _ = parallel!(order = ordered, order = ordered, on_error = stop, on_error(stop); f(x) for x in 0..3);
    let _ = parallel!(n_jobs = 4, chunk_size = 3, backend = "loky"; f(x) for x in 0..3);
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
