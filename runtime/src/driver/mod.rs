//! The driver: it polls, waits and wakes. One caller at a time leads; the others wait for what it finds. It decides nothing.

mod background;
pub(crate) mod injector;
mod leader;
mod poll;
pub(crate) mod state;
mod submit;
