//! Interprets a function as written: the parameters, which arguments may be omitted, and which instances exist.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{GenericParam, ItemFn, ReturnType};

use super::{argument::Param, parse::Written};
use crate::{
    diag::Diagnostics,
    path::{self, Crate, at},
    tokens::spaceless,
};

/// A worker function.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) krate: Crate,
    /// The function, without our own attributes on its parameters.
    pub(super) item: ItemFn,
    pub(super) params: Vec<Param>,
    /// The type of the result, as the macro's own tokens.
    pub(super) result: TokenStream,
    pub(super) instances: Option<Vec<Instance>>,
}

/// `<u32, 3>` of `instances`.
#[derive(Debug)]
pub(super) struct Instance {
    /// In the order of the generic parameters.
    pub(super) args: Vec<TokenStream>,
    pub(super) name: String,
}

impl Worker {
    pub(super) fn new(written: Written, diag: &mut Diagnostics) -> Self {
        let Written { options, mut item } = written;
        let params =
            item.sig.inputs.iter_mut().enumerate().filter_map(|(i, arg)| Param::new(i, arg, diag)).collect();
        let result = match &item.sig.output {
            ReturnType::Default => quote_spanned!(path::at(item.sig.ident.span())=> ()),
            ReturnType::Type(_, ty) => path::respan(ty),
        };
        let instances = options.instances.map(|instances| {
            let list = instances.list.into_iter();
            list.map(|list| Instance {
                name: spaceless(&list),
                args: list.args.into_iter().map(ToTokens::into_token_stream).collect(),
            })
            .collect()
        });
        let krate = options.krate.map_or_else(Crate::by_name, Crate::at);
        Self { krate, item, params, result, instances }
    }

    /// Returns the parameters without a default.
    pub(super) fn required(&self) -> usize {
        self.params.iter().filter(|param| param.default.is_none()).count()
    }

    /// Returns the calls by position: the number of arguments, and for each parameter whether it is among them.
    ///
    /// A call with fewer arguments than parameters omits the last defaults if they are the last parameters, and otherwise all of them.
    pub(super) fn positional(&self) -> Vec<Vec<bool>> {
        let (required, all) = (self.required(), self.params.len());
        let trailing = self.params[required..].iter().all(|param| param.default.is_some());
        let mut calls = Vec::new();
        if trailing {
            calls.extend((required..all).map(|n| (0..all).map(|i| i < n).collect()));
        } else {
            calls.push(self.params.iter().map(|param| param.default.is_none()).collect());
        }
        if required < all || calls.is_empty() {
            calls.push(vec![true; all]);
        }
        calls
    }

    /// Returns the name of the function, as the macro's own token.
    pub(super) fn name(&self) -> Ident {
        let mut name = self.item.sig.ident.clone();
        name.set_span(at(name.span()));
        name
    }

    /// Returns the `#[cfg]`s of the function, which also apply to the code beside it.
    pub(super) fn cfg(&self) -> TokenStream {
        let attrs = self.item.attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
        quote!(#(#attrs)*)
    }

    /// Returns the lifetimes of the function, with their bounds.
    pub(super) fn lifetimes(&self) -> TokenStream {
        let lifetimes = self.item.sig.generics.lifetimes();
        path::respan(quote!(#(#lifetimes),*))
    }

    /// Returns the type and const parameters, which an instance sets.
    pub(super) fn listed(&self) -> impl Iterator<Item = &GenericParam> {
        self.item.sig.generics.params.iter().filter(|param| !matches!(param, GenericParam::Lifetime(_)))
    }

    /// Returns the names of those.
    pub(super) fn listed_idents(&self) -> Vec<&Ident> {
        self.listed().map(ident_of).collect()
    }
}

pub(super) fn ident_of(param: &GenericParam) -> &Ident {
    match param {
        GenericParam::Type(param) => &param.ident,
        GenericParam::Const(param) => &param.ident,
        GenericParam::Lifetime(param) => &param.lifetime.ident,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(item: TokenStream) -> Worker {
        let mut diag = Diagnostics::new();
        let written = Written::parse(TokenStream::new(), item, &mut diag).unwrap();
        let worker = Worker::new(written, &mut diag);
        diag.finish().unwrap();
        worker
    }

    #[test]
    fn calls_by_position_leave_out_defaults_from_the_end_or_all_of_them() {
        let check = |item: TokenStream, wanted: &[&[bool]]| assert_eq!(worker(item).positional(), wanted);
        check(
            quote!(
                fn f() {}
            ),
            &[&[]],
        );
        check(
            quote!(
                fn f(a: u8, b: u8) {}
            ),
            &[&[true, true]],
        );
        check(
            quote!(
                fn f(a: u8, #[default(1)] b: u8) {}
            ),
            &[&[true, false], &[true, true]],
        );
        check(
            quote!(
                fn f(#[default(1)] a: u8, #[default(1)] b: u8) {}
            ),
            &[&[false, false], &[true, false], &[true, true]],
        );
        check(
            quote!(
                fn f(#[default(1)] a: u8, b: u8, #[default(1)] c: u8) {}
            ),
            &[&[false, true, false], &[true, true, true]],
        );
    }

    #[test]
    fn the_function_keeps_everything_but_our_attributes() {
        let before = "#[inline] pub(crate) fn f(#[default(1)] #[allow(unused)] a: u8) -> u8 { a }";
        let after: ItemFn = syn::parse_str(&before.replace("#[default(1)]", "")).unwrap();
        assert_eq!(worker(before.parse().unwrap()).item, after);
    }
}
