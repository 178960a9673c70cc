//! The generic parameters of a worker function.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    GenericParam, Lifetime, Type,
    visit_mut::{self, VisitMut},
};

use super::model::{Worker, ident_of};
use crate::{
    path::respan,
    tokens::{names_a_lifetime, names_one_of},
};

/// Returns the function's parameters as one type: `T`, or `(T, constant::usize<N>)`.
pub(super) fn list(worker: &Worker) -> TokenStream {
    let private = worker.krate.private();
    let types: Vec<TokenStream> = worker
        .listed()
        .map(|param| {
            let ident = respan(ident_of(param));
            match param {
                GenericParam::Const(param) => {
                    let ty = respan(&param.ty);
                    quote_spanned!(Span::mixed_site()=> #private::constant::#ty<#ident>)
                }
                _ => ident,
            }
        })
        .collect();
    match &types[..] {
        [one] => one.clone(),
        _ => quote!((#(#types),*)),
    }
}

/// Returns the conditions that the arguments can be encoded, for types that contain a parameter of the function.
pub(super) fn encoded_bounds(worker: &Worker) -> Vec<TokenStream> {
    let private = worker.krate.private();
    let idents = worker.listed_idents();
    let mut bounds = Vec::new();
    for param in &worker.params {
        let Some(ty) = param.encoded_type() else { continue };
        if !names_one_of(&ty.to_token_stream(), &idents) {
            continue;
        }
        let (lifetimes, ty) = for_all(ty.clone());
        let ty = respan(ty);
        bounds.push(quote_spanned!(param.span()=> for<#(#lifetimes),*> #ty: #private::Serialize));
    }
    bounds
}

/// Returns the declaration of the parameter without lifetimes and without a default.
pub(super) fn bare(param: &GenericParam) -> TokenStream {
    let mut param = param.clone();
    match &mut param {
        GenericParam::Type(param) => {
            param.default = None;
            param.bounds = param.bounds.iter().filter(|bound| !names_a_lifetime(bound)).cloned().collect();
        }
        GenericParam::Const(param) => param.default = None,
        GenericParam::Lifetime(_) => {}
    }
    param.into_token_stream()
}

/// Returns the predicates of the function's `where` that contain none of its lifetimes.
pub(super) fn type_bounds(worker: &Worker) -> TokenStream {
    let predicates = worker.item.sig.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let predicates = predicates.filter(|predicate| !names_a_lifetime(predicate)).map(respan);
    quote!(#(#predicates,)*)
}

/// Replaces every lifetime except `'static` by a parameter. Returns the declarations for `for<…>`, and the type.
fn for_all(mut ty: Type) -> (Vec<Lifetime>, Type) {
    struct Name(Vec<Lifetime>);
    impl Name {
        fn next(&mut self) -> Lifetime {
            let name = format!("'procession{}", self.0.len());
            self.0.push(Lifetime::new(&name, Span::mixed_site()));
            self.0.last().expect("just pushed").clone()
        }
    }
    impl VisitMut for Name {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident != "static" {
                *lifetime = self.next();
            }
        }

        fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
            if reference.lifetime.is_none() {
                reference.lifetime = Some(self.next());
            } else {
                visit_mut::visit_type_reference_mut(self, reference);
                return;
            }
            self.visit_type_mut(&mut reference.elem);
        }
    }
    let mut name = Name(Vec::new());
    name.visit_type_mut(&mut ty);
    (name.0, ty)
}
