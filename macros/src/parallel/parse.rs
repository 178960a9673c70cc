//! The grammar:
//!
//! ```text
//! parallel := [setting {"," setting} ";"] (comprehension | calls)
//! setting := name "=" expression | word-name ("=" word | "(" word ")")
//! comprehension := call ["?"] clause {clause}
//! clause := "for" pattern "in" expression ["if" expression]
//! calls := call {"," call} [","]
//! ```
//!
//! The expressions of clauses are those of an ordinary `for` and `if`: no bare struct literals.

use proc_macro2::{Ident, Span};
use syn::{
    Expr, ExprLit, ExprPath, Lit, Pat, Token, UnOp,
    ext::IdentExt,
    parse::{Parse, ParseStream},
};

use crate::{
    delayed::{Call, peel},
    diag::Diagnostics,
};

/// The contents of a `parallel!`.
#[derive(Debug)]
pub(super) struct Parallel {
    pub(super) settings: Settings,
    pub(super) calls: Calls,
}

/// The settings before the semicolon.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The settings with a value, in order: `jobs = 8`.
    pub(super) values: Vec<Setting>,
    /// `order = unordered`.
    pub(super) unordered: Option<Ident>,
    /// `on_error = collect`.
    pub(super) collect: Option<Ident>,
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
        /// `call?`: returns the function's own first `Err`.
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

/// The settings, in the order in which they are listed. All but the last two have a value, and `Settings` a method of their name.
const KNOWN: &[&str] =
    &["pool", "jobs", "batch", "timeout", "retries", "seed", "verbose", "progress", "order", "on_error"];

/// The settings whose value is one of these words.
const WORDS: &[(&str, [&str; 2])] = &[("order", ["ordered", "unordered"]), ("on_error", ["stop", "collect"])];

const EXAMPLE: &str = "`parallel!(f(x) for x in xs)` or `parallel!(f(x), g(y))`";

impl Parse for Parallel {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut diag = Diagnostics::new();
        let settings = parse_settings(input, &mut diag);
        let calls = settings.and_then(|settings| Ok((settings, parse_calls(input)?)));
        match calls {
            Ok((settings, calls)) => {
                if let (Some(order), Calls::SideBySide(_)) = (&settings.unordered, &calls) {
                    diag.refuse(
                        order,
                        "`order` is for comprehensions only: the order of a tuple is fixed, so remove it",
                    );
                }
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

fn parse_settings(input: ParseStream<'_>, diag: &mut Diagnostics) -> syn::Result<Settings> {
    let mut settings = Settings::default();
    let mut given: Vec<Ident> = Vec::new();
    while is_setting(input) {
        let name = input.call(Ident::parse_any)?;
        let value: Expr = match input.parse::<Option<Token![=]>>()? {
            Some(_) => input.parse()?,
            None => {
                let value;
                syn::parenthesized!(value in input);
                value.parse()?
            }
        };
        if given.contains(&name) {
            diag.refuse(&name, format_args!("`{name}` is set twice"));
        } else if !KNOWN.iter().any(|known| name == known) {
            diag.refuse(
                &name,
                format_args!("`{name}` is not a setting of `parallel!`; the settings are {}", known()),
            );
        } else {
            settings.take(&name, value, diag);
        }
        given.push(name);
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            return Ok(settings);
        }
        let comma = input.parse::<Token![,]>().map_err(|error| {
            syn::Error::new(
                error.span(),
                "separate settings with commas and end them with a semicolon: `jobs = 8; f(x) for …`",
            )
        })?;
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            return Ok(settings);
        }
        if !is_setting(input) {
            return Err(syn::Error::new_spanned(
                comma,
                "settings end with a semicolon: `parallel!(jobs = 8; f(x) for x in xs)`",
            ));
        }
    }
    Ok(settings)
}

/// Returns whether a setting follows, and not a call.
fn is_setting(input: ParseStream<'_>) -> bool {
    if !input.peek(Ident::peek_any) {
        return false;
    }
    if input.peek2(Token![=]) {
        return !input.peek2(Token![==]);
    }
    // `order(unordered)` is a setting, but a function may be called `order`.
    let ahead = input.fork();
    let Ok(name) = ahead.call(Ident::parse_any) else { return false };
    let Some((_, words)) = WORDS.iter().find(|(word, _)| name == word) else { return false };
    let is_word =
        |content: ParseStream<'_>| content.parse::<Ident>().is_ok_and(|word| is_among(&word, words));
    let Ok(is_word) = parenthesized_by(&ahead, is_word) else { return false };
    ahead.peek(Token![;]) || (is_word && ahead.peek(Token![,]))
}

fn parenthesized_by(input: ParseStream<'_>, look: impl Fn(ParseStream<'_>) -> bool) -> syn::Result<bool> {
    let content;
    syn::parenthesized!(content in input);
    let found = look(&content);
    Ok(found && content.is_empty())
}

