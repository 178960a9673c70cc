//! Mutable references that no worker can be given.
#![allow(unused)]
use procession::worker;

#[worker]
fn whole(v: &mut Vec<f32>) {}

#[worker]
fn within(v: Option<&mut [u8]>, w: &[&mut [u8]]) {}

#[worker]
fn for_ever(v: &'static mut [u8]) {}

#[worker]
fn by_default(n: u8, #[default(&mut [])] v: &mut [u8]) {}

fn main() {
    // The stand-ins take these calls: each mistake is shown once.
    let mut out = procession::SharedSliceMut::<u8>::zeroed(1).unwrap();
    let _ = procession::delayed!(for_ever(&mut out));
    let _ = procession::parallel!(by_default(1, part) for part in out.chunks_mut(1));
}
