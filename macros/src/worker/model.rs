//! What was written to what it means: how each argument travels, what may be left out, which instances there are.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, Expr, FnArg, GenericParam, ItemFn, Lifetime, Pat, PathArguments, ReturnType, Type,
    parse_quote,
    spanned::Spanned,
    visit_mut::{self, VisitMut},
};

use super::parse::Written;
use crate::{
    diag::Diagnostics,
    path::{self, Crate},
};

/// A worker function.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) krate: Crate,
    /// The function, without our own attributes on its parameters.
    pub(super) item: ItemFn,
    pub(super) params: Vec<Param>,
    /// The result's type, as the macro's own tokens.
    pub(super) result: TokenStream,
    pub(super) instances: Option<Vec<Instance>>,
}

/// One parameter.
#[derive(Debug)]
pub(super) struct Param {
    /// What messages call it.
    pub(super) name: String,
    /// What expansions call it.
    pub(super) binding: Ident,
    pub(super) ty: Type,
    pub(super) travels: Travels,
    pub(super) default: Option<Default>,
}

/// `#[default(expr)]`.
#[derive(Debug)]
pub(super) struct Default {
    pub(super) expr: Expr,
    /// The parameter's own name, by which calls give it.
    pub(super) name: Ident,
}

/// How an argument goes over: what is encoded, what is decoded, what the function gets.
#[derive(Debug)]
pub(super) enum Travels {
    /// A value, borrowed strings included: encoded and decoded as what it is.
    Value,
    /// `Vec<u8>`: in one copy.
    ByteVec,
    /// `PathBuf`: any bytes.
    PathBuf,
    /// `&[u8]`: lent from the message.
    Bytes,
    /// `&Path`: lent from the message.
    Path,
    /// `&Vec<u8>`.
    LentByteVec,
    /// `&PathBuf`.
    LentPathBuf,
    /// `&[T]`: decoded as a vector, and lent.
    Slice(Type),
    /// `&T`: decoded and lent.
    Lent(Type),
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

    /// The parameters that a call must give.
    pub(super) fn required(&self) -> usize {
        self.params.iter().filter(|param| param.default.is_none()).count()
    }

    /// The calls by position: how many arguments they give, and for each parameter whether it is among them.
    ///
    /// A call with fewer arguments than parameters leaves out the last defaults, if they are the last parameters; otherwise all.
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

    /// The lifetimes of the function, with their bounds.
    pub(super) fn lifetimes(&self) -> TokenStream {
        let lifetimes = self.item.sig.generics.lifetimes();
        path::respan(quote!(#(#lifetimes),*))
    }

    /// The type and const parameters: what an instance gives.
    pub(super) fn listed(&self) -> impl Iterator<Item = &GenericParam> {
        self.item.sig.generics.params.iter().filter(|param| !matches!(param, GenericParam::Lifetime(_)))
    }
}

impl Param {
    fn new(i: usize, arg: &mut FnArg, diag: &mut Diagnostics) -> Option<Self> {
        let FnArg::Typed(arg) = arg else { return None };
        let own_name = match &*arg.pat {
            Pat::Ident(pat) => Some(pat.ident.clone()),
            _ => None,
        };
        let default = take_default(&mut arg.attrs, own_name.as_ref(), &arg.pat, diag);
        let name = match &own_name {
            Some(ident) => path::plain(ident),
            None => spaceless(&arg.pat),
        };
        let binding = match &own_name {
            Some(ident) => {
                let mut binding = ident.clone();
                binding.set_span(path::at(ident.span()));
                binding
            }
            None => format_ident!("argument{}", i, span = path::at(arg.pat.span())),
        };
        let ty = (*arg.ty).clone();
        Some(Self { name, binding, travels: Travels::of(&ty), ty, default })
    }

    /// The place of its type, for errors.
    pub(super) fn span(&self) -> Span {
        path::at(self.ty.span())
    }

    /// Its type, as the macro's own tokens.
    pub(super) fn signature_type(&self) -> TokenStream {
        path::respan(&self.ty)
    }
}

/// The `#[default(expr)]` among a parameter's attributes, taken out.
fn take_default(
    attrs: &mut Vec<Attribute>,
    own_name: Option<&Ident>,
    pat: &Pat,
    diag: &mut Diagnostics,
) -> Option<Default> {
    let mut default = None;
    attrs.retain(|attr| {
        if !attr.path().is_ident("default") {
            return true;
        }
        let expr = match attr.parse_args::<Expr>() {
            Ok(expr) => expr,
            Err(_) => {
                diag.refuse(attr, "a default is an expression in parentheses: `#[default(0.5)]`");
                return false;
            }
        };
        match own_name {
            _ if default.is_some() => diag.refuse(attr, "a parameter has one default"),
            Some(name) => default = Some(Default { expr, name: name.clone() }),
            None => diag
                .refuse(pat, "a parameter with a default is given by name: write a name here, not a pattern"),
        }
        false
    });
    default
}

impl Travels {
    fn of(ty: &Type) -> Self {
        let Type::Reference(reference) = peel(ty) else {
            return match () {
                () if is_byte_vec(ty) => Self::ByteVec,
                () if is_plain(ty, "PathBuf") => Self::PathBuf,
                () => Self::Value,
            };
        };
        match peel(&reference.elem) {
            Type::Slice(slice) if is_plain(&slice.elem, "u8") => Self::Bytes,
            Type::Slice(slice) => Self::Slice((*slice.elem).clone()),
            elem if is_plain(elem, "str") => Self::Value,
            elem if is_plain(elem, "Path") => Self::Path,
            elem if is_plain(elem, "PathBuf") => Self::LentPathBuf,
            elem if is_byte_vec(elem) => Self::LentByteVec,
            elem => Self::Lent(elem.clone()),
        }
    }
}

/// The type inside parentheses and the invisible groups of `macro_rules!`.
pub(super) fn peel(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        };
    }
}

