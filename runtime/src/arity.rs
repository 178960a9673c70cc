//! Gives a call with the wrong number of arguments a clear error.
//!
//! A call site becomes `<f>::__call3(a, b, c)`. A worker has such a function for each number of arguments that it takes, and for
//! numbers that a call gives by mistake: fewer, or one too many. The functions for wrong numbers have the parameters of the real
//! function, so that the compiler reports what it reports for any function. For any other number, the method of [`WrongArity`] is
//! found. Nothing satisfies its condition, and the user sees the message of that condition. Calls with arguments by name begin with
//! `__withN` and work in the same way.

use crate::{registry::Entry, task::Task};

/// Implemented by functions that can be called with `N` arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with {N} argument(s)",
    label = "the call gives {N} argument(s)",
    note = "`delayed!` and `parallel!` take calls of `#[worker]` functions, with every argument that has no default"
)]
pub trait Takes<const N: usize> {}

/// Implemented by functions that can be called with `N` arguments by position and others by name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with {N} argument(s) by position and others by name",
    label = "the call gives {N} argument(s) before the first name",
    note = "a parameter with `#[default(...)]` can be given by name; every other one is given by position"
)]
pub trait TakesByName<const N: usize> {}

/// Implemented by no function: those that can be called with `_` have functions of their own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with {N} argument(s) of which the first is `_`",
    label = "the call gives {N} argument(s), `_` included",
    note = "`_` stands for a value that a manager fills in: the function takes it first, by value or as a reference, and then the other arguments"
)]
pub trait Fills<const N: usize> {}

/// Declares `__callN`, `__withN` and `__fillN` for each list of argument types.
///
/// The conditions are written out on each line because errors show their location, and would show the whole of a macro that writes
/// them.
macro_rules! wrong_arity {
    (
        $($call:ident [$($takes:tt)*] $with:ident [$($takes_by_name:tt)*]: $($arg:ident)*;)*
        _ { $($fill:ident [$($fills:tt)*]: $($other:ident)*;)* }
    ) => {
        /// Replaces `__callN` and `__withN` of functions that have none of their own.
        #[expect(clippy::too_many_arguments, reason = "a call may have any number of arguments")]
        pub trait WrongArity {$(
            #[doc(hidden)]
            fn $call<$($arg,)* R>($(_: $arg),*) -> Task<R>
            where
                $($takes)*,
            {
                unreachable!("no worker lacks a call that it takes")
            }

            #[doc(hidden)]
            fn $with<$($arg,)* R>($(_: $arg),*) -> R
            where
                $($takes_by_name)*,
            {
                unreachable!("no worker lacks a call that it takes")
            }
        )*
        $(
            #[doc(hidden)]
            fn $fill<$($other,)* R>($(_: $other),*) -> R
            where
                $($fills)*,
            {
                unreachable!("no worker lacks a call that it takes")
            }
        )*}
    };
}

wrong_arity! {
    __call0 [Self: Takes<0>] __with0 [Self: TakesByName<0>]:;
    __call1 [Self: Takes<1>] __with1 [Self: TakesByName<1>]: A;
    __call2 [Self: Takes<2>] __with2 [Self: TakesByName<2>]: A B;
    __call3 [Self: Takes<3>] __with3 [Self: TakesByName<3>]: A B C;
    __call4 [Self: Takes<4>] __with4 [Self: TakesByName<4>]: A B C D;
    __call5 [Self: Takes<5>] __with5 [Self: TakesByName<5>]: A B C D E;
    __call6 [Self: Takes<6>] __with6 [Self: TakesByName<6>]: A B C D E F;
    __call7 [Self: Takes<7>] __with7 [Self: TakesByName<7>]: A B C D E F G;
    __call8 [Self: Takes<8>] __with8 [Self: TakesByName<8>]: A B C D E F G H;
    __call9 [Self: Takes<9>] __with9 [Self: TakesByName<9>]: A B C D E F G H I;
    __call10 [Self: Takes<10>] __with10 [Self: TakesByName<10>]: A B C D E F G H I J;
    __call11 [Self: Takes<11>] __with11 [Self: TakesByName<11>]: A B C D E F G H I J K;
    __call12 [Self: Takes<12>] __with12 [Self: TakesByName<12>]: A B C D E F G H I J K L;
    _ {
        __fill1 [Self: Fills<1>]:;
        __fill2 [Self: Fills<2>]: B;
        __fill3 [Self: Fills<3>]: B C;
        __fill4 [Self: Fills<4>]: B C D;
        __fill5 [Self: Fills<5>]: B C D E;
        __fill6 [Self: Fills<6>]: B C D E F;
        __fill7 [Self: Fills<7>]: B C D E F G;
        __fill8 [Self: Fills<8>]: B C D E F G H;
        __fill9 [Self: Fills<9>]: B C D E F G H I;
        __fill10 [Self: Fills<10>]: B C D E F G H I J;
        __fill11 [Self: Fills<11>]: B C D E F G H I J K;
        __fill12 [Self: Fills<12>]: B C D E F G H I J K L;
    }
}

impl<T: ?Sized> WrongArity for T {}

/// Implemented by generic functions that have an instance for these types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no instance for `{Types}`",
    label = "`{Types}` is not among the instances",
    note = "add it to the list at the function: `#[worker(instances(<{Types}>, ...))]`"
)]
pub trait Instance<Types> {
    /// Returns the entry of the instance.
    fn entry() -> &'static Entry;
}

/// Constants among the types of an instance, as in `constant::usize<3>`.
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
