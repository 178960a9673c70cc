//! The grammar:
//!
//! ```text
//! parallel := [setting {"," setting} ";"] (comprehension | calls)
//! setting := name "=" expression
//! comprehension := call ["?"] clause {clause}
//! clause := "for" pattern "in" expression ["if" expression]
//! calls := call {"," call} [","]
//! ```
//!
//! The expressions of clauses are those of an ordinary `for` and `if`: no bare struct literals.

use proc_macro2::{Ident, Span};
use syn::{
    Expr, Pat, Token,
    ext::IdentExt,
    parse::{Parse, ParseStream},
};

use crate::{
    delayed::{Call, peel},
    diag::Diagnostics,
};

/// What stands in a `parallel!`.
#[derive(Debug)]
pub(super) struct Parallel {
    pub(super) settings: Vec<Setting>,
    pub(super) calls: Calls,
}

/// `jobs = 8`.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: Ident,
    pub(super) value: Expr,
}

#[derive(Debug)]
pub(super) enum Calls {
    Comprehension {
        call: Box<Call>,
        /// `call?`: the function's own first `Err` is what comes back.
        question: Option<Token![?]>,
        clauses: Vec<Clause>,
    },
    SideBySide(Vec<Call>),
}

/// `for pat in iter if condition`.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) for_token: Token![for],
    pub(super) pat: Pat,
    pub(super) in_token: Token![in],
    pub(super) iter: Expr,
    pub(super) condition: Option<(Token![if], Expr)>,
}

/// The settings that `Settings` has methods for.
const KNOWN: &[&str] = &["pool", "jobs", "batch"];

/// The settings that are on their way: naming one is no typing mistake.
const LATER: &[&str] = &["timeout", "retries", "verbose", "progress", "seed", "order", "on_error"];

const EXAMPLE: &str = "`parallel!(f(x) for x in xs)` or `parallel!(f(x), g(y))`";

impl Parse for Parallel {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut diag = Diagnostics::new();
        let settings = parse_settings(input, &mut diag);
        let calls = settings.and_then(|settings| Ok((settings, parse_calls(input)?)));
        match calls {
            Ok((settings, calls)) => {
                diag.finish()?;
                Ok(Self { settings, calls })
            }
            Err(error) => {
                diag.push(error);
                diag.finish()?;
                unreachable!("the error has just been pushed")
            }
        }
    }
}

fn parse_settings(input: ParseStream<'_>, diag: &mut Diagnostics) -> syn::Result<Vec<Setting>> {
    let mut settings: Vec<Setting> = Vec::new();
    while input.peek(Ident::peek_any) && input.peek2(Token![=]) && !input.peek2(Token![==]) {
        let name = input.call(Ident::parse_any)?;
        input.parse::<Token![=]>()?;
        let value: Expr = input.parse()?;
        if settings.iter().any(|setting| setting.name == name) {
            diag.refuse(&name, format_args!("`{name}` is set twice"));
        } else if LATER.iter().any(|later| name == later) {
            diag.refuse(&name, format_args!("`{name}` is not there yet: there are {}", known()));
        } else if !KNOWN.iter().any(|known| name == known) {
            diag.refuse(&name, format_args!("`{name}` is no setting of `parallel!`: there are {}", known()));
        }
        settings.push(Setting { name, value });
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            return Ok(settings);
        }
        let comma = input.parse::<Token![,]>().map_err(|error| {
            syn::Error::new(
                error.span(),
                "settings are parted by commas and end with a semicolon: `jobs = 8; f(x) for …`",
            )
        })?;
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            return Ok(settings);
        }
        if !(input.peek(Ident::peek_any) && input.peek2(Token![=])) {
            return Err(syn::Error::new_spanned(
                comma,
                "settings end with a semicolon: `parallel!(jobs = 8; f(x) for x in xs)`",
            ));
        }
    }
    Ok(settings)
}

fn known() -> String {
    let names: Vec<String> = KNOWN.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn parse_calls(input: ParseStream<'_>) -> syn::Result<Calls> {
    if input.is_empty() {
        let message = format_args!("`parallel!` takes calls of `#[worker]` functions: {EXAMPLE}");
        return Err(syn::Error::new(Span::call_site(), message));
    }
    let first: Expr = input.parse()?;
    if input.peek(Token![for]) {
        let (call, question) = match peel(&first) {
            Expr::Try(call) => (&*call.expr, Some(call.question_token)),
            call => (call, None),
        };
        let call = Box::new(Call::new(call, "parallel!", EXAMPLE)?);
        let mut clauses = Vec::new();
        while input.peek(Token![for]) {
            clauses.push(input.parse()?);
        }
        if !input.is_empty() {
            return Err(input.error("expected the end, `if condition`, or another `for pattern in iterator`"));
        }
        return Ok(Calls::Comprehension { call, question, clauses });
    }
    let mut diag = Diagnostics::new();
    let mut calls = Vec::new();
    let mut next = first;
    loop {
        match parse_member(&next) {
            Ok(call) => calls.push(call),
            Err(error) => diag.push(error),
        }
        if input.is_empty() {
            break;
        }
        let comma = input.parse::<Token![,]>();
        if let Err(error) = comma {
            diag.push(syn::Error::new(
                error.span(),
                "expected `for pattern in iterator`, or a comma and another call",
            ));
            break;
        }
        if input.is_empty() {
            break;
        }
        next = match input.parse() {
            Ok(expr) => expr,
            Err(error) => {
                diag.push(error);
                break;
            }
        };
        if let Ok(token) = input.parse::<Token![for]>() {
            diag.refuse(token, "a comprehension stands by itself: put the calls into two `parallel!`");
            break;
        }
    }
    // What follows a mistake is not looked at, and must not be complained about.
    if let Err(error) = diag.finish() {
        input.parse::<proc_macro2::TokenStream>()?;
        return Err(error);
    }
    Ok(Calls::SideBySide(calls))
}

fn parse_member(expr: &Expr) -> syn::Result<Call> {
    if let Expr::Try(call) = peel(expr) {
        return Err(syn::Error::new_spanned(
            call.question_token,
            "`?` after a call belongs to a comprehension: remove it, and use `?` on the members of the tuple",
        ));
    }
    Call::new(expr, "parallel!", EXAMPLE)
}

impl Parse for Clause {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let for_token = input.parse()?;
        let pat = Pat::parse_multi_with_leading_vert(input)?;
        let in_token = input.parse()?;
        let iter = Expr::parse_without_eager_brace(input)?;
        let condition = match input.parse::<Option<Token![if]>>()? {
            Some(token) => Some((token, Expr::parse_without_eager_brace(input)?)),
            None => None,
        };
        if input.peek(Token![if]) {
            return Err(input.error("one `if` for each `for`: join the conditions with `&&`"));
        }
        Ok(Self { for_token, pat, in_token, iter, condition })
    }
}
