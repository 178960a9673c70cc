//! Supervises one worker, from its start to its end.
//!
//! A [`Supervisor`](state::Supervisor) owns the worker's process, its connection, its tasks in flight and its captured output.
//! The scheduler has one for each place of a pool, and a [`Process`](crate::Process) has one of its own. A supervisor never
//! chooses tasks, never starts a worker on its own initiative, and does not read the clock: its owner passes the time.

pub(crate) mod capture;
mod end;
pub(crate) mod event;
pub(crate) mod exit;
mod io;
pub(crate) mod ledger;
mod output;
mod receive;
pub(crate) mod state;
mod stop;
#[cfg(all(test, not(loom)))]
mod tests;
