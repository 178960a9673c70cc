#![allow(unused)]
use procession::worker;

#[worker(name = "x", instance(<u32>), crate = procession, crate = procession)]
fn options() {}

#[worker(instances(<u32>))]
fn not_generic(n: u32) {}

#[worker(instances())]
fn empty<T>(t: T) {}

#[worker(instances(u32))]
fn no_brackets<T>(t: T) {}

#[worker(instances(<u32>, <u32, String>, <u32>))]
fn wrong_number<T>(t: T) {}

fn main() {}