/// Whether the type's last name is this one, without arguments.
fn is_plain(ty: &Type, name: &str) -> bool {
    let Type::Path(path) = peel(ty) else { return false };
    path.qself.is_none()
        && path.path.segments.last().is_some_and(|last| last.ident == name && last.arguments.is_empty())
}

fn is_byte_vec(ty: &Type) -> bool {
    let Type::Path(path) = peel(ty) else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    let PathArguments::AngleBracketed(list) = &last.arguments else { return false };
    let mut args = list.args.iter();
    path.qself.is_none()
        && last.ident == "Vec"
        && matches!((args.next(), args.next()), (Some(syn::GenericArgument::Type(ty)), None) if is_plain(ty, "u8"))
}

/// Every lifetime left to inference: the worker lends for as long as its call takes.
pub(super) fn elided(ty: &Type) -> Type {
    struct Elide;
    impl VisitMut for Elide {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident != "static" {
                *lifetime = Lifetime::new("'_", lifetime.span());
            }
        }

        fn visit_type_fn_ptr_mut(&mut self, _: &mut syn::TypeFnPtr) {}
    }
    let mut ty = ty.clone();
    visit_mut::visit_type_mut(&mut Elide, &mut ty);
    parse_quote!(#ty)
}

/// Tokens as a person writes them, near enough for a message.
fn spaceless(tokens: &impl ToTokens) -> String {
    let words = tokens.to_token_stream().to_string();
    words.replace(" ,", ",").replace("< ", "<").replace(" <", "<").replace(" >", ">").replace(" :: ", "::")
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
    fn each_type_travels_its_own_way() {
        let check = |ty: Type, wanted: &str| {
            let travels = format!("{:?}", Travels::of(&ty));
            assert!(travels.starts_with(wanted), "{} travels as {travels}", quote!(#ty));
        };
        check(parse_quote!(u32), "Value");
        check(parse_quote!(&str), "Value");
        check(parse_quote!(&'a (str)), "Value");
        check(parse_quote!(Option<&[u8]>), "Value");
        check(parse_quote!(Vec<u8>), "ByteVec");
        check(parse_quote!(std::vec::Vec<u8>), "ByteVec");
        check(parse_quote!(Vec<u16>), "Value");
        check(parse_quote!(&[u8]), "Bytes");
        check(parse_quote!(&[u16]), "Slice");
        check(parse_quote!(&[u8; 4]), "Lent");
        check(parse_quote!(&Vec<u8>), "LentByteVec");
        check(parse_quote!(PathBuf), "PathBuf");
        check(parse_quote!(&std::path::Path), "Path");
        check(parse_quote!(&PathBuf), "LentPathBuf");
        check(parse_quote!(&Path<u8>), "Lent");
        check(parse_quote!(&&str), "Lent");
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
