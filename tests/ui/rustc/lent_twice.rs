//! A part that is sent twice, and elements that are accessed while a part of them exists or was sent.
#![allow(unused)]
use procession::{Pool, SharedSlice, SharedSliceMut, delayed, parallel, worker};

#[worker]
fn blur(source: &[f32], target: &mut [f32]) {}

fn main() {
    let pool = Pool::new(1).unwrap();
    let pixels = SharedSlice::<f32>::zeroed(8).unwrap();
    let mut out = SharedSliceMut::<f32>::zeroed(8).unwrap();

    let (left, right) = out.split_at_mut(4);
    let first = pool.submit(delayed!(blur(&pixels, left)));
    let second = pool.submit(delayed!(blur(&pixels, left)));

    let parts = out.chunks_mut(4);
    let _ = pool.map(parts.map(|part| delayed!(blur(&out, part))));

    for part in out.chunks_mut(4) {
        let task = delayed!(blur(&pixels, part));
        println!("{}", part[0]);
    }

    let _ = parallel!(blur(&pixels, part) for part in out.chunks_mut(4) if out[0] > 0.0);
}
