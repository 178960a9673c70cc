//! How processes become workers and how they end: programs of `bin/` are run, and everything that comes of them is watched.

mod death;
mod program;
mod way_in;
