//! Calls with `_` where a task is wanted, and updates that a manager cannot make: the errors say what is wrong.
#![allow(unused)]
use procession::{Manager, Pool, Task, delayed, worker};

#[worker]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[worker]
fn length(text: &str) -> usize {
    text.len()
}

#[worker]
fn nothing() {}

#[worker]
fn borrower(a: Option<&str>) -> String {
    a.unwrap_or_default().to_owned()
}

fn main() -> procession::Result<()> {
    let pool = Pool::in_process();
    let dict = Manager::in_process().dict::<String, u64>()?;
    let _ = pool.submit(delayed!(add(_, 1)));
    let _: Task<u64> = delayed!(add(_, 1));
    let _ = dict.update("a", delayed!(add(1, 1)));
    let _ = dict.update("a", delayed!(length(_)));
    let _ = dict.update("a", delayed!(add(_)));
    let _ = dict.update("a", delayed!(add(_, 1, 2)));
    let _ = dict.update("a", delayed!(nothing(_)));
    let _ = dict.update("a", delayed!(borrower(_)));
    Ok(())
}
