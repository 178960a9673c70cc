//! The tests are the targets of this package's manifest.
