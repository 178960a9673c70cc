//! What expansions may name. Not public: anything here may change in any release.

pub use linkme;
pub use serde::Serialize;

/// What `delayed!` and `parallel!` hand their tokens to.
pub use procession_macros::{delayed, parallel};

/// Puts code beside the hidden struct of a function.
pub use procession_macros::beside;

pub use crate::{
    call::collect::{Collect, Outcomes, TryOutcomes, TryValues, Values},
    codec::{Input, Output},
    error::Fault,
    parallel::{Group, Member, Settings, millis, mins, secs},
    registry::{Entry, WORKERS},
    task::{Args, Task},
};

/// What can be an argument of a `#[worker]` function: both sides.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a worker",
    label = "this type cannot be sent to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or pass what it is made of"
)]
pub trait Argument<'a>: crate::task::Sent + crate::codec::Received<'a> {}

#[diagnostic::do_not_recommend]
impl<'a, T: crate::task::Sent + crate::codec::Received<'a>> Argument<'a> for T {}

/// Compiles if `T` can be an argument of a worker.
pub const fn argument<'a, T: Argument<'a>>() {}

/// What a `#[worker]` function may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a worker",
    label = "this type cannot be sent to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, and return owned data (`String`, not `&str`)",
    note = "for the errors of other crates, return `procession::RemoteError`, to which `?` converts"
)]
pub trait Returned: serde::Serialize + serde::de::DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: serde::Serialize + serde::de::DeserializeOwned + 'static> Returned for T {}

/// Puts a function's result where it goes, if its type can be a result: one error for a type that cannot.
///
/// # Errors
///
/// The result does not encode.
#[inline]
pub fn put_result<T: Returned>(output: &mut Output<'_>, result: T) -> Result<(), Fault> {
    crate::sample::begin();
    let put = output.put(result);
    crate::sample::end();
    put
}

/// The number of arguments that a call gave, for calls that give the wrong number: an inherent `__callN` comes first.
pub use crate::arity::{Instance, Takes, TakesByName, WrongArity, constant};

/// What `async` functions run on.
#[cfg(feature = "tokio")]
pub use crate::executor::{block_on, run_async};

/// The way in at the top of `main`, for `#[procession::main]`.
pub use crate::worker::{AT_MAIN, dispatch_main};
