//! Generates a nest of `for` loops that pushes tasks to a `Collect`, or a group with a member for each call.
//!
//! Tasks run while the loops continue. Loop variables are lent to the call, because a task owns its encoded arguments.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Expr, ExprCall, ExprPath, Token,
    spanned::Spanned,
    visit_mut::{VisitMut, visit_expr_call_mut},
};

use super::parse::{Calls, Clause, Parallel, Setting, Settings};
use crate::{
    delayed::{Call, peel},
    path::{Crate, at},
};

pub(super) fn expand(parallel: &Parallel, krate: &Crate) -> TokenStream {
    let private = krate.private();
    let settings = settings(&parallel.settings, &private);
    let body = match &parallel.calls {
        Calls::Comprehension { call, question, clauses } => {
            comprehension(call, *question, &parallel.settings, clauses, krate)
        }
        Calls::SideBySide(calls) => side_by_side(calls, parallel.settings.collect.is_some(), krate),
    };
    // A `match` keeps the values that the settings borrow until the call is done.
    quote_spanned! {Span::mixed_site()=>
        match #settings {
            settings => { #body }
        }
    }
}

fn settings(settings: &Settings, private: &TokenStream) -> TokenStream {
    let setters = settings.values.iter().map(|Setting { name, value }| {
        let value = if name == "timeout" { in_seconds(value, private) } else { value.to_token_stream() };
        quote!(.#name(#value))
    });
    let unordered = settings.unordered.is_some().then(|| quote_spanned!(Span::mixed_site()=> .unordered()));
    quote_spanned!(Span::mixed_site()=> #private::Settings::new() #(#setters)* #unordered)
}

/// The functions that a `timeout` may call without having them in scope.
const UNITS: &[&str] = &["millis", "secs", "mins"];

/// Replaces `secs(3)` in the value of a `timeout`, so that it needs no import. A call is recognised by its name, because a `use` in
/// the expansion would hide the user's own names, variables among them, even where nothing is called.
fn in_seconds(value: &Expr, private: &TokenStream) -> TokenStream {
    struct Units<'a>(&'a TokenStream);
    impl VisitMut for Units<'_> {
        fn visit_expr_call_mut(&mut self, call: &mut ExprCall) {
            if let Expr::Path(ExprPath { qself: None, path, .. }) = peel(&call.func)
                && let Some(unit) = path.get_ident()
                && UNITS.iter().any(|known| unit == known)
            {
                let (private, unit) = (self.0, Ident::new(&unit.to_string(), at(unit.span())));
                *call.func = Expr::Verbatim(quote!(#private::#unit));
            }
            visit_expr_call_mut(self, call);
        }
    }
    let mut value = value.clone();
    Units(private).visit_expr_mut(&mut value);
    value.into_token_stream()
}

fn comprehension(
    call: &Call,
    question: Option<Token![?]>,
    settings: &Settings,
    clauses: &[Clause],
    krate: &Crate,
) -> TokenStream {
    let private = krate.private();
    let collect = settings.collect.is_some();
    let reports = settings.values.iter().any(|Setting { name, .. }| name == "verbose" || name == "progress");
    // An error about the function's own error type belongs to the `?`.
    let (mode, span) = match (question, collect) {
        (None, false) => ("Values", Span::mixed_site()),
        (None, true) => ("Outcomes", Span::mixed_site()),
        (Some(question), false) => ("TryValues", at(question.span)),
        (Some(question), true) => ("TryOutcomes", at(question.span)),
    };
    let mode = Ident::new(mode, span);
    let collect = quote_spanned!(span=> #private::Collect::<_, #private::#mode>);
    let task = call.expand(krate);
    let push = quote_spanned! {Span::mixed_site()=>
        match #collect::push(&mut results, #task) {
            ::core::ops::ControlFlow::Continue(()) => {}
            ::core::ops::ControlFlow::Break(()) => break 'procession,
        }
    };
    // One loop without a filter: the input reports the number of tasks. It is asked only if the number is used, because a plain loop gives better
    // errors for a value that is not an iterator.
    let counted = reports && matches!(clauses, [clause] if clause.condition.is_none());
    let loops = clauses.iter().enumerate().rev().fold(push, |body, (depth, clause)| {
        let Clause { for_token, pat, in_token, iter, condition } = clause;
        let iter = match counted {
            true => quote_spanned!(at(iter.span())=> #collect::count(&mut results, #iter)),
            false => iter.to_token_stream(),
        };
        let body = match condition {
            Some((if_token, condition)) => quote!(#if_token #condition { #body }),
            None => body,
        };
        let label = (depth == 0).then(|| quote_spanned!(Span::mixed_site()=> 'procession:));
        quote!(#label #for_token #pat #in_token #iter { #body })
    });
    quote_spanned! {Span::mixed_site()=>
        let mut results = #collect::new(settings);
        #loops
        #collect::finish(results)
    }
}

fn side_by_side(calls: &[Call], collect: bool, krate: &Crate) -> TokenStream {
    let private = krate.private();
    let member = |i: usize| format_ident!("member{}", i, span = Span::mixed_site());
    let adds = calls.iter().enumerate().map(|(i, call)| {
        let (member, task) = (member(i), call.expand(krate));
        quote_spanned!(Span::mixed_site()=> let #member = #private::Group::add(&mut group, #task);)
    });
    let takes = (0..calls.len()).map(|i| {
        let member = member(i);
        match collect {
            false => quote_spanned!(Span::mixed_site()=> #private::Member::take(#member, &mut joined)),
            true => quote_spanned!(Span::mixed_site()=> #private::Member::outcome(#member, &mut joined)),
        }
    });
    let taken = match (calls.len(), collect) {
        (1, false) => quote!(#(#takes)*),
        (_, false) => quote_spanned!(Span::mixed_site()=> ::core::result::Result::Ok((#(#takes?),*))),
        (_, true) => quote_spanned!(Span::mixed_site()=> ::core::result::Result::Ok((#(#takes),*))),
    };
    let new = match collect {
        false => quote_spanned!(Span::mixed_site()=> #private::Group::new(settings)),
        true => quote_spanned!(Span::mixed_site()=> #private::Group::collecting(settings)),
    };
    quote_spanned! {Span::mixed_site()=>
        let mut group = #new;
        #(#adds)*
        ::core::result::Result::and_then(#private::Group::wait(group), |mut joined| #taken)
    }
}
