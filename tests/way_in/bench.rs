//! Workers run from a bench. It measures nothing.

fn main() {
    procession_way_in::prove!("a bench");
}
