//! Finds what cannot run in another process, and reports it at the user's own tokens with what to write instead.

use quote::{ToTokens, quote};
use syn::{
    AngleBracketedGenericArguments, FnArg, GenericArgument, GenericParam, Lifetime, PathArguments,
    ReturnType, Safety, Type, TypePath, TypeReference,
    visit::{self, Visit},
};

use super::{model::ident_of, parse::Written};
use crate::diag::Diagnostics;

pub(super) fn check(written: &Written, diag: &mut Diagnostics) {
    check_qualifiers(written, diag);
    check_generics(written, diag);
    for arg in &written.item.sig.inputs {
        match arg {
            FnArg::Receiver(receiver) => diag.refuse(
                receiver,
                "a worker must be a free function: take the value as an ordinary parameter, `this: &Type`",
            ),
            FnArg::Typed(arg) => {
                for attr in &arg.attrs {
                    if attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr") {
                        diag.refuse(
                            attr,
                            "`#[cfg]` on a parameter of a worker is not supported: put it on the \
                                           function",
                        );
                    }
                }
                Types { place: Place::Parameter, diag, depth: 0 }.visit_type(&arg.ty);
            }
        }
    }
    if let ReturnType::Type(_, ty) = &written.item.sig.output {
        match &**ty {
            Type::Never(never) => {
                diag.refuse(never, "a worker must return a result: return `()`, or remove this")
            }
            ty => Types { place: Place::Result, diag, depth: 0 }.visit_type(ty),
        }
    }
}

fn check_qualifiers(written: &Written, diag: &mut Diagnostics) {
    let sig = &written.item.sig;
    if let Some(token) = &sig.constness {
        diag.refuse(
            token,
            "a worker cannot be `const`: remove it, or write a plain `fn` that calls this one",
        );
    }
    check_async(written, cfg!(feature = "tokio"), diag);
    if let Safety::Unsafe(token) = &sig.safety {
        diag.refuse(
            token,
            "a worker cannot be `unsafe`: write a safe `fn` that meets the requirements of this one and calls it",
        );
    }
    if let Some(abi) = &sig.abi {
        diag.refuse(abi, "a worker cannot be `extern`: write a plain `fn` that calls this one");
    }
    if let Some(variadic) = &sig.variadic {
        diag.refuse(variadic, "a worker has a fixed number of parameters: take a `Vec` or a `&[T]`");
    }
}

fn check_async(written: &Written, has_runtime: bool, diag: &mut Diagnostics) {
    if let Some(token) = written.item.sig.asyncness.as_ref().filter(|_| !has_runtime) {
        diag.refuse(
            token,
            "an `async` worker runs on a runtime, which is the feature `tokio` of procession: write \
             `features = [\"tokio\"]` beside its version in Cargo.toml, or a plain `fn`",
        );
    }
}

fn check_generics(written: &Written, diag: &mut Diagnostics) {
    let generics = &written.item.sig.generics;
    let listed: Vec<&GenericParam> =
        generics.params.iter().filter(|param| !matches!(param, GenericParam::Lifetime(_))).collect();
    let Some(instances) = &written.options.instances else {
        for param in listed {
            let name = ident_of(param);
            match param {
                GenericParam::Const(_) => diag.refuse(
                    name,
                    format_args!(
                        "a worker must know `{name}`: list its values, `#[worker(instances(<1>, <2>))]`"
                    ),
                ),
                _ => diag.refuse(
                    name,
                    format_args!(
                        "a worker must know `{name}`: list the types that it stands for, \
                         `#[worker(instances(<u32>, <String>))]`"
                    ),
                ),
            }
        }
        return;
    };
    if listed.is_empty() {
        diag.refuse(
            &instances.keyword,
            "this function has no type parameter: remove `instances`, or write `fn name<T>(…)`",
        );
        return;
    }
    if instances.list.is_empty() {
        diag.refuse(&instances.keyword, "the list is empty: write `instances(<u32>, <String>)`");
    }
    check_instances(&instances.list, &listed, diag);
}

fn check_instances(
    instances: &[AngleBracketedGenericArguments],
    listed: &[&GenericParam],
    diag: &mut Diagnostics,
) {
    let mut seen: Vec<String> = Vec::new();
    for instance in instances {
        let (given, wanted) = (instance.args.len(), listed.len());
        if given != wanted {
            let names: Vec<String> = listed.iter().map(|param| ident_of(param).to_string()).collect();
            diag.refuse(
                instance,
                format_args!(
                    "an instance gives {wanted} of them, `<{}>`; this one gives {given}",
                    names.join(", ")
                ),
            );
        }
        for arg in &instance.args {
            if matches!(
                arg,
                GenericArgument::Lifetime(_) | GenericArgument::AssocType(_) | GenericArgument::Constraint(_)
            ) {
                diag.refuse(arg, "an instance lists types and constants only");
            }
        }
        let words = instance.to_token_stream().to_string();
        if seen.contains(&words) {
            diag.refuse(instance, "this instance is listed twice");
        }
        seen.push(words);
    }
}

/// The message for errors that no other process can reconstruct.
const OPAQUE_ERROR: &str = "this error cannot be decoded: return `procession::RemoteError`, which keeps the message \
                            and the causes of any error, \
                            so that `?` works";

/// The module and name of types that look like such errors, or contain one.
const OPAQUE_ERRORS: &[(&str, &str)] = &[
    ("io", "Error"),
    ("io", "Result"),
    ("anyhow", "Error"),
    ("anyhow", "Result"),
    ("eyre", "Report"),
    ("eyre", "Result"),
];

