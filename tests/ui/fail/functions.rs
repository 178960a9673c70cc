#![allow(unused)]
use procession::worker;

#[worker]
const fn early() {}

#[worker]
unsafe fn careful() {}

#[worker]
extern "C" fn foreign(n: u32) {}

#[worker]
fn open<T: Ord, const N: usize>(v: [T; N]) {}

#[worker]
pub unsafe extern "C" fn everything(this: *const u8, out: &mut u8) -> impl Sized {}

struct Counter;

impl Counter {
    #[worker]
    fn method(&self, n: u32) -> u32 {
        n
    }
}

#[worker]
struct Job {
    n: u32,
}

#[worker]
mod jobs {}

trait Work {
    #[worker]
    fn work(n: u32);
}

fn main() {}
