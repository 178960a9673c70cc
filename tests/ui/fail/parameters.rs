#![allow(unused)]
use procession::worker;
use std::rc::Rc;

#[worker]
fn mutable(v: &mut Vec<u32>) {}

#[worker]
fn unnamed(x: impl ToString, y: Option<Box<dyn Fn()>>) {}

#[worker]
fn counted(a: Rc<u8>, b: Vec<Rc<str>>, c: std::rc::Weak<u8>) {}

#[worker]
fn addresses(p: *const u8, q: *mut u8, f: fn(u32) -> u32) {}

#[worker]
fn for_ever(s: &'static str) {}

#[worker]
fn two_shapes(a: u8, #[cfg(unix)] b: u8) {}

#[worker]
fn defaults(#[default] a: u8, #[default(1)] (b, c): (u8, u8), #[default(1)] #[default(2)] d: u8) {}

#[worker]
fn more_defaults(#[default = 1] a: u8, #[default()] b: u8, #[default(1, 2)] c: u8) {}

fn main() {
    // The stand-ins take these calls: each mistake is shown once.
    let _ = procession::delayed!(mutable(&mut Vec::new()));
    let _ = procession::parallel!(counted(Rc::new(n), Vec::new(), std::rc::Weak::new()) for n in 0..3);
}
