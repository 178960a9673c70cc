//! A program with slices of its own that are called as ours are.

use linkme::distributed_slice;

#[distributed_slice]
static WORKERS: [u8];
#[distributed_slice(WORKERS)]
static ONE: u8 = 1;

#[distributed_slice]
static AT_MAIN: [&'static str];
#[distributed_slice(AT_MAIN)]
static HERE: &str = "here";

#[procession::worker]
fn next(n: u64) -> u64 {
    n + 1
}

fn main() {
    assert_eq!((WORKERS[..].to_vec(), AT_MAIN[..].to_vec()), (vec![1], vec!["here"]));
    assert_eq!(procession::parallel!(next(n) for n in 0..3).expect("workers"), [1, 2, 3]);
    println!("the program's slices are its own");
}
