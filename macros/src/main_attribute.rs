//! Expands `#[procession::main]`: workers are dispatched at the top of `main` and never run its body.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{ItemFn, Path, Token, parse::ParseStream};

use crate::{
    diag::Diagnostics,
    path::{Crate, plain, respan},
};

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let main: ItemFn = match syn::parse2(item.clone()) {
        Ok(main) => main,
        Err(_) => {
            let error =
                syn::Error::new(Span::call_site(), "`#[procession::main]` can only be used on `fn main`");
            let error = error.to_compile_error();
            return quote!(#error #item);
        }
    };
    let mut diag = Diagnostics::new();
    let krate = match syn::parse::Parser::parse2(parse_options, options) {
        Ok(path) => path.map_or_else(Crate::by_name, Crate::at),
        Err(error) => {
            diag.push(error);
            Crate::by_name()
        }
    };
    check(&main, &mut diag);
    match diag.finish() {
        Ok(()) => code(&main, &krate),
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#error #main)
        }
    }
}

fn parse_options(input: ParseStream<'_>) -> syn::Result<Option<Path>> {
    if input.is_empty() {
        return Ok(None);
    }
    let wanted = |error: syn::Error| {
        syn::Error::new(error.span(), "`#[procession::main]` has one option, `crate = path`")
    };
    input.parse::<Token![crate]>().map_err(wanted)?;
    input.parse::<Token![=]>().map_err(wanted)?;
    let path = input.call(Path::parse_mod_style).map_err(wanted)?;
    input.parse::<Option<Token![,]>>()?;
    match input.is_empty() {
        true => Ok(Some(path)),
        false => Err(wanted(input.error(""))),
    }
}

fn check(main: &ItemFn, diag: &mut Diagnostics) {
    let sig = &main.sig;
    if sig.ident != "main" {
        diag.refuse(
            &sig.ident,
            format_args!(
                "`#[procession::main]` can only be used on `fn main`, not on `{}`",
                plain(&sig.ident)
            ),
        );
    }
    if !sig.inputs.is_empty() {
        diag.refuse(&sig.inputs, "`main` takes no parameters: read them with `std::env::args()`");
    }
    if !sig.generics.params.is_empty() {
        diag.refuse(&sig.generics, "`main` has no generic parameters");
    }
    if let Some(token) = &sig.asyncness
        && main.attrs.iter().all(|attr| is_plain(attr.path()))
    {
        diag.refuse(
            token,
            "an `async fn main` needs a runtime: put its attribute below this one, as in `#[tokio::main]`",
        );
    }
}

/// Returns whether the attribute is one of the language's own, which do not transform an `async fn`.
fn is_plain(path: &Path) -> bool {
    const PLAIN: &[&str] =
        &["doc", "allow", "expect", "warn", "deny", "forbid", "cfg", "inline", "cold", "must_use"];
    PLAIN.iter().any(|plain| path.is_ident(plain))
}

fn code(main: &ItemFn, krate: &Crate) -> TokenStream {
    let private = krate.private();
    let (outer, inner): (Vec<_>, Vec<_>) =
        main.attrs.iter().partition(|attr| attr.path().is_ident("cfg") || attr.path().is_ident("doc"));
    let cfg = outer.iter().filter(|attr| attr.path().is_ident("cfg"));
    let mut nested = main.clone();
    nested.attrs = inner.into_iter().cloned().collect();
    nested.vis = syn::Visibility::Inherited;
    let (vis, fn_token, name, result) =
        (&main.vis, &main.sig.fn_token, &main.sig.ident, respan(&main.sig.output));
    quote_spanned! {Span::mixed_site()=>
        #(#outer)*
        #vis #fn_token #name() #result {
            #nested
            #private::dispatch_main();
            main()
        }

        // A test harness has its own `main`.
        #(#cfg)*
        #[cfg(not(test))]
        const _: () = {
            #[#private::linkme::distributed_slice(#private::AT_MAIN)]
            #[linkme(crate = #private::linkme)]
            static __PROCESSION_AT_MAIN: &::core::primitive::str = ::core::module_path!();
        };
    }
}
