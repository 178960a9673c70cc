//! Collects all errors of an expansion before any is reported, so that one build shows them all.

use std::fmt::Display;

use proc_macro2::TokenStream;
use quote::ToTokens;

/// The errors of one expansion. It must be ended with [`Diagnostics::finish`], so that none is forgotten.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    errors: Option<Vec<syn::Error>>,
}

impl Diagnostics {
    pub(crate) fn new() -> Self {
        Self { errors: Some(Vec::new()) }
    }

    /// Adds an error at `tokens`, which are the user's own.
    pub(crate) fn refuse(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn push(&mut self, error: syn::Error) {
        self.errors.as_mut().expect("only `finish` takes the errors").push(error);
    }

    /// Returns all errors as one, or nothing.
    pub(crate) fn finish(mut self) -> syn::Result<()> {
        let errors = self.errors.take().expect("only `finish` takes the errors");
        match errors.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        }) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for Diagnostics {
    fn drop(&mut self) {
        assert!(self.errors.is_none() || std::thread::panicking(), "`Diagnostics::finish` was not called");
    }
}

/// Returns the errors in the place of an expression: exactly one expression, so that the compiler reports nothing else.
pub(crate) fn in_expression(error: &syn::Error) -> TokenStream {
    let mut errors = error.into_iter().map(|error| error.to_compile_error());
    let first = errors.next().unwrap_or_default();
    match errors.next() {
        None => first,
        Some(second) => quote::quote!({ #first #second #(#errors)* }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_kept() {
        let mut diag = Diagnostics::new();
        diag.refuse(quote::quote!(a), "one");
        diag.refuse(quote::quote!(b), "two");
        let error = diag.finish().unwrap_err();
        let words: Vec<String> = error.into_iter().map(|e| e.to_string()).collect();
        assert_eq!(words, ["one", "two"]);
    }

    #[test]
    #[should_panic(expected = "was not called")]
    fn a_forgotten_collector_panics() {
        drop(Diagnostics::new());
    }
}
