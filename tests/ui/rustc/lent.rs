//! What cannot be lent to a worker: the errors land on the argument or on the element.
#![allow(unused)]
use procession::{Pool, SharedSlice, SharedSliceMut, delayed, parallel, worker};

#[worker]
fn blur(source: &[f32], target: &mut [f32]) {}

#[worker]
fn names(target: &mut [String]) {}

fn main() {
    let pool = Pool::new(1).unwrap();
    let pixels = SharedSlice::<f32>::zeroed(8).unwrap();
    let mut out = SharedSliceMut::<f32>::zeroed(8).unwrap();

    let mut own = vec![0.0_f32; 8];
    let _ = delayed!(blur(&pixels, &mut own));
    let _ = parallel!(blur(&pixels, part) for part in own.chunks_mut(4));
    let _ = delayed!(blur(&pixels, &mut out[2..]));

    let mut bytes = SharedSliceMut::<u8>::zeroed(8).unwrap();
    let _ = delayed!(blur(&pixels, &mut bytes));

    let again = delayed!(blur(&pixels, out));
}
