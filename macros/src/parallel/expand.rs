//! A plain nest of `for` loops that pushes tasks into a sink, or a group with a member for each call.
//!
//! The sink runs tasks while the loops go on. Loop variables are lent to the call: a task owns its encoded arguments.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Token;

use super::parse::{Calls, Clause, Parallel, Setting};
use crate::{
    delayed::Call,
    path::{Crate, at},
};

pub(super) fn expand(parallel: &Parallel, krate: &Crate) -> TokenStream {
    let private = krate.private();
    let settings = settings(&parallel.settings, &private);
    let body = match &parallel.calls {
        Calls::Comprehension { call, question, clauses } => comprehension(call, *question, clauses, krate),
        Calls::SideBySide(calls) => side_by_side(calls, krate),
    };
    // A `match` keeps what the settings borrow until the call is done.
    quote_spanned! {Span::mixed_site()=>
        match #settings {
            settings => { #body }
        }
    }
}

fn settings(settings: &[Setting], private: &TokenStream) -> TokenStream {
    let setters = settings.iter().map(|Setting { name, value }| quote!(.#name(#value)));
    quote_spanned!(Span::mixed_site()=> #private::Settings::new() #(#setters)*)
}

fn comprehension(call: &Call, question: Option<Token![?]>, clauses: &[Clause], krate: &Crate) -> TokenStream {
    let private = krate.private();
    // An error about the function's own error type belongs to the `?`.
    let gather = match question {
        None => quote_spanned!(Span::mixed_site()=> #private::Gather),
        Some(question) => quote_spanned!(at(question.span)=> #private::GatherOk),
    };
    let task = call.expand(krate);
    let push = quote_spanned! {Span::mixed_site()=>
        match #gather::push(&mut sink, #task) {
            ::core::ops::ControlFlow::Continue(()) => {}
            ::core::ops::ControlFlow::Break(()) => break 'procession,
        }
    };
    let loops = clauses.iter().enumerate().rev().fold(push, |body, (depth, clause)| {
        let Clause { for_token, pat, in_token, iter, condition } = clause;
        let body = match condition {
            Some((if_token, condition)) => quote!(#if_token #condition { #body }),
            None => body,
        };
        let label = (depth == 0).then(|| quote_spanned!(Span::mixed_site()=> 'procession:));
        quote!(#label #for_token #pat #in_token #iter { #body })
    });
    quote_spanned! {Span::mixed_site()=>
        let mut sink = #gather::new(settings);
        #loops
        #gather::finish(sink)
    }
}

fn side_by_side(calls: &[Call], krate: &Crate) -> TokenStream {
    let private = krate.private();
    let member = |i: usize| format_ident!("member{}", i, span = Span::mixed_site());
    let adds = calls.iter().enumerate().map(|(i, call)| {
        let (member, task) = (member(i), call.expand(krate));
        quote_spanned!(Span::mixed_site()=> let #member = #private::Group::add(&mut group, #task);)
    });
    let takes = (0..calls.len()).map(|i| {
        let member = member(i);
        quote_spanned!(Span::mixed_site()=> #private::Member::take(#member))
    });
    let taken = match calls.len() {
        1 => quote!(#(#takes)*),
        _ => quote_spanned!(Span::mixed_site()=> ::core::result::Result::Ok((#(#takes?),*))),
    };
    quote_spanned! {Span::mixed_site()=>
        let mut group = #private::Group::new(settings);
        #(#adds)*
        ::core::result::Result::and_then(#private::Group::wait(&mut group), |()| #taken)
    }
}
