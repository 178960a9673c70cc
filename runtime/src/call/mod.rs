//! One call of a pool: its options, its tasks on their way in, and its results on their way out.

pub(crate) mod state;
