//! Expands `parallel!`: a comprehension over calls, or different calls side by side.

mod expand;
mod parse;

use proc_macro2::TokenStream;

use self::parse::Parallel;
use crate::{delayed::reached_by, diag::in_expression};

/// `[$crate] settings; calls`: the tokens that the `macro_rules!` of the same name passes on.
pub(crate) fn expand(input: TokenStream) -> TokenStream {
    let (krate, input) = reached_by(input);
    match syn::parse2::<Parallel>(input) {
        Ok(parallel) => expand::expand(&parallel, &krate),
        Err(error) => in_expression(&error),
    }
}
