//! Names that are no worker's. What the compiler says here is explained in the documentation of `delayed!`.
#![allow(unused)]
use procession::{delayed, parallel, worker};

fn plain(x: u32) -> u32 {
    x
}

struct Job;

mod jobs {}

#[worker]
fn jobs(x: u32) {}

impl Job {
    #[worker]
    fn new(x: u32) -> u32 {
        x
    }
}

fn main() {
    let closure = |x: u32| x;
    let _ = delayed!(plain(1));
    let _ = delayed!(closure(1));
    let _ = parallel!(plain(x) for x in 0..3);
    let _ = delayed!(Job(1));
}
