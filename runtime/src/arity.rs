//! What a call with the wrong number of arguments meets: an error that says so.
//!
//! A call site becomes `<f>::__call3(a, b, c)`. If `f` has no such function of its own, which would come first, the one of
//! [`WrongArity`] is found, whose condition nothing meets: what the user reads is that condition's message. Calls with
//! arguments by name begin with `__withN`, and meet the same.

use crate::{registry::Entry, task::Task};

/// That a function can be called with so many arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with {N} argument(s)",
    label = "the call gives {N} argument(s)",
    note = "`delayed!` and `parallel!` take calls of `#[worker]` functions, with every argument that has no default"
)]
pub trait Takes<const N: usize> {}

/// That a function can be called with so many arguments, and others by name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with {N} argument(s) by position and others by name",
    label = "the call gives {N} argument(s) before the first name",
    note = "a parameter with `#[default(...)]` can be given by name; every other one is given by position"
)]
pub trait TakesByName<const N: usize> {}

/// Declares `__callN` and `__withN` for each list of argument types.
macro_rules! wrong_arity {
    ($($call:ident $with:ident $n:literal: $($arg:ident)*;)*) => {
        /// Stands in for `__callN` and `__withN` where a function has none of its own.
        #[expect(clippy::too_many_arguments, reason = "a call gives as many as it gives")]
        pub trait WrongArity {$(
            #[doc(hidden)]
            fn $call<$($arg,)* R>($(_: $arg),*) -> Task<R>
            where
                Self: Takes<$n>,
            {
                unreachable!("no worker lacks a call that it takes")
            }

            #[doc(hidden)]
            fn $with<$($arg),*>($(_: $arg),*) -> NoCall
            where
                Self: TakesByName<$n>,
            {
                unreachable!("no worker lacks a call that it takes")
            }
        )*}
    };
}

/// What comes of a call by name that cannot be.
#[derive(Debug)]
pub enum NoCall {}

wrong_arity! {
    __call0 __with0 0: ;
    __call1 __with1 1: A;
    __call2 __with2 2: A B;
    __call3 __with3 3: A B C;
    __call4 __with4 4: A B C D;
    __call5 __with5 5: A B C D E;
    __call6 __with6 6: A B C D E F;
    __call7 __with7 7: A B C D E F G;
    __call8 __with8 8: A B C D E F G H;
    __call9 __with9 9: A B C D E F G H I;
    __call10 __with10 10: A B C D E F G H I J;
    __call11 __with11 11: A B C D E F G H I J K;
    __call12 __with12 12: A B C D E F G H I J K L;
}

impl<T: ?Sized> WrongArity for T {}

/// That a generic function has an instance for these types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no instance for `{Types}`",
    label = "`{Types}` is not among the instances",
    note = "add it to the list at the function: `#[worker(instances(<{Types}>, ...))]`"
)]
pub trait Instance<Types> {
    /// The instance's entry.
    fn entry() -> &'static Entry;
}

/// Constants among an instance's types: `constant::usize<3>`.
#[expect(non_camel_case_types, reason = "they are named as the constants' types are, which errors show")]
pub mod constant {
    macro_rules! constants {
        ($($name:ident)*) => {$(
            #[doc(hidden)]
            #[derive(Debug)]
            pub enum $name<const VALUE: core::primitive::$name> {}
        )*};
    }

    constants!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize bool char);
}
