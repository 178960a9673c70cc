//! Parameters: everything that differs by the kind of a parameter.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, Expr, FnArg, Lifetime, Pat, PathArguments, Type, parse_quote,
    spanned::Spanned,
    visit_mut::{self, VisitMut},
};

use super::{
    generics::{ident_of, names_one_of},
    model::Worker,
};
use crate::{
    diag::Diagnostics,
    path::{self, at, respan},
};

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

impl Param {
    pub(super) fn new(i: usize, arg: &mut FnArg, diag: &mut Diagnostics) -> Option<Self> {
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
fn peel(mut ty: &Type) -> &Type {
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
pub(super) fn spaceless(tokens: &impl ToTokens) -> String {
    let words = tokens.to_token_stream().to_string();
    words.replace(" ,", ",").replace("< ", "<").replace(" <", "<").replace(" >", ">").replace(" :: ", "::")
}

/// What an argument is called where the function is: no name that the function itself could have.
pub(super) fn argument(i: usize) -> Ident {
    format_ident!("__argument{}", i, span = Span::mixed_site())
}

/// `let __argument0 = …`, from the encoded arguments.
pub(super) fn take(private: &TokenStream, i: usize, param: &Param) -> TokenStream {
    let (binding, name, span) = (argument(i), &param.name, param.span());
    let input = Ident::new("__input", Span::mixed_site());
    let take = |ty: &Type| {
        let ty = respan(elided(ty));
        quote_spanned!(span=> #private::Input::take::<#ty>(&mut #input, #name)?)
    };
    let check = checked(param).map(|ty| check(private, &ty));
    let value = match &param.travels {
        Travels::Value => take(&param.ty),
        Travels::Lent(ty) => take(ty),
        Travels::Slice(elem) => {
            let elem = respan(elided(elem));
            quote_spanned!(span=> #private::Input::take_slice::<#elem>(&mut #input, #name)?)
        }
        Travels::Bytes => quote_spanned!(span=> #private::Input::take_bytes(&mut #input, #name)?),
        Travels::ByteVec | Travels::LentByteVec => {
            quote_spanned!(span=> #private::Input::take_byte_vec(&mut #input, #name)?)
        }
        Travels::Path => quote_spanned!(span=> #private::Input::take_path(&mut #input, #name)?),
        Travels::PathBuf | Travels::LentPathBuf => {
            quote_spanned!(span=> #private::Path::to_path_buf(#private::Input::take_path(&mut #input, #name)?))
        }
    };
    quote_spanned!(span=> #check let #binding = #value;)
}

/// The type whose values, one or many, an argument is.
fn checked(param: &Param) -> Option<Type> {
    match &param.travels {
        Travels::Value if borrowed(&param.ty).is_none() => Some(elided(&param.ty)),
        Travels::Lent(ty) | Travels::Slice(ty) => Some(elided(ty)),
        _ => None,
    }
}

/// Asks that a type crosses. It is asked in the same words wherever an argument is encoded and decoded: the compiler shows errors that are
/// the same once, and none of those that follow from them.
fn check(private: &TokenStream, ty: &Type) -> TokenStream {
    let (span, ty) = (at(ty.span()), respan(ty));
    quote_spanned!(span=> let _ = #private::argument::<#ty>;)
}

/// `args.put("n", &n);`
pub(super) fn put(worker: &Worker, param: &Param, args: &TokenStream) -> TokenStream {
    let private = &worker.krate.private();
    let idents: Vec<&Ident> = worker.listed().map(ident_of).collect();
    // What names a parameter of the function crosses if what an instance gives does: the instance asks.
    let checked = checked(param).filter(|ty| !names_one_of(&ty.to_token_stream(), &idents));
    let check = checked.map(|ty| check(private, &ty));
    let (name, value, span) = (&param.name, &param.binding, param.span());
    let (put, value) = match &param.travels {
        Travels::Value => match borrowed(&param.ty) {
            Some(elem) => (typed_put(&respan(elem)), quote!(#value)),
            None => (typed_put(&param.signature_type()), quote!(&#value)),
        },
        Travels::Lent(ty) => (typed_put(&respan(ty)), quote!(#value)),
        Travels::Slice(elem) => {
            let elem = respan(elem);
            (quote!(put_slice::<#elem>), quote!(#value))
        }
        Travels::Bytes | Travels::LentByteVec => (quote!(put_bytes), quote!(#value)),
        Travels::ByteVec => (quote!(put_byte_vec), quote!(#value)),
        Travels::Path | Travels::LentPathBuf => (quote!(put_path), quote!(#value)),
        Travels::PathBuf => (quote!(put_path), quote!(&#value)),
    };
    quote_spanned!(span=> #check #private::Args::#put(#args, #name, #value);)
}

fn typed_put(ty: &TokenStream) -> TokenStream {
    quote!(put::<#ty>)
}

/// `str` of `&str`.
fn borrowed(ty: &Type) -> Option<&Type> {
    match peel(ty) {
        Type::Reference(reference) => Some(&reference.elem),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
