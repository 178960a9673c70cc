//! The driver: it polls, waits and wakes. One caller at a time leads; the others wait for what it finds. It decides nothing.

pub(crate) mod injector;
pub(crate) mod state;
