//! The macros of procession. Use them through that crate.

use proc_macro::TokenStream;

/// stub
#[proc_macro_attribute]
pub fn worker(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}
/// stub
#[proc_macro_attribute]
pub fn main(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}
/// stub
#[proc_macro]
pub fn delayed(item: TokenStream) -> TokenStream {
    item
}
/// stub
#[proc_macro]
pub fn parallel(item: TokenStream) -> TokenStream {
    item
}
