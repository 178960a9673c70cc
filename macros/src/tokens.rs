//! Answers questions about tokens without parsing, and converts tokens to text.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;

/// Returns whether any token is accepted, including those in groups.
pub(crate) fn mentions(tokens: &TokenStream, wanted: &dyn Fn(&TokenTree) -> bool) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions(&group.stream(), wanted),
        token => wanted(&token),
    })
}

/// Returns whether the tokens contain one of these names.
pub(crate) fn names_one_of(tokens: &TokenStream, names: &[&Ident]) -> bool {
    mentions(tokens, &|token| matches!(token, TokenTree::Ident(ident) if names.contains(&ident)))
}

/// Returns whether the tokens, outside of groups, contain a lifetime other than `'static`.
pub(crate) fn names_a_lifetime(tokens: &impl ToTokens) -> bool {
    let mut tokens = tokens.to_token_stream().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_tick = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '\'');
        if is_tick && matches!(tokens.peek(), Some(TokenTree::Ident(ident)) if ident != "static") {
            return true;
        }
    }
    false
}

/// Returns tokens as readable text for a message.
pub(crate) fn spaceless(tokens: &impl ToTokens) -> String {
    let words = tokens.to_token_stream().to_string();
    words.replace(" ,", ",").replace("< ", "<").replace(" <", "<").replace(" >", ">").replace(" :: ", "::")
}
