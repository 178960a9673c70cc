//! Defines parameters, with everything that depends on the kind of a parameter.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, Expr, FnArg, Lifetime, Pat, PathArguments, Type, TypeReference, parse_quote,
    spanned::Spanned,
    visit::Visit,
    visit_mut::{self, VisitMut},
};

use crate::{
    diag::Diagnostics,
    path::{self, at, respan},
    tokens::{names_one_of, spaceless},
};

/// One parameter.
#[derive(Debug)]
pub(super) struct Param {
    /// Its name in messages.
    pub(super) name: String,
    /// Its name in expansions.
    pub(super) binding: Ident,
    pub(super) ty: Type,
    kind: Kind,
    pub(super) default: Option<Default>,
}

/// `#[default(expr)]`.
#[derive(Debug)]
pub(super) struct Default {
    pub(super) expr: Expr,
    /// The name of the parameter, which calls use.
    pub(super) name: Ident,
}

/// The kind of a parameter: how it is encoded and decoded, and what the function receives.
///
/// A new kind is a variant with an arm in each of [`of`](Self::of), [`put`](Self::put), [`take`](Self::take) and
/// [`lend`](Self::lend).
#[derive(Debug)]
enum Kind {
    /// A value that is encoded and decoded as its own type.
    Value(Type),
    /// `&str`, lent from the message or from shared memory.
    Str,
    /// `Vec<u8>`, copied once.
    ByteVec,
    /// `PathBuf`, which may contain any bytes.
    PathBuf,
    /// `&[u8]`, lent from the message or from shared memory.
    Bytes,
    /// `&Path`, lent from the message.
    Path,
    /// `&Vec<u8>`.
    LentByteVec,
    /// `&PathBuf`.
    LentPathBuf,
    /// `&[T]`, decoded as a vector, or lent from shared memory.
    Slice(Type),
    /// `&T`, decoded and lent, or lent from shared memory.
    Lent(Type),
    /// `&T` of a `T` that borrows itself. What lives as long as one call is not kept for the next one.
    LentBorrower(Type),
    /// `&mut [T]` of plain data, written where the caller has lent it.
    SliceMut(Type),
}

impl Param {
    pub(super) fn new(i: usize, arg: &mut FnArg, diag: &mut Diagnostics) -> Option<Self> {
        let FnArg::Typed(arg) = arg else { return None };
        let own_name = match &*arg.pat {
            Pat::Ident(pat) => Some(pat.ident.clone()),
            _ => None,
        };
        let kind = Kind::of(&arg.ty);
        let default = take_default(&mut arg.attrs, own_name.as_ref(), &arg.pat, diag);
        if let (Kind::SliceMut(_), Some(default)) = (&kind, &default) {
            diag.refuse(
                &default.expr,
                "a slice that the function writes is lent by its caller, and has no default",
            );
        }
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
        Some(Self { name, binding, kind, ty, default })
    }

    /// Returns the location of its type, for errors.
    pub(super) fn span(&self) -> Span {
        path::at(self.ty.span())
    }

    /// Returns its type, as the macro's own tokens.
    pub(super) fn signature_type(&self) -> TokenStream {
        path::respan(&self.ty)
    }

    /// Returns whether its type can be a parameter of a call.
    pub(super) fn is_given_as_it_is(&self) -> bool {
        !matches!(self.kind, Kind::SliceMut(_))
    }

