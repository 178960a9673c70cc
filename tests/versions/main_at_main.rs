//! As `main.rs`, where the workers of one version start at the top of `main`, and those of the other before it.

#[procession::worker]
fn ours(n: u64) -> u64 {
    n + 1
}

#[twin::worker(crate = twin)]
fn theirs(n: u64) -> u64 {
    n + 2
}

#[procession::main]
fn main() {
    let ours = procession::parallel!(ours(n) for n in 0..3).expect("workers of the one");
    let theirs = twin::parallel!(theirs(n) for n in 0..3).expect("workers of the other");
    assert_eq!((ours, theirs), (vec![1, 2, 3], vec![2, 3, 4]));
    println!("both versions are at work");
}
