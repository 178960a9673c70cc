//! Expands `delayed!`: one call of a worker function, by position and by name, as a task.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::{Expr, Path, PathArguments, parse::ParseStream, spanned::Spanned};

use crate::{
    diag::{Diagnostics, in_expression},
    path::{Crate, at},
};

/// `[$crate] call`: the tokens that the `macro_rules!` of the same name passes on.
pub(crate) fn expand(input: TokenStream) -> TokenStream {
    let (krate, input) = reached_by(input);
    let parse = |input: ParseStream<'_>| {
        if input.is_empty() {
            let message = format_args!("`delayed!` takes a call of a `#[worker]` function: {DELAYED}");
            return Err(syn::Error::new(Span::call_site(), message));
        }
        let expr: Expr = input.parse()?;
        let call = Call::new(&expr, "delayed!", DELAYED)?;
        if !input.is_empty() {
            return Err(input.error(format_args!("`delayed!` takes one call: {DELAYED}")));
        }
        Ok(call)
    };
    match syn::parse::Parser::parse2(parse, input) {
        Ok(call) => call.expand(&krate),
        Err(error) => in_expression(&error),
    }
}

const DELAYED: &str = "`delayed!(f(x))`";

/// Removes the path of the crate from the front and returns it.
pub(crate) fn reached_by(input: TokenStream) -> (Crate, TokenStream) {
    let mut tokens = input.into_iter();
    match tokens.next() {
        Some(TokenTree::Group(path)) => (Crate::at(path.stream()), tokens.collect()),
        _ => (Crate::by_name(), tokens.collect()),
    }
}

/// `path::f(a, b, name = c)`, or `path::f(_, b)`.
#[derive(Debug)]
pub(crate) struct Call {
    /// The function, without the arguments of its last segment.
    function: Path,
    /// `<u32>` of `f::<u32>(v)`.
    turbofish: PathArguments,
    /// The first argument is `_`. It is not among those by position.
    is_filled_in: bool,
    by_position: Vec<Expr>,
    by_name: Vec<(Ident, Expr)>,
}

impl Call {
    /// Returns the call that `expr` is. `place` and `example` are used in the error for anything else.
    pub(crate) fn new(expr: &Expr, place: &str, example: &str) -> syn::Result<Self> {
        let refuse = |expr: &Expr, why: &str| {
            let message = format!("`{place}` takes a call of a `#[worker]` function: {example}{why}");
            Err(syn::Error::new_spanned(expr, message))
        };
        let call = match peel(expr) {
            Expr::Call(call) => call,
            Expr::MethodCall(_) => {
                return refuse(expr, "; for a method, write a worker that takes the value as an argument");
            }
            Expr::Path(_) => return refuse(expr, "; pass the arguments here, too"),
            Expr::Closure(_) => {
                return refuse(expr, "; another process cannot find a closure: write a `#[worker]` function");
            }
            Expr::Macro(_) => return refuse(expr, "; a macro call is not expanded here"),
            _ => return refuse(expr, ""),
        };
        let function = match peel(&call.func) {
            Expr::Path(path) if path.qself.is_none() => path.path.clone(),
            _ => return refuse(expr, ", by the function's name"),
        };
        let mut call = Self::of(function, call, place)?;
        let last = call.function.segments.last_mut().expect("a path has a segment");
        call.turbofish = std::mem::take(&mut last.arguments);
        Ok(call)
    }

    fn of(function: Path, call: &syn::ExprCall, place: &str) -> syn::Result<Self> {
        let mut diag = Diagnostics::new();
        let mut is_filled_in = false;
        let mut by_position = Vec::new();
        let mut by_name: Vec<(Ident, Expr)> = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            match arg {
                Expr::Infer(_) if i > 0 => diag.refuse(
                    arg,
                    "`_` stands for the value that a manager fills in, which is the function's first argument",
                ),
                Expr::Infer(_) if place != "delayed!" => diag.refuse(
                    arg,
                    "`_` stands for the value that a manager fills in: `dict.update(&key, delayed!(f(_, 1)))`",
                ),
                Expr::Infer(_) => is_filled_in = true,
                Expr::Assign(assign) if is_filled_in => {
                    diag.refuse(assign, "a call with `_` gives its other arguments by position");
                }
                Expr::Assign(assign) => match peel(&assign.left) {
                    Expr::Path(path) if path.path.get_ident().is_some() => {
                        let name = path.path.get_ident().expect("just asked").clone();
                        if by_name.iter().any(|(given, _)| *given == name) {
                            diag.refuse(&name, format_args!("`{name}` is given twice"));
                        }
                        by_name.push((name, (*assign.right).clone()));
                    }
                    left => diag.refuse(
                        left,
                        "an argument is given by the name of its parameter: `f(x, scale = 0.5)`",
                    ),
                },
                arg if by_name.is_empty() => by_position.push(arg.clone()),
                arg => diag.refuse(arg, "positional arguments must come before named ones"),
            }
        }
        diag.finish()?;
        Ok(Self { function, turbofish: PathArguments::None, is_filled_in, by_position, by_name })
    }

    /// Returns the task as an expression.
    pub(crate) fn expand(&self, krate: &Crate) -> TokenStream {
        let Self { function, turbofish, is_filled_in, by_position, by_name } = self;
        let private = krate.private();
        let name = &function.segments.last().expect("a path has a segment").ident;
        let span = at(name.span());
        let turbofish = match turbofish {
            PathArguments::AngleBracketed(list) => {
                let args = &list.args;
                quote!(::<#args>)
            }
            _ => quote!(),
        };
        let n = by_position.len();
        let start = match (by_name.is_empty(), is_filled_in) {
            (true, false) => format_ident!("__call{}", n, span = span),
            (true, true) => format_ident!("__fill{}", n + 1, span = span),
            (false, _) => format_ident!("__with{}", n, span = span),
        };
        let task = quote_spanned!(span=> <#function>::#start #turbofish(#(#by_position),*));
        let task = match by_name.is_empty() {
            true => task,
            false => {
                let setters = by_name.iter().map(|(name, value)| {
                    let span = value.span();
                    quote_spanned!(span=> .#name(#value))
                });
                quote_spanned!(span=> #task #(#setters)* .__task())
            }
        };
        quote_spanned! {Span::mixed_site()=>
            {
                use #private::WrongArity as _;
                #task
            }
        }
    }
}

/// Returns the expression inside the invisible groups of `macro_rules!`.
pub(crate) fn peel(mut expr: &Expr) -> &Expr {
    while let Expr::Group(group) = expr {
        expr = &group.expr;
    }
    expr
}
