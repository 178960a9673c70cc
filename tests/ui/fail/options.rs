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

#[worker(instances(<u32>), instances(<u64>))]
fn two_lists<T>(t: T) {}

#[worker(instances = <u32>)]
fn no_parentheses<T>(t: T) {}

#[worker(instances)]
fn no_list<T>(t: T) {}

#[worker(crate = "procession")]
fn quoted() {}

#[worker(crate)]
fn no_path() {}

#[worker(5)]
fn no_name() {}

#[worker(retries = 3, timeout)]
fn settings_of_calls() {}

fn main() {}