fn is_opaque_error(path: &syn::Path) -> bool {
    let mut names = path.segments.iter().rev().map(|segment| &segment.ident);
    let (Some(name), Some(module)) = (names.next(), names.next()) else { return false };
    OPAQUE_ERRORS.iter().any(|(known_module, known)| module == known_module && name == known)
}

/// Checks the types of a signature.
struct Types<'a> {
    place: Place,
    diag: &'a mut Diagnostics,
    /// The depth of the type. `&str` may get a simpler message than `Option<&str>`.
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Parameter,
    Result,
}

impl<'ast> Visit<'ast> for Types<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        let words = match (ty, self.place) {
            (Type::Ptr(_), _) => {
                "an address means nothing in another process: pass the value that it points to"
            }
            (Type::FnPtr(_), _) => {
                "the address of a function means nothing in another process: pass an `enum` that names the choices"
            }
            (Type::ImplTrait(_), Place::Parameter) => {
                "a worker must know its parameters' types: write a type parameter, `<T: Trait>`, and list the types \
                 that it stands for, `#[worker(instances(<u32>, <String>))]`"
            }
            (Type::ImplTrait(_), Place::Result) => {
                "the caller must know what to decode: return a named type (an iterator's items in a `Vec`)"
            }
            (Type::TraitObject(_), Place::Parameter) => {
                "a worker must know what to decode: take a named type, or an `enum` of the types that there are"
            }
            (Type::TraitObject(object), Place::Result) => {
                let words = object.to_token_stream().to_string();
                match words.contains("Error") {
                    true => OPAQUE_ERROR,
                    false => {
                        "the caller must know what to decode: return a named type, or an `enum` of the types that \
                         there are"
                    }
                }
            }
            (Type::Path(path), Place::Result) if is_opaque_error(&path.path) => OPAQUE_ERROR,
            (Type::Infer(_), _) => "the types of a worker must be written out",
            _ => {
                self.depth += 1;
                visit::visit_type(self, ty);
                self.depth -= 1;
                return;
            }
        };
        self.diag.refuse(ty, words);
    }

    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let elem = reference.elem.to_token_stream();
        match self.place {
            Place::Parameter => {
                // A slice is written where its caller has lent it.
                let is_lent = self.depth == 1 && matches!(&*reference.elem, Type::Slice(_));
                if let Some(token) = reference.mutability.as_ref().filter(|_| !is_lent) {
                    let and = &reference.and_token;
                    self.diag.refuse(
                        quote!(#and #token),
                        "a worker's argument is a copy in another process: take it by value, and return what has \
                         changed, or take a `&mut [T]` of plain data, for which callers give a part of a \
                         `procession::SharedSliceMut`",
                    );
                } else if let Some(lifetime) = &reference.lifetime
                    && lifetime.ident == "static"
                {
                    self.diag.refuse(
                        lifetime,
                        "an argument lives as long as its call, in the worker's memory: remove `'static`, or take an \
                         owned value",
                    );
                }
                self.visit_type(&reference.elem);
            }
            Place::Result => {
                let owned = match &*reference.elem {
                    Type::Path(path) if path.path.is_ident("str") => "`String`".to_owned(),
                    Type::Path(path)
                        if path.path.segments.last().is_some_and(|last| last.ident == "Path") =>
                    {
                        "`PathBuf`".to_owned()
                    }
                    Type::Slice(slice) => format!("`Vec<{}>`", slice.elem.to_token_stream()),
                    Type::Path(_) if self.depth <= 1 => format!("`{elem}`"),
                    _ => "an owned type".to_owned(),
                };
                self.diag.refuse(
                    reference,
                    format_args!("a result is sent to another process: return {owned}, not a reference"),
                );
            }
        }
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if self.place == Place::Result && lifetime.ident != "static" {
            self.diag.refuse(
                lifetime,
                "a result is sent to another process: return an owned type, without a lifetime",
            );
        }
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        let Some(last) = path.path.segments.last() else { return };
        // It only marks types, and can always be sent.
        if last.ident == "PhantomData" {
            return;
        }
        let is_rc = last.ident == "Rc" && matches!(last.arguments, PathArguments::AngleBracketed(_));
        let is_weak = path.path.segments.len() >= 2
            && last.ident == "Weak"
            && path.path.segments.iter().rev().nth(1).is_some_and(|segment| segment.ident == "rc");
        if is_rc || is_weak {
            let head = &path.path.segments.last().expect("a path has a segment").ident;
            self.diag.push(syn::Error::new(
                head.span(),
                format_args!("`{head}` counts its owners in one process: pass the value itself"),
            ));
        }
        visit::visit_type_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;

    use super::*;

    #[test]
    fn without_a_runtime_an_async_function_is_refused_with_the_name_of_the_feature() {
        let check = |item: TokenStream, has_runtime| {
            let mut diag = Diagnostics::new();
            let written = Written::parse(TokenStream::new(), item, &mut diag).unwrap();
            check_async(&written, has_runtime, &mut diag);
            diag.finish().err().map(|error| error.to_string())
        };
        let words = check(
            quote!(
                async fn f() {}
            ),
            false,
        )
        .unwrap();
        assert!(words.contains("feature `tokio`"), "{words}");
        assert_eq!(
            check(
                quote!(
                    async fn f() {}
                ),
                true
            ),
            None
        );
        assert_eq!(
            check(
                quote!(
                    fn f() {}
                ),
                false
            ),
            None
        );
    }
}
