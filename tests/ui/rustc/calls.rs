//! Calls that cannot be: the errors land on the call.
#![allow(unused)]
use procession::{delayed, parallel, worker};

#[worker]
fn add(a: u32, b: u32) -> u32 {
    a + b
}

#[worker]
fn resize(path: &str, #[default(0.5)] scale: f64, #[default(1)] depth: u8) {}

#[worker(instances(<u32>, <String>))]
fn largest<T: Ord>(v: Vec<T>) -> Option<T> {
    v.into_iter().max()
}

fn plain(a: u32) {}

mod jobs {
    #[procession::worker]
    fn private() {}
}

fn main() {
    let _ = delayed!(add(1));
    let _ = delayed!(add(1, 2, 3));
    let _ = delayed!(add(1, "2"));
    let _ = delayed!(add(1, b = 2));
    let _ = delayed!(resize("x", 0.5, 1, 2));
    let _ = delayed!(resize());
    let _ = delayed!(add(1, 2, 3, 4));
    let _ = delayed!(largest());
    let _ = delayed!(largest(vec![1u32], 2));
    let _ = parallel!(add(n, b = 2) for n in 0..3);
    let _ = delayed!(resize("x", 0.5, 1, scale = 2.0));
    let _ = delayed!(resize("x", scal = 0.5));
    let _ = delayed!(resize("x", 0.5, scale = 0.5));
    let _ = delayed!(resize("x", scale = "0.5"));
    let _ = delayed!(resize(scale = 0.5));
    let _ = delayed!(largest(vec![1.5f32.to_bits() as u64]));
    let _ = delayed!(plain(1));
    let _ = delayed!(jobs::private());
    let _ = delayed!(no_such(1));
    let _ = parallel!(add(n) for n in 0..3);
    let _ = parallel!(add(n, 1)? for n in 0..3);
    let _ = parallel!(add(n, n) for n in ["x"]);
    let _ = parallel!(add(n, n) for n in 5u32);
}
