//! The items that expansions may name. Not public: anything here may change in any release.

pub use std::{path::PathBuf, string::String, vec::Vec};

pub use linkme;
pub use serde::Serialize;

/// The procedural macros behind `delayed!` and `parallel!`.
pub use procession_macros::{delayed, parallel};

/// Puts code beside the hidden struct of a function.
pub use procession_macros::beside;

pub use crate::{
    call::collect::{Collect, Outcomes, TryOutcomes, TryValues, Values},
    codec::{Input, Output},
    error::Fault,
    parallel::{Group, Member, Settings, millis, mins, secs},
    registry::{Entry, WORKERS},
    segment::{Lent, LentMut, LentRange, LentSlice, LentStr},
    shared::LendMut,
    task::{Args, Task, Update},
};

/// Types that can be arguments of a `#[worker]` function, on both sides.
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

/// Types of the elements of a slice that a `#[worker]` function may write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a slice that a worker writes",
    label = "this type is not plain data",
    note = "the caller and the worker use the same bytes, so every value of them must be valid: numbers, arrays of them, and \
            structs that derive `bytemuck::Pod`"
)]
pub trait Plain: bytemuck::Pod {}

#[diagnostic::do_not_recommend]
impl<T: bytemuck::Pod> Plain for T {}

/// Compiles if `T` can be an element of a slice that a worker writes.
pub const fn plain<T: Plain>() {}

/// Types that a `#[worker]` function may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a worker",
    label = "this type cannot be sent to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, and return owned data (`String`, not `&str`)",
    note = "for the errors of other crates, return `procession::RemoteError`, to which `?` converts"
)]
pub trait Returned: serde::Serialize + serde::de::DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: serde::Serialize + serde::de::DeserializeOwned + 'static> Returned for T {}

/// Encodes a function's result. A type that cannot be a result causes one compiler error.
///
/// # Errors
///
/// The result cannot be encoded.
#[inline]
pub fn put_result<T: Returned>(output: &mut Output<'_>, result: T) -> Result<(), Fault> {
    crate::sample::begin();
    let put = output.put(result);
    crate::sample::end();
    put
}

/// The methods of calls with a wrong number of arguments. An inherent `__callN` takes precedence.
pub use crate::arity::{Fills, Instance, Takes, TakesByName, WrongArity, constant};

/// The runtime of `async` functions.
#[cfg(feature = "tokio")]
pub use crate::executor::{block_on, run_async};

/// The entry point at the top of `main`, for `#[procession::main]`.
pub use crate::worker::{AT_MAIN, dispatch_main};
