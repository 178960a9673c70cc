//! What the targets in `fuzz/` drive. Not public: it is there only for a build with `--cfg fuzzing`.

/// Plays a script of what two ends of a ring and a hostile peer do.
///
/// # Panics
///
/// Something does not hold that must.
pub fn hostile_ring(script: &[u8]) {
    crate::ring::play_script(script);
}
