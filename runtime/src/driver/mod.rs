//! Polls, waits and wakes for a pool, or for single processes: the driver owns the lock around a state machine, the pollers, the
//! bells and the background thread.
//!
//! Handles and calls use it to wait for results and to submit tasks. One thread at a time leads, and the others wait for what it
//! finds. The driver makes no decisions about tasks or workers. It must never wait, print, or call loggers and wakers of users
//! while it holds the lock. README.md beside this file explains the design.

pub(crate) mod background;
pub(crate) mod injector;
mod leader;
mod poll;
pub(crate) mod state;
mod submit;
