//! Arguments that are no tasks, and functions that are no workers: the errors say what to write.
#![allow(unused)]
use procession::{Pool, Process, delayed, worker};

#[worker]
fn f(x: u32) -> u32 {
    x
}

fn main() {
    let pool = Pool::in_process();
    let xs = [1, 2, 3];
    let _ = pool.submit(f(3));
    let _ = pool.map(xs.iter().map(|x| f(*x)));
    let _ = pool.map(f);
    let _ = pool.map(f, xs);
    let _ = pool.imap([f(3)]);
    let _ = pool.broadcast(f(3));
    let _ = Process::spawn(f(3));
}
