//! The way in at the top of `main`.

#[procession::main]
fn main() {
    procession_way_in::prove!("a program with the attribute");
}
