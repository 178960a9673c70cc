//! Refuses systems that have no workers, in one sentence. A package with a `links` key must have a build script.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if system != "linux" {
        println!("cargo::error=procession runs on Linux only, and this build is for `{system}`");
    }
}
