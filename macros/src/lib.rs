//! The macros of procession. Use them through that crate: it re-exports them, and expansions name only what it has.

mod delayed;
mod diag;
mod main_attribute;
mod parallel;
mod path;
mod worker;

use proc_macro::TokenStream;

/// Makes a function callable in other processes; the function itself stays as it is.
#[proc_macro_attribute]
pub fn worker(options: TokenStream, item: TokenStream) -> TokenStream {
    worker::expand(options.into(), item.into()).into()
}

/// Makes workers start at the top of `main`, in a fully initialised process, and never run its body.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    main_attribute::expand(options.into(), item.into()).into()
}

/// What `procession::delayed!` becomes.
#[doc(hidden)]
#[proc_macro]
pub fn delayed(input: TokenStream) -> TokenStream {
    delayed::expand(input.into()).into()
}

/// What `procession::parallel!` becomes.
#[doc(hidden)]
#[proc_macro]
pub fn parallel(input: TokenStream) -> TokenStream {
    parallel::expand(input.into()).into()
}