    /// Returns the type of the argument in a call.
    pub(super) fn given_type(&self, private: &TokenStream) -> TokenStream {
        match &self.kind {
            Kind::SliceMut(elem) => {
                let elem = respan(elem);
                quote_spanned!(self.span()=> impl #private::LendMut<#elem>)
            }
            _ => self.signature_type(),
        }
    }

    /// Returns the same type with inferred lifetimes.
    pub(super) fn elided_type(&self) -> TokenStream {
        respan(elided(&self.ty))
    }

    /// Returns the type of a value that can be filled in as the argument: what the function takes, or what it borrows. Returns `None` if
    /// no value of its own can be.
    pub(super) fn owned_type(&self, private: &TokenStream) -> Option<TokenStream> {
        Some(match &self.kind {
            Kind::Value(ty) | Kind::Lent(ty) if !borrows(ty) => respan(ty),
            Kind::Slice(ty) if !borrows(ty) => {
                let ty = respan(ty);
                quote!(#private::Vec<#ty>)
            }
            Kind::Str => quote!(#private::String),
            Kind::ByteVec | Kind::LentByteVec | Kind::Bytes => {
                quote!(#private::Vec<::core::primitive::u8>)
            }
            Kind::PathBuf | Kind::LentPathBuf | Kind::Path => quote!(#private::PathBuf),
            Kind::Value(_) | Kind::Lent(_) | Kind::LentBorrower(_) | Kind::Slice(_) | Kind::SliceMut(_) => {
                return None;
            }
        })
    }

    /// Returns whether the function may borrow the argument from shared memory.
    pub(super) fn is_lent(&self) -> bool {
        matches!(self.kind, Kind::Str | Kind::Bytes | Kind::Slice(_) | Kind::Lent(_))
    }

    /// Returns the type whose encoding is used for the argument or for its elements.
    pub(super) fn encoded_type(&self) -> Option<&Type> {
        match &self.kind {
            Kind::Value(ty) | Kind::Lent(ty) | Kind::LentBorrower(ty) | Kind::Slice(ty) => Some(ty),
            _ => None,
        }
    }

    /// Returns `args.put("n", &n);`. The `generics` are the type and const parameters of the function, whose entry is `entry`.
    pub(super) fn put(
        &self,
        private: &TokenStream,
        generics: &[&Ident],
        entry: &TokenStream,
        args: &TokenStream,
    ) -> TokenStream {
        // A type that contains a parameter of the function can be sent if the type of the instance can. The instance checks that.
        let check = self.check(private, |ty| !names_one_of(&ty.to_token_stream(), generics));
        let (name, span) = (&self.name, self.span());
        let (put, value) = self.kind.put(private, &self.binding, entry);
        quote_spanned!(span=> #check #private::Args::#put(#args, #name, #value);)
    }

    /// Requires that the argument can be sent, if its type is among those to check.
    fn check(&self, private: &TokenStream, is_checked: impl Fn(&Type) -> bool) -> Option<TokenStream> {
        let (requirement, ty) = match &self.kind {
            Kind::SliceMut(elem) => ("plain", elem),
            _ => ("argument", self.encoded_type()?),
        };
        is_checked(ty).then(|| check(private, requirement, ty))
    }

    /// Returns `let __argument0 = …`, which decodes the argument.
    pub(super) fn take(&self, private: &TokenStream, i: usize) -> TokenStream {
        let (binding, name, span) = (argument(i), &self.name, self.span());
        let input = Ident::new("__input", Span::mixed_site());
        let check = self.check(private, |_| true);
        let take = self.kind.take();
        let value = quote_spanned!(span=> #private::Input::#take(&mut #input, #name)?);
        let mutable = matches!(self.kind, Kind::SliceMut(_)).then(|| quote!(mut));
        quote_spanned!(span=> #check let #mutable #binding = #value;)
    }

    /// Returns the argument of the function: `__argument0`, or a reference to it.
    pub(super) fn lend(&self, i: usize) -> TokenStream {
        self.kind.lend(&argument(i))
    }
}

/// Removes the `#[default(expr)]` from a parameter's attributes and returns it.
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

impl Kind {
    /// Returns the kind of a type.
    fn of(ty: &Type) -> Self {
        let Type::Reference(reference) = peel(ty) else {
            return match () {
                () if is_byte_vec(ty) => Self::ByteVec,
                () if is_plain(ty, "PathBuf") => Self::PathBuf,
                () => Self::Value(ty.clone()),
            };
        };
        match peel(&reference.elem) {
            Type::Slice(slice) if reference.mutability.is_some() => Self::SliceMut((*slice.elem).clone()),
            Type::Slice(slice) if is_plain(&slice.elem, "u8") => Self::Bytes,
            Type::Slice(slice) => Self::Slice((*slice.elem).clone()),
            elem if is_plain(elem, "str") => Self::Str,
            elem if is_plain(elem, "Path") => Self::Path,
            elem if is_plain(elem, "PathBuf") => Self::LentPathBuf,
            elem if is_byte_vec(elem) => Self::LentByteVec,
            elem if borrows(elem) => Self::LentBorrower(elem.clone()),
            elem => Self::Lent(elem.clone()),
        }
    }

    /// Returns the method of `Args` that encodes the argument, and its arguments after the name.
    fn put(&self, private: &TokenStream, value: &Ident, entry: &TokenStream) -> (TokenStream, TokenStream) {
        let put = |ty: TokenStream| quote!(put::<#ty>);
        match self {
            Self::Value(ty) => (put(respan(ty)), quote!(&#value)),
            Self::Str => (quote!(put_str), quote!(#value)),
            Self::LentBorrower(ty) => (put(respan(ty)), quote!(#value)),
            Self::Lent(ty) => {
                let ty = respan(ty);
                (quote!(put_lent::<#ty>), quote!(#value))
            }
            Self::Slice(elem) => {
                let elem = respan(elem);
                (quote!(put_slice::<#elem>), quote!(#value))
            }
            Self::SliceMut(elem) => {
                let elem = respan(elem);
                (quote!(put_mut), quote!(#private::LendMut::<#elem>::lend(#value, (#entry).name)))
            }
            Self::Bytes => (quote!(put_byte_slice), quote!(#value)),
            Self::LentByteVec => (quote!(put_bytes), quote!(#value)),
            Self::ByteVec => (quote!(put_byte_vec), quote!(#value)),
            Self::Path | Self::LentPathBuf => (quote!(put_path), quote!(#value)),
            Self::PathBuf => (quote!(put_path), quote!(&#value)),
        }
    }

    /// Returns the method of `Input` that decodes the argument.
    fn take(&self) -> TokenStream {
        let take = |ty: &Type| {
            let ty = respan(elided(ty));
            quote!(take::<#ty>)
        };
        match self {
            Self::Value(ty) | Self::LentBorrower(ty) => take(ty),
            Self::Lent(ty) => {
                let ty = respan(elided(ty));
                quote!(take_lent::<#ty>)
            }
            Self::Str => quote!(take_str),
            Self::Slice(elem) => {
                let elem = respan(elided(elem));
                quote!(take_slice::<#elem>)
            }
            Self::SliceMut(elem) => {
                let elem = respan(elided(elem));
                quote!(take_mut::<#elem>)
            }
            Self::Bytes => quote!(take_byte_slice),
            Self::ByteVec | Self::LentByteVec => quote!(take_byte_vec),
            Self::Path => quote!(take_path),
            Self::PathBuf | Self::LentPathBuf => quote!(take_path_buf),
        }
    }

    /// Returns the decoded argument in the form that the function receives.
    fn lend(&self, argument: &Ident) -> TokenStream {
        match self {
            Self::Value(_) | Self::ByteVec | Self::PathBuf | Self::Path => quote!(#argument),
            Self::LentByteVec | Self::LentPathBuf | Self::LentBorrower(_) => quote!(&#argument),
            Self::SliceMut(_) => quote!(&mut *#argument),
            // The type may be a parameter of the function, for which the compiler coerces nothing.
            Self::Str | Self::Bytes | Self::Slice(_) | Self::Lent(_) => quote!(&*#argument),
        }
    }
}

/// Returns the type inside parentheses and the invisible groups of `macro_rules!`.
fn peel(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        };
    }
}

/// Returns whether a type contains a lifetime or a reference.
fn borrows(ty: &Type) -> bool {
    struct Search(bool);
    impl<'ast> Visit<'ast> for Search {
        fn visit_lifetime(&mut self, _: &'ast Lifetime) {
            self.0 = true;
        }

        fn visit_type_reference(&mut self, _: &'ast TypeReference) {
            self.0 = true;
        }
    }
    let mut search = Search(false);
    search.visit_type(ty);
    search.0
}

/// Returns whether the last name of the type is this one, without arguments.
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

/// Replaces every lifetime by an inferred one, because the worker lends for the duration of its call.
fn elided(ty: &Type) -> Type {
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

/// Returns the name of an argument where the function is. The function itself cannot use such a name.
fn argument(i: usize) -> Ident {
    format_ident!("__argument{}", i, span = Span::mixed_site())
}

/// Requires that a type can be sent. The requirement has the same form wherever an argument is encoded or decoded, because the compiler shows
/// equal errors once, and none of those that follow from them.
fn check(private: &TokenStream, requirement: &str, ty: &Type) -> TokenStream {
    let (span, ty) = (at(ty.span()), respan(elided(ty)));
    let requirement = Ident::new(requirement, span);
    quote_spanned!(span=> let _ = #private::#requirement::<#ty>;)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_kind() {
        let check = |ty: Type, wanted: &str| {
            let kind = format!("{:?}", Kind::of(&ty));
            let name = kind.split(['(', ' ']).next();
            assert_eq!(name, Some(wanted), "{}", quote!(#ty));
        };
        check(parse_quote!(u32), "Value");
        check(parse_quote!(&str), "Str");
        check(parse_quote!(&'a (str)), "Str");
        check(parse_quote!(Option<&[u8]>), "Value");
        check(parse_quote!(Vec<u8>), "ByteVec");
        check(parse_quote!(std::vec::Vec<u8>), "ByteVec");
        check(parse_quote!(Vec<u16>), "Value");
        check(parse_quote!(&[u8]), "Bytes");
        check(parse_quote!(&[u16]), "Slice");
        check(parse_quote!(&mut [u8]), "SliceMut");
        check(parse_quote!(&'a mut [(f32)]), "SliceMut");
        check(parse_quote!(&[u8; 4]), "Lent");
        check(parse_quote!(&Vec<u8>), "LentByteVec");
        check(parse_quote!(PathBuf), "PathBuf");
        check(parse_quote!(&std::path::Path), "Path");
        check(parse_quote!(&PathBuf), "LentPathBuf");
        check(parse_quote!(&Path<u8>), "Lent");
        check(parse_quote!(&&str), "LentBorrower");
        check(parse_quote!(&Foo<'a>), "LentBorrower");
        check(parse_quote!(&Foo<'_, u8>), "LentBorrower");
    }
}
