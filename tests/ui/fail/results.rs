#![allow(unused)]
use procession::worker;
use std::path::Path;

#[worker]
fn text(s: &str) -> &str {
    s
}

#[worker]
fn list(v: &[u8]) -> &[u8] {
    v
}

#[worker]
fn path(p: &Path) -> &Path {
    p
}

#[worker]
fn inside<'a>(s: &'a str) -> Option<std::borrow::Cow<'a, str>> {
    Some(s.into())
}

#[worker]
fn unnamed() -> impl Iterator<Item = u32> {
    0..3
}

#[worker]
fn error() -> Result<u32, Box<dyn std::error::Error>> {
    Ok(1)
}

#[worker]
fn io_error() -> Result<u32, std::io::Error> {
    Ok(1)
}

#[worker]
fn io_result() -> std::io::Result<u32> {
    Ok(1)
}

#[worker]
fn any_error() -> Vec<Result<u32, anyhow::Error>> {
    Vec::new()
}

#[worker]
fn object() -> Box<dyn ToString> {
    Box::new(1)
}

#[worker]
fn for_ever() -> ! {
    loop {}
}

fn main() {}
