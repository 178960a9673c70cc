//! Workers run from an example.

fn main() {
    procession_way_in::prove!("an example");
}
