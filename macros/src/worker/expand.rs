//! Generates the code of a worker function: the unchanged function, the hidden struct of its name, its entry and its calls.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::GenericParam;

use super::{
    calls::Code,
    generics::{bare, encoded_bounds, list, type_bounds},
    model::{Instance, Worker, ident_of},
};
use crate::path::{plain, respan};

pub(super) fn expand(worker: &Worker) -> TokenStream {
    let function = &worker.item;
    let companion = companion(worker);
    let cfg = worker.cfg();
    let lints = worker.item.attrs.iter().filter(|attr| attr.path().is_ident("allow"));
    let code = match &worker.instances {
        None => single(worker),
        Some(instances) => generic(worker, instances),
    };
    let private = worker.krate.private();
    // None of this is allowed in an `impl`. The compiler refuses the struct there, once, and then drops it with its attributes.
    quote_spanned! {Span::mixed_site()=>
        #function
        #cfg
        #[#private::beside(
            #(#lints)*
            // Clippy would check the user's types again in code that the user cannot change.
            #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
            const _: () = { #code };
        )]
        #companion
    }
}

/// Returns the hidden struct, which a path to the function means in the place of a type.
pub(super) fn companion(worker: &Worker) -> TokenStream {
    let vis = respan(&worker.item.vis);
    let name = worker.name();
    let cfg = worker.cfg();
    quote_spanned! {Span::mixed_site()=>
        #cfg
        #[doc(hidden)]
        #[non_exhaustive]
        #vis struct #name {}
    }
}

/// Expands a function without instances: one entry.
fn single(worker: &Worker) -> TokenStream {
    let entry = entry(worker, &plain(&worker.item.sig.ident), &quote!());
    let calls = Code {
        worker,
        entry: quote_spanned!(Span::mixed_site()=> &__PROCESSION_ENTRY),
        generics: Vec::new(),
        arguments: quote!(),
        bounds: quote!(),
    }
    .expand();
    quote!(#entry #calls)
}

/// Expands a generic function: an entry for each instance, which calls find by a trait that the listed instances implement.
fn generic(worker: &Worker, instances: &[Instance]) -> TokenStream {
    let private = worker.krate.private();
    let f = worker.name();
    let instances = instances.iter().map(|instance| implementation(worker, instance));
    let list = list(worker);
    let idents = worker.listed_idents().into_iter().map(respan);
    let (bounds, encoded) = (type_bounds(worker), encoded_bounds(worker));
    let code = Code {
        worker,
        entry: quote_spanned!(Span::mixed_site()=> <#f as #private::Instance<#list>>::entry()),
        generics: worker.listed().map(|param| respan(bare(param))).collect(),
        arguments: quote!(#(#idents),*),
        bounds: quote_spanned!(Span::mixed_site()=> #f: #private::Instance<#list>, #bounds #(#encoded,)*),
    };
    let calls = code.expand();
    quote!(#(#instances)* #calls)
}

/// Returns an item that gives the type or value of a parameter a name.
fn define(param: &GenericParam, name: &impl ToTokens, value: &impl ToTokens) -> TokenStream {
    match param {
        GenericParam::Const(param) => {
            let ty = respan(&param.ty);
            quote_spanned!(Span::mixed_site()=> const #name: #ty = { #value };)
        }
        _ => quote_spanned!(Span::mixed_site()=> type #name = #value;),
    }
}

/// Returns the entry of one instance, in a block in which the function's parameters are names of the instance's types and values.
fn implementation(worker: &Worker, instance: &Instance) -> TokenStream {
    let private = worker.krate.private();
    let f = worker.name();
    let list = list(worker);
    let alias = |i: usize| format_ident!("__PROCESSION{}", i, span = Span::mixed_site());
    // The user's tokens are evaluated outside of the block in which the names of the parameters have that meaning.
    let outer = worker
        .listed()
        .zip(&instance.args)
        .enumerate()
        .map(|(i, (param, arg))| define(param, &alias(i), &respan(arg)));
    let inner =
        worker.listed().enumerate().map(|(i, param)| define(param, &respan(ident_of(param)), &alias(i)));
    let idents = worker.listed_idents().into_iter().map(respan);
    let words = format!("{}::{}", plain(&worker.item.sig.ident), instance.name);
    let entry = entry(worker, &words, &quote!(::<#(#idents),*>));
    quote_spanned! {Span::mixed_site()=>
        const _: () = {
            #(#outer)*
            const _: () = {
                #(#inner)*
                #entry
                impl #private::Instance<#list> for #f {
                    fn entry() -> &'static #private::Entry {
                        &__PROCESSION_ENTRY
                    }
                }
            };
        };
    }
}

/// Returns the static entry of the function and the function that it runs. `instance` is the turbofish of the function.
fn entry(worker: &Worker, words: &str, instance: &TokenStream) -> TokenStream {
    let private = worker.krate.private();
    // `file!` and `line!` return the outermost place. These tokens are the user's own.
    let here = worker.item.sig.ident.span();
    let file = quote_spanned!(here=> ::core::file!());
    let line = quote_spanned!(here=> ::core::line!());
    let run = run(worker, instance);
    quote_spanned! {Span::mixed_site()=>
        #[#private::linkme::distributed_slice(#private::WORKERS)]
        #[linkme(crate = #private::linkme)]
        static __PROCESSION_ENTRY: #private::Entry = #private::Entry {
            name: ::core::concat!(::core::module_path!(), "::", #words),
            file: #file,
            line: #line,
            run: __procession_run,
        };

        #run
    }
}

/// Returns the function that decodes the arguments, calls the worker function and encodes its result.
fn run(worker: &Worker, instance: &TokenStream) -> TokenStream {
    let private = worker.krate.private();
    let f = worker.name();
    let takes = worker.params.iter().enumerate().map(|(i, param)| param.take(&private, i));
    let arguments = worker.params.iter().enumerate().map(|(i, param)| param.lend(i));
    let result = &worker.result;
    let is_async = worker.item.sig.asyncness.is_some();
    let call = quote_spanned!(Span::mixed_site()=> #f #instance(#(#arguments),*));
    let value = if is_async { quote_spanned!(Span::mixed_site()=> #private::block_on(#call)) } else { call };
    let run = quote_spanned! {Span::mixed_site()=>
        #(#takes)*
        #private::Input::finish(__input)?;
        #private::put_result::<#result>(&mut __output, #value)
    };
    let mutable = (!worker.params.is_empty()).then(|| quote!(mut));
    let input = quote_spanned!(Span::mixed_site()=> #mutable __input);
    let output = quote_spanned!(Span::mixed_site()=> mut __output);
    let (input, output, run) = if is_async {
        let run = quote_spanned! {Span::mixed_site()=>
            #private::run_async(__input, __output, |#input, #output| { #run })
        };
        let (plain_input, plain_output) =
            (quote_spanned!(Span::mixed_site()=> __input), quote_spanned!(Span::mixed_site()=> __output));
        (plain_input, plain_output, run)
    } else {
        (input, output, run)
    };
    let deprecated = worker.item.attrs.iter().any(|attr| attr.path().is_ident("deprecated"));
    let deprecated = deprecated.then(|| quote_spanned!(Span::mixed_site()=> #[allow(deprecated)]));
    quote_spanned! {Span::mixed_site()=>
        #deprecated
        fn __procession_run(
            #input: #private::Input<'_>,
            #output: #private::Output<'_>,
        ) -> ::core::result::Result<(), #private::Fault> {
            #run
        }
    }
}
