#![allow(unused)]
use procession::{delayed, parallel, worker};

#[worker]
fn f(x: u32, #[default(1)] y: u32) {}

fn main() {
    let v = vec![1];
    let _ = delayed!();
    let _ = delayed!(f);
    let _ = delayed!(v.len());
    let _ = delayed!(|| 1);
    let _ = delayed!(format!("x"));
    let _ = delayed!(f(1), f(2));
    let _ = delayed!(f(y = 1, 2, y = 3));
    let _ = delayed!(f(1, y.z = 3));
    let _ = delayed!((|| 1)());
    let _ = delayed!(f(1, _));
    let _ = delayed!(f(_, y = 1));
    let _ = parallel!(f(_) for x in v);
}
