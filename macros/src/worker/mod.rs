//! Expands `#[worker]` in five steps: tokens, the function as written, its meaning, errors, code.

mod argument;
mod calls;
mod check;
mod expand;
mod fallback;
mod generics;
mod model;
mod parse;

use proc_macro2::TokenStream;
use quote::quote;

use self::{model::Worker, parse::Written};
use crate::diag::Diagnostics;

/// Returns the function unchanged, with the code that makes it callable elsewhere, or the function with the errors and a replacement.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut diag = Diagnostics::new();
    let written = match Written::parse(options, item.clone(), &mut diag) {
        Ok(written) => written,
        Err(error) => {
            diag.push(error);
            let errors = diag.finish().map_err(|error| error.to_compile_error()).err();
            return quote!(#errors #item);
        }
    };
    check::check(&written, &mut diag);
    let worker = Worker::new(written, &mut diag);
    match diag.finish() {
        Ok(()) => expand::expand(&worker),
        Err(error) => fallback::expand(&worker, &error),
    }
}
