//! A worker that sends arbitrary bytes through its ring and its socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| procession::__fuzzing::hostile_frames(script));
