//! What a call with the wrong number of arguments meets: an error that says so.

/// Stands in for `__callN` where a function takes another number of arguments. Part of the expansion's interface.
pub trait WrongArity {}

impl<T: ?Sized> WrongArity for T {}
