//! The way in before `main`.

fn main() {
    procession_way_in::prove!("a program");
}
