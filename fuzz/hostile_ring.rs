//! Two ends of a ring, and a peer that writes arbitrary bytes between their steps.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| procession::__fuzzing::hostile_ring(script));
