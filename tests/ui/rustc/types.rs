//! Types that do not cross: the errors land on the types.
#![allow(unused)]
use procession::worker;
use std::sync::Mutex;

struct Opaque;

#[worker]
fn takes(a: u32, b: Vec<Opaque>) {}

#[worker]
fn lent(b: &Opaque) {}

#[derive(serde::Serialize)]
struct OneWay;

#[worker]
fn every_way(a: Opaque, b: &[OneWay], #[default(Opaque)] c: Opaque, #[default(None)] d: Option<OneWay>) {}

#[worker(instances(<u8>, <Opaque>))]
fn generic<T>(a: &[T], b: T, c: Opaque) {}

#[worker]
fn gives() -> Option<Opaque> {
    None
}

#[worker]
fn locked() -> std::sync::MutexGuard<'static, u8> {
    static LOCK: Mutex<u8> = Mutex::new(0);
    LOCK.lock().unwrap()
}

#[worker]
fn wrong_default(#[default("x")] n: u32) {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Known;

#[worker]
fn half(list: &[Opaque]) -> Result<Known, std::fmt::Error> {
    Ok(Known)
}

fn failing() -> Result<u32, Box<dyn std::error::Error>> {
    Ok(1)
}

#[worker]
fn question() -> Result<u32, procession::RemoteError> {
    Ok(failing()?)
}

fn main() {}
