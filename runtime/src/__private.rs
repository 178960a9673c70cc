//! What expansions may name. Not public: anything here may change in any release.

pub use linkme;

pub use crate::{
    codec::{Input, Output},
    error::Fault,
    parallel::{Gather, GatherOk, Group, Settings},
    registry::{Entry, WORKERS},
    task::{Args, Task},
};

/// What a `#[worker]` function may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a worker",
    label = "this type does not cross to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, and return owned data (`String`, not `&str`)"
)]
pub trait Returned: serde::Serialize + serde::de::DeserializeOwned + 'static {}

impl<T: serde::Serialize + serde::de::DeserializeOwned + 'static> Returned for T {}

/// Compiles if `T` can be the result of a worker.
pub const fn returned<T: Returned>() {}

/// The number of arguments that a call gave, for calls that give the wrong number: an inherent `__callN` comes first.
pub use crate::arity::WrongArity;
