//! Defines the path of procession as seen from an expansion, and the spans that expansions use.
//!
//! An attribute cannot learn by which name its crate is known: it takes `::procession`, unless `crate = path` says otherwise. The
//! call-site macros are reached through `macro_rules!` that pass on their own `$crate`, so they follow any renaming.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};

/// Returns a span with the macro's own hygiene, at the user's place in the file.
///
/// Lints see that such tokens come from a macro and skip them. Errors still point at what the user wrote.
pub(crate) fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// The path of the crate, and of the items that expansions may name in it.
#[derive(Clone, Debug)]
pub(crate) struct Crate(TokenStream);

impl Crate {
    /// `::procession`.
    pub(crate) fn by_name() -> Self {
        Self(quote_spanned!(Span::mixed_site()=> ::procession))
    }

    /// Returns the path that the user, or a `macro_rules!` of procession, gives.
    pub(crate) fn at(path: impl ToTokens) -> Self {
        Self(path.into_token_stream())
    }

    /// `::procession::__private`.
    pub(crate) fn private(&self) -> TokenStream {
        let Self(path) = self;
        quote_spanned!(Span::mixed_site()=> #path::__private)
    }
}

/// Returns the same tokens at the same places as the macro's own, so that lints do not check them a second time.
pub(crate) fn respan(tokens: impl ToTokens) -> TokenStream {
    tokens
        .into_token_stream()
        .into_iter()
        .map(|token| match token {
            TokenTree::Group(group) => {
                let mut copy = Group::new(group.delimiter(), respan(group.stream()));
                copy.set_span(at(group.span()));
                copy.into()
            }
            // The meaning of `$crate` depends on the origin of the token.
            TokenTree::Ident(ident) if ident == "$crate" => ident.into(),
            mut token => {
                token.set_span(at(token.span()));
                token
            }
        })
        .collect()
}

/// Returns the name as text: `type` for `r#type`.
pub(crate) fn plain(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
}
