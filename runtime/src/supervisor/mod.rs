//! The supervisor: the life of one worker, from its start to its end.

pub(crate) mod capture;
pub(crate) mod exit;
pub(crate) mod state;
