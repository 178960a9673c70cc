//! The supervisor: the life of one worker, from its start to its end.

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