fn is_among(word: &Ident, words: &[&str]) -> bool {
    words.iter().any(|known| word == known)
}

impl Settings {
    /// Adds a setting with a known name.
    fn take(&mut self, name: &Ident, value: Expr, diag: &mut Diagnostics) {
        if let Some((_, words)) = WORDS.iter().find(|(word, _)| name == word) {
            let Some(word) = word_of(&value).filter(|word| is_among(word, words)) else {
                let [one, other] = words;
                return diag.refuse(&value, format_args!("`{name}` is `{one}` or `{other}`"));
            };
            match &*word.to_string() {
                "unordered" => self.unordered = Some(name.clone()),
                "collect" => self.collect = Some(name.clone()),
                _ => {}
            }
        } else if name == "batch" && is_auto(&value) {
            // Found by measuring, like without the setting.
        } else if let ("jobs" | "batch" | "retries" | "seed" | "verbose", Some(example)) =
            (&*name.to_string(), is_fraction(&value).then(|| whole_example(name)))
        {
            diag.refuse(&value, format_args!("`{name}` is a whole number: {example}"));
        } else {
            self.values.push(Setting { name: name.clone(), value });
        }
    }
}

fn whole_example(name: &Ident) -> &'static str {
    if name == "jobs" {
        "`jobs = 4` for four workers, `jobs = -1` for all the CPUs, `jobs = -2` for all but one"
    } else {
        "a fraction is not allowed"
    }
}

/// Returns the word that the expression consists of.
fn word_of(expr: &Expr) -> Option<&Ident> {
    match peel(expr) {
        Expr::Path(ExprPath { qself: None, path, .. }) => path.get_ident(),
        _ => None,
    }
}

/// Returns whether it is `auto`, or `"auto"` as in Python.
fn is_auto(expr: &Expr) -> bool {
    match peel(expr) {
        Expr::Lit(ExprLit { lit: Lit::Str(word), .. }) => word.value() == "auto",
        expr => word_of(expr).is_some_and(|word| word == "auto"),
    }
}

/// Returns whether it is a number with a point or an exponent.
fn is_fraction(expr: &Expr) -> bool {
    match peel(expr) {
        Expr::Lit(ExprLit { lit: Lit::Float(_), .. }) => true,
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => is_fraction(&unary.expr),
        Expr::Paren(paren) => is_fraction(&paren.expr),
        _ => false,
    }
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
    match input.peek(Token![for]) {
        true => parse_comprehension(&first, input),
        false => parse_members(first, input),
    }
}

fn parse_comprehension(first: &Expr, input: ParseStream<'_>) -> syn::Result<Calls> {
    let (call, question) = match peel(first) {
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
    Ok(Calls::Comprehension { call, question, clauses })
}

fn parse_members(first: Expr, input: ParseStream<'_>) -> syn::Result<Calls> {
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
            diag.refuse(token, "a comprehension must stand alone: use two `parallel!`");
            break;
        }
    }
    // Tokens after a mistake are skipped without further errors.
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
            "`?` after a call works in comprehensions only: remove it, and use `?` on the members of the tuple",
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
            return Err(input.error("only one `if` is allowed for each `for`: join the conditions with `&&`"));
        }
        Ok(Self { for_token, pat, in_token, iter, condition })
    }
}
