//! Expands an invalid function: the plain function, the errors, and a replacement that accepts any call, so that nothing else breaks.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{FnArg, ReturnType, Type};

use super::{expand::companion, model::Worker};
use crate::{path::respan, tokens::mentions};

/// The number of arguments that [`WrongArity`](procession::__private::WrongArity) supports.
const MOST_ARGUMENTS: usize = 12;

pub(super) fn expand(worker: &Worker, error: &syn::Error) -> TokenStream {
    let function = &worker.item;
    let errors = error.to_compile_error();
    let is_method = function.sig.inputs.iter().any(|arg| matches!(arg, FnArg::Receiver(_)));
    if is_method {
        // A struct is not allowed in an `impl`.
        return quote!(#errors #function);
    }
    let companion = companion(worker);
    let cfg = worker.cfg();
    let name = worker.name();
    let private = worker.krate.private();
    let vis = respan(&function.vis);
    let known = known_result(worker);
    let calls = (0..=MOST_ARGUMENTS).map(|n| {
        let call = format_ident!("__call{}", n, span = Span::mixed_site());
        let types: Vec<_> = (0..n).map(|i| format_ident!("A{}", i, span = Span::mixed_site())).collect();
        // The parameters' own types help inference in a call with the right number of arguments.
        let own = |i: usize| {
            let param = worker.params.get(i).filter(|_| n == worker.params.len())?;
            let param = Some(param).filter(|param| param.is_given_as_it_is())?;
            stands_alone(worker, &param.ty, &["&"]).then(|| param.signature_type())
        };
        let params = types.iter().enumerate().map(|(i, any)| own(i).unwrap_or_else(|| quote!(#any)));
        let types = types.iter().enumerate().filter(|(i, _)| own(*i).is_none()).map(|(_, any)| any);
        let (result, declared) = match &known {
            Some(result) => (result.clone(), None),
            None => (quote!(R), Some(quote!(R))),
        };
        quote_spanned! {Span::mixed_site()=>
            #vis fn #call<#(#types,)* #declared>(#(_: #params),*) -> #private::Task<#result> {
                ::core::unreachable!()
            }
        }
    });
    quote_spanned! {Span::mixed_site()=>
        #errors
        #function
        #companion
        #cfg
        const _: () = {
            impl #name { #(#calls)* }
        };
    }
}

/// Returns the type of the result, if it can be named in another signature.
fn known_result(worker: &Worker) -> Option<TokenStream> {
    match &worker.item.sig.output {
        ReturnType::Default => Some(quote!(())),
        ReturnType::Type(_, ty) => stands_alone(worker, ty, &[]).then(|| worker.result.clone()),
    }
}

/// Returns whether the type contains no names of the function's own signature. `allowed` accepts some tokens.
fn stands_alone(worker: &Worker, ty: &Type, allowed: &[&str]) -> bool {
    let generics = worker.listed_idents();
    !mentions(&ty.to_token_stream(), &|token| {
        let word = token.to_string();
        let strange = matches!(&*word, "&" | "'" | "impl" | "!" | "_") && !allowed.contains(&&*word);
        strange || generics.iter().any(|generic| **generic == word)
    })
}
