//! With no prelude, and with names in scope that mean something else.
#![no_implicit_prelude]
#![allow(dead_code)]

extern crate procession as _;

mod core {}
mod std {}
struct Option;
struct Result;
struct Vec;
struct Task;
struct Ok;
struct Err;
trait Default {}

#[::procession::worker]
fn add(a: u32, #[default(2)] b: u32) -> u32 {
    a + b
}

#[::procession::worker(instances(<u8>))]
fn same<T>(t: T, #[default(1)] n: u8) -> T {
    let _ = n;
    t
}

#[::procession::worker]
fn lent(a: &[u8], b: &str, c: &::std::path::Path, d: &[u16], e: ::std::path::PathBuf, f: ::std::vec::Vec<u8>) {
    let _ = (a, b, c, d, e, f);
}

#[::procession::main]
fn main() -> ::procession::Result<()> {
    ::std::assert_eq!(::procession::delayed!(add(1, b = 3)).call()?, 4);
    ::std::assert_eq!(::procession::parallel!(add(n) for n in 0..2 if n > 0)?, [3]);
    ::std::assert_eq!(::procession::parallel!(add(1), same(2u8, n = 3))?, (3, 2));
    ::core::result::Result::Ok(())
}
