//! Parses the attribute's options and the function.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    AngleBracketedGenericArguments, Ident, ItemFn, Path, Token,
    ext::IdentExt,
    parenthesized,
    parse::{Parse, ParseStream, Parser},
    punctuated::Punctuated,
};

use crate::diag::Diagnostics;

/// A `#[worker]` function, as written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) options: Options,
    pub(super) item: ItemFn,
}

/// The options in the attribute's parentheses.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `crate = path`.
    pub(super) krate: Option<Path>,
    /// `instances(<u32>, <String>)`.
    pub(super) instances: Option<Instances>,
}

/// `instances(<u32>, <String>)`.
#[derive(Debug)]
pub(super) struct Instances {
    pub(super) keyword: Ident,
    pub(super) list: Vec<AngleBracketedGenericArguments>,
}

impl Written {
    pub(super) fn parse(
        options: TokenStream,
        item: TokenStream,
        diag: &mut Diagnostics,
    ) -> syn::Result<Self> {
        let item = parse_fn(item)?;
        let mut parsed = Options::default();
        match Punctuated::<WorkerOption, Token![,]>::parse_terminated.parse2(options) {
            Ok(list) => list.into_iter().for_each(|option| parsed.add(option, diag)),
            Err(error) => diag.push(error),
        }
        Ok(Self { options: parsed, item })
    }
}

fn parse_fn(item: TokenStream) -> syn::Result<ItemFn> {
    if let Ok(item) = syn::parse2::<ItemFn>(item.clone()) {
        return Ok(item);
    }
    let words = match syn::parse2::<syn::Item>(item.clone()) {
        Ok(other) => {
            let message = "`#[worker]` can only be used on a function: write `#[worker] fn name(argument: Type) -> Result`";
            return Err(syn::Error::new_spanned(first_line(&other), message));
        }
        Err(error) => error,
    };
    match syn::parse2::<syn::TraitItemFn>(item) {
        Ok(method) => Err(syn::Error::new_spanned(
            method.sig,
            "`#[worker]` can only be used on a function with a body, outside of any trait",
        )),
        Err(_) => Err(words),
    }
}

/// Returns the part of an item that an error underlines: its keyword and name, not all its lines.
fn first_line(item: &syn::Item) -> TokenStream {
    let (keyword, name): (&dyn ToTokens, &dyn ToTokens) = match item {
        syn::Item::Struct(i) => (&i.struct_token, &i.ident),
        syn::Item::Enum(i) => (&i.enum_token, &i.ident),
        syn::Item::Trait(i) => (&i.trait_token, &i.ident),
        syn::Item::Mod(i) => (&i.mod_token, &i.ident),
        syn::Item::Impl(i) => (&i.impl_token, &i.self_ty),
        other => return quote!(#other),
    };
    quote!(#keyword #name)
}

enum WorkerOption {
    Crate(Token![crate], Path),
    Instances(Instances),
    Unknown(Ident),
}

impl Parse for WorkerOption {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if let Some(keyword) = input.parse::<Option<Token![crate]>>()? {
            let path = input.parse::<Token![=]>().and_then(|_| input.call(Path::parse_mod_style));
            let path =
                path.map_err(|_| syn::Error::new_spanned(keyword, "expected a path: `crate = path`"))?;
            return Ok(Self::Crate(keyword, path));
        }
        let keyword = input.call(Ident::parse_any).map_err(|error| {
            let message = "the options of `#[worker]` are `instances(<u32>, <String>)` and `crate = path`";
            syn::Error::new(error.span(), message)
        })?;
        if keyword == "instances" {
            if !input.peek(syn::token::Paren) {
                let message = "instances go in parentheses: `instances(<u32>, <String>)`";
                return Err(syn::Error::new_spanned(keyword, message));
            }
            let content;
            parenthesized!(content in input);
            let list = content.parse_terminated(parse_instance, Token![,])?.into_iter().collect();
            return Ok(Self::Instances(Instances { keyword, list }));
        }
        // The rest of an unknown option is skipped, so that the others are still checked.
        while !input.is_empty() && !input.peek(Token![,]) {
            input.parse::<proc_macro2::TokenTree>()?;
        }
        Ok(Self::Unknown(keyword))
    }
}

fn parse_instance(input: ParseStream<'_>) -> syn::Result<AngleBracketedGenericArguments> {
    if !input.peek(Token![<]) {
        return Err(input.error("each instance goes in angle brackets: `instances(<u32>, <String>)`"));
    }
    input.parse()
}

impl Options {
    fn add(&mut self, option: WorkerOption, diag: &mut Diagnostics) {
        match option {
            WorkerOption::Crate(keyword, _) if self.krate.is_some() => diag.refuse(keyword, "`crate` is given twice"),
            WorkerOption::Crate(_, path) => self.krate = Some(path),
            WorkerOption::Instances(again) if self.instances.is_some() => {
                diag.refuse(again.keyword, "`instances` is given twice: put them into one list");
            }
            WorkerOption::Instances(instances) => self.instances = Some(instances),
            WorkerOption::Unknown(name) => diag.refuse(
                &name,
                format_args!(
                    "`{name}` is not an option of `#[worker]`; the options are `instances(<u32>, <String>)` and \
                     `crate = path`"
                ),
            ),
        }
    }
}
