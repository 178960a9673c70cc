//! The code of a worker function: the function as it is, the hidden struct of its name, its entry and its calls.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    GenericParam, Lifetime, Type,
    spanned::Spanned,
    visit_mut::{self, VisitMut},
};

use super::model::{Instance, Param, Travels, Worker, elided};
use crate::path::{at, plain, respan};

pub(super) fn expand(worker: &Worker) -> TokenStream {
    let function = &worker.item;
    let companion = companion(worker);
    let cfg = cfg(worker);
    let lints = worker.item.attrs.iter().filter(|attr| attr.path().is_ident("allow"));
    let code = match &worker.instances {
        None => single(worker),
        Some(instances) => generic(worker, instances),
    };
    let private = worker.krate.private();
    // In an `impl` nothing of this can stand. The struct is what the compiler refuses there, once, and then drops with its attributes.
    quote_spanned! {Span::mixed_site()=>
        #function
        #cfg
        #[#private::beside(
            #(#lints)*
            // Clippy would check the user's types again in code that the user cannot change.
            #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
            const _: () = { #code };
        )]
        #companion
    }
}

/// The hidden struct: what a path to the function means where a type stands.
pub(super) fn companion(worker: &Worker) -> TokenStream {
    let vis = respan(&worker.item.vis);
    let name = name(worker);
    let cfg = cfg(worker);
    quote_spanned! {Span::mixed_site()=>
        #cfg
        #[doc(hidden)]
        #[non_exhaustive]
        #vis struct #name {}
    }
}

/// The `#[cfg]`s of the function, which count for all that stands beside it.
pub(super) fn cfg(worker: &Worker) -> TokenStream {
    let attrs = worker.item.attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
    quote!(#(#attrs)*)
}

/// The function's name, as the macro's own token.
pub(super) fn name(worker: &Worker) -> Ident {
    let mut name = worker.item.sig.ident.clone();
    name.set_span(at(name.span()));
    name
}

/// A function without instances: one entry.
fn single(worker: &Worker) -> TokenStream {
    let entry = entry(worker, &plain(&worker.item.sig.ident), &quote!());
    let calls = Code {
        worker,
        entry: quote_spanned!(Span::mixed_site()=> &__PROCESSION_ENTRY),
        generics: Vec::new(),
        arguments: quote!(),
        bounds: quote!(),
    }
    .expand();
    quote!(#entry #calls)
}

/// A generic function: an entry for each instance, which calls find by a trait that the listed instances implement.
fn generic(worker: &Worker, instances: &[Instance]) -> TokenStream {
    let private = worker.krate.private();
    let f = name(worker);
    let instances = instances.iter().map(|instance| implementation(worker, instance));
    let list = list(worker);
    let idents = worker.listed().map(|param| respan(ident_of(param)));
    let (bounds, encoded) = (type_bounds(worker), encoded_bounds(worker));
    let code = Code {
        worker,
        entry: quote_spanned!(Span::mixed_site()=> <#f as #private::Instance<#list>>::entry()),
        generics: worker.listed().map(|param| respan(bare(param))).collect(),
        arguments: quote!(#(#idents),*),
        bounds: quote_spanned!(Span::mixed_site()=> #f: #private::Instance<#list>, #bounds #(#encoded,)*),
    };
    let calls = code.expand();
    quote!(#(#instances)* #calls)
}

/// The entry of one instance, in a block in which the function's parameters are names of what they stand for.
fn implementation(worker: &Worker, instance: &Instance) -> TokenStream {
    let private = worker.krate.private();
    let f = name(worker);
    let list = list(worker);
    let alias = |i: usize| format_ident!("__PROCESSION{}", i, span = Span::mixed_site());
    // The user's words are read outside of the block in which the parameters' names have that meaning.
    let outer = worker.listed().zip(&instance.args).enumerate().map(|(i, (param, arg))| {
        let (alias, arg) = (alias(i), respan(arg));
        match param {
            GenericParam::Const(param) => {
                let ty = respan(&param.ty);
                quote_spanned!(Span::mixed_site()=> const #alias: #ty = { #arg };)
            }
            _ => quote_spanned!(Span::mixed_site()=> type #alias = #arg;),
        }
    });
    let inner = worker.listed().enumerate().map(|(i, param)| {
        let (name, alias) = (respan(ident_of(param)), alias(i));
        match param {
            GenericParam::Const(param) => {
                let ty = respan(&param.ty);
                quote_spanned!(Span::mixed_site()=> const #name: #ty = #alias;)
            }
            _ => quote_spanned!(Span::mixed_site()=> type #name = #alias;),
        }
    });
    let idents = worker.listed().map(|param| respan(ident_of(param)));
    let words = format!("{}::{}", plain(&worker.item.sig.ident), instance.name);
    let entry = entry(worker, &words, &quote!(::<#(#idents),*>));
    quote_spanned! {Span::mixed_site()=>
        const _: () = {
            #(#outer)*
            const _: () = {
                #(#inner)*
                #entry
                impl #private::Instance<#list> for #f {
                    fn entry() -> &'static #private::Entry {
                        &__PROCESSION_ENTRY
                    }
                }
            };
        };
    }
}

/// The function's parameters as one type: `T`, or `(T, constant::usize<N>)`.
fn list(worker: &Worker) -> TokenStream {
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

/// That what the parameters encode can be encoded, for those whose types name a parameter of the function.
fn encoded_bounds(worker: &Worker) -> Vec<TokenStream> {
    let private = worker.krate.private();
    let idents: Vec<&Ident> = worker.listed().map(ident_of).collect();
    let mut bounds = Vec::new();
    for param in &worker.params {
        let ty = match &param.travels {
            Travels::Value => param.ty.to_token_stream(),
            Travels::Lent(ty) => ty.to_token_stream(),
            Travels::Slice(elem) => elem.to_token_stream(),
            _ => continue,
        };
        if !names_one_of(&ty, &idents) {
            continue;
        }
        let (lifetimes, ty) = for_all(syn::parse_quote!(#ty));
        let ty = respan(ty);
        bounds.push(quote_spanned!(param.span()=> for<#(#lifetimes),*> #ty: #private::Serialize));
    }
    bounds
}

/// The static entry of the function, and what it runs. `instance` is the turbofish of the function.
fn entry(worker: &Worker, words: &str, instance: &TokenStream) -> TokenStream {
    let private = worker.krate.private();
    let f = name(worker);
    // `file!` and `line!` answer for the outermost place: these tokens are the user's own.
    let here = worker.item.sig.ident.span();
    let file = quote_spanned!(here=> ::core::file!());
    let line = quote_spanned!(here=> ::core::line!());
    let takes = worker.params.iter().enumerate().map(|(i, param)| take(&private, i, param));
    let arguments = worker.params.iter().enumerate().map(|(i, param)| {
        let binding = argument(i);
        match param.travels {
            Travels::Value | Travels::ByteVec | Travels::PathBuf | Travels::Bytes | Travels::Path => {
                quote!(#binding)
            }
            Travels::LentByteVec | Travels::LentPathBuf | Travels::Slice(_) | Travels::Lent(_) => {
                quote!(&#binding)
            }
        }
    });
    let input = Ident::new("__input", Span::mixed_site());
    let input = if worker.params.is_empty() { quote!(#input) } else { quote!(mut #input) };
    let result = &worker.result;
    let is_async = worker.item.sig.asyncness.is_some();
    let call = quote_spanned!(Span::mixed_site()=> #f #instance(#(#arguments),*));
    let value = if is_async { quote_spanned!(Span::mixed_site()=> #private::block_on(#call)) } else { call };
    let run = quote_spanned! {Span::mixed_site()=>
        #(#takes)*
        #private::Input::finish(__input)?;
        #private::put_result::<#result>(&mut __output, #value)
    };
    let (input, output) = (input, quote_spanned!(Span::mixed_site()=> mut __output));
    let (input, output, run) = if is_async {
        let plain = quote_spanned!(Span::mixed_site()=> __input);
        let run = quote_spanned! {Span::mixed_site()=>
            #private::run_async(__input, __output, |#input, #output| { #run })
        };
        (plain, quote_spanned!(Span::mixed_site()=> __output), run)
    } else {
        (input, output, run)
    };
    let deprecated = worker.item.attrs.iter().any(|attr| attr.path().is_ident("deprecated"));
    let deprecated = deprecated.then(|| quote_spanned!(Span::mixed_site()=> #[allow(deprecated)]));
    quote_spanned! {Span::mixed_site()=>
        #[#private::linkme::distributed_slice(#private::WORKERS)]
        #[linkme(crate = #private::linkme)]
        static __PROCESSION_ENTRY: #private::Entry = #private::Entry {
            name: ::core::concat!(::core::module_path!(), "::", #words),
            file: #file,
            line: #line,
            run: __procession_run,
        };

        #deprecated
        fn __procession_run(
            #input: #private::Input<'_>,
            #output: #private::Output<'_>,
        ) -> ::core::result::Result<(), #private::Fault> {
            #run
        }
    }
}

/// What an argument is called where the function is: no name that the function itself could have.
fn argument(i: usize) -> Ident {
    format_ident!("__argument{}", i, span = Span::mixed_site())
}

/// `let __argument0 = …`, from the encoded arguments.
fn take(private: &TokenStream, i: usize, param: &Param) -> TokenStream {
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
fn put(worker: &Worker, param: &Param, args: &TokenStream) -> TokenStream {
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
    match super::model::peel(ty) {
        Type::Reference(reference) => Some(&reference.elem),
        _ => None,
    }
}

fn default_name(i: usize) -> Ident {
    format_ident!("__procession_default{}", i, span = Span::mixed_site())
}

/// The parts in which calls of plain and of generic functions differ.
struct Code<'a> {
    worker: &'a Worker,
    /// `&'static Entry`.
    entry: TokenStream,
    /// The type and const parameters, declared.
    generics: Vec<TokenStream>,
    /// Their names.
    arguments: TokenStream,
    /// What is asked of them.
    bounds: TokenStream,
}

impl Code<'_> {
    /// `__callN`, for each number of arguments that a call may give, and what calls by name need.
    fn expand(&self) -> TokenStream {
        let worker = self.worker;
        let private = worker.krate.private();
        let f = name(worker);
        let calls: Vec<Vec<bool>> = worker.positional();
        let by_position = calls.iter().map(|given| self.call(given));
        let mistakes = self.mistakes(&calls);
        let numbers = calls.iter().map(|given| count(given));
        let by_name = (worker.required() < worker.params.len()).then(|| self.by_name(&calls));
        let defaults = worker.params.iter().enumerate().filter_map(|(i, param)| self.default(i, param));
        quote_spanned! {Span::mixed_site()=>
            #(#defaults)*
            impl #f { #(#by_position)* #mistakes }
            #(impl #private::Takes<#numbers> for #f {})*
            #by_name
        }
    }

    /// The head of a function that takes these parameters, to its opening brace.
    fn head(&self, name: &Ident, given: &[bool], result: &TokenStream) -> TokenStream {
        let vis = respan(&self.worker.item.vis);
        let (lifetimes, generics, bounds) = (self.worker.lifetimes(), &self.generics, &self.bounds);
        let comma = (!lifetimes.is_empty()).then(|| quote!(,));
        let params = self.given(given).map(|(_, param)| {
            let (binding, ty) = (&param.binding, param.signature_type());
            quote!(#binding: #ty)
        });
        quote_spanned! {Span::mixed_site()=>
            #vis fn #name<#lifetimes #comma #(#generics),*>(#(#params),*) -> #result where #bounds
        }
    }

    fn given<'g>(&'g self, given: &'g [bool]) -> impl Iterator<Item = (usize, &'g Param)> {
        self.worker.params.iter().enumerate().filter(|(i, _)| given[*i])
    }

    /// The function that encodes a parameter's default, which stands in the expansion once.
    fn default(&self, i: usize, param: &Param) -> Option<TokenStream> {
        let expr = &param.default.as_ref()?.expr;
        let private = self.worker.krate.private();
        let (name, binding, ty) = (default_name(i), &param.binding, respan(elided(&param.ty)));
        let (generics, bounds) = (&self.generics, &self.bounds);
        let put = put(self.worker, param, &quote_spanned!(Span::mixed_site()=> __args));
        Some(quote_spanned! {param.span()=>
            fn #name<#(#generics),*>(__args: &mut #private::Args) where #bounds {
                let #binding: #ty = #expr;
                #put
            }
        })
    }

    /// Encodes the default of the parameter at this place.
    fn put_default(&self, i: usize, args: &TokenStream) -> TokenStream {
        let (default, arguments) = (default_name(i), &self.arguments);
        quote_spanned!(Span::mixed_site()=> #default::<#arguments>(#args);)
    }

    fn call(&self, given: &[bool]) -> TokenStream {
        let private = self.worker.krate.private();
        let result = &self.worker.result;
        let name = format_ident!("__call{}", count(given), span = Span::mixed_site());
        let head = self.head(&name, given, &quote!(#private::Task<#result>));
        let entry = &self.entry;
        let args = quote_spanned!(Span::mixed_site()=> &mut __args);
        let puts = self.worker.params.iter().enumerate().map(|(i, param)| match given[i] {
            true => put(self.worker, param, &args),
            false => self.put_default(i, &args),
        });
        let mutable = (!self.worker.params.is_empty()).then(|| quote!(mut));
        quote_spanned! {Span::mixed_site()=>
            #[inline]
            #head {
                let #mutable __args = #private::Args::new();
                #(#puts)*
                #private::Args::task::<#result>(__args, #entry)
            }
        }
    }

    /// The type of what gathers arguments by name. It is named in the error for a name that no parameter has.
    fn builder(&self) -> Ident {
        let function = plain(&self.worker.item.sig.ident);
        format_ident!("defaults_of_{}", function, span = Span::mixed_site())
    }

    /// `__callN` and `__withN` for numbers of arguments that are likely mistakes: fewer than it takes, and one too many. They take as many as
    /// they should be given, so that every call of them is the compiler's own error, which names what is missing or one too many.
    fn mistakes(&self, calls: &[Vec<bool>]) -> TokenStream {
        let private = self.worker.krate.private();
        let result = &self.worker.result;
        let (least, most) = (&calls[0], &calls[calls.len() - 1]);
        let by_name = self.worker.required() < self.worker.params.len();
        let too_few = (0..count(least)).map(|n| (n, least));
        let others = (count(least)..=count(most) + 1).map(|n| (n, most));
        let by_position =
            too_few.clone().chain(others).filter(|(n, _)| calls.iter().all(|given| count(given) != *n));
        let by_position =
            by_position.map(|(n, given)| (format_ident!("__call{}", n, span = Span::mixed_site()), given));
        let named = too_few.filter(|_| by_name);
        let named = named.map(|(n, given)| (format_ident!("__with{}", n, span = Span::mixed_site()), given));
        let task = quote!(#private::Task<#result>);
        let (builder, n, idents) = (self.builder(), count(least), &self.arguments);
        let comma = (!self.generics.is_empty()).then(|| quote!(,));
        let builder = quote!(#builder<#n #comma #idents>);
        let by_position = by_position.map(|(name, given)| (name, given, &task));
        let all = by_position.chain(named.map(|(name, given)| (name, given, &builder)));
        let all = all.map(|(name, given, result)| {
            let head = self.head(&name, given, result);
            quote_spanned!(Span::mixed_site()=> #head { ::core::unreachable!() })
        });
        quote!(#(#all)*)
    }

    /// A builder with a method for each parameter that has a default and was not given by position.
    fn by_name(&self, calls: &[Vec<bool>]) -> TokenStream {
        let worker = self.worker;
        let private = worker.krate.private();
        let f = name(worker);
        let (generics, bounds, result, entry) = (&self.generics, &self.bounds, &worker.result, &self.entry);
        let idents = &self.arguments;
        let comma = (!generics.is_empty()).then(|| quote!(,));
        let builder = self.builder();
        let slots = worker.params.len();
        let types = worker.listed().filter(|param| matches!(param, GenericParam::Type(_))).map(|param| {
            let ident = respan(ident_of(param));
            quote!(#ident)
        });
        let slot = quote_spanned!(Span::mixed_site()=> __slot);
        let starts = calls.iter().filter(|given| given.contains(&false)).map(|given| {
            let n = count(given);
            let with = format_ident!("__with{}", n, span = Span::mixed_site());
            let head = self.head(&with, given, &quote!(#builder<#n #comma #idents>));
            let puts = self.given(given).map(|(i, param)| {
                let put = put(self.worker, param, &slot);
                quote_spanned! {Span::mixed_site()=>
                    let __slot = __slots[#i].insert(#private::Args::new());
                    #put
                }
            });
            let setters =
                worker.params.iter().enumerate().filter(|(i, _)| !given[*i]).filter_map(|(i, param)| {
                    let setter = &param.default.as_ref()?.name;
                    let mut setter = setter.clone();
                    setter.set_span(at(setter.span()));
                    let (lifetimes, binding, ty) =
                        (worker.lifetimes(), &param.binding, param.signature_type());
                    let vis = respan(&worker.item.vis);
                    let put = put(self.worker, param, &slot);
                    Some(quote_spanned! {Span::mixed_site()=>
                        #[must_use]
                        #vis fn #setter<#lifetimes>(mut self, #binding: #ty) -> Self {
                            let __slot = self.slots[#i].insert(#private::Args::new());
                            #put
                            self
                        }
                    })
                });
            quote_spanned! {Span::mixed_site()=>
                impl #f {
                    #head {
                        let mut __slots = [const { ::core::option::Option::None }; #slots];
                        #(#puts)*
                        #builder { slots: __slots, types: ::core::marker::PhantomData }
                    }
                }
                impl<#(#generics),*> #builder<#n #comma #idents> where #bounds {
                    #(#setters)*
                }
                impl #private::TakesByName<#n> for #f {}
            }
        });
        let fills = worker.params.iter().enumerate().map(|(i, param)| {
            let missing = match param.default {
                Some(_) => self.put_default(i, &quote_spanned!(Span::mixed_site()=> &mut __args)),
                None => quote!(),
            };
            quote_spanned! {Span::mixed_site()=>
                match __slots[#i].take() {
                    ::core::option::Option::Some(__slot) => #private::Args::append(&mut __args, __slot),
                    ::core::option::Option::None => { #missing }
                }
            }
        });
        let vis = respan(&worker.item.vis);
        quote_spanned! {Span::mixed_site()=>
            #vis struct #builder<const __GIVEN: ::core::primitive::usize #comma #(#generics),*> {
                slots: [::core::option::Option<#private::Args>; #slots],
                types: ::core::marker::PhantomData<fn() -> (#(#types,)*)>,
            }
            impl<const __GIVEN: ::core::primitive::usize #comma #(#generics),*> #builder<__GIVEN #comma #idents>
            where #bounds
            {
                #vis fn __task(self) -> #private::Task<#result> {
                    let Self { slots: mut __slots, .. } = self;
                    let mut __args = #private::Args::new();
                    #(#fills)*
                    #private::Args::task::<#result>(__args, #entry)
                }
            }
            #(#starts)*
        }
    }
}

fn count(given: &[bool]) -> usize {
    given.iter().filter(|given| **given).count()
}

pub(super) fn ident_of(param: &GenericParam) -> &Ident {
    match param {
        GenericParam::Type(param) => &param.ident,
        GenericParam::Const(param) => &param.ident,
        GenericParam::Lifetime(param) => &param.lifetime.ident,
    }
}

/// The parameter's declaration where no lifetime is declared, and none has a default.
fn bare(param: &GenericParam) -> TokenStream {
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

/// The predicates of the function's `where` that name no lifetime of its own.
fn type_bounds(worker: &Worker) -> TokenStream {
    let predicates = worker.item.sig.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let predicates = predicates.filter(|predicate| !names_a_lifetime(predicate)).map(respan);
    quote!(#(#predicates,)*)
}

fn names_a_lifetime(tokens: &impl ToTokens) -> bool {
    let mut tokens = tokens.to_token_stream().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_tick = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '\'');
        if is_tick && matches!(tokens.peek(), Some(TokenTree::Ident(ident)) if ident != "static") {
            return true;
        }
    }
    false
}

fn names_one_of(tokens: &TokenStream, names: &[&Ident]) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => names_one_of(&group.stream(), names),
        TokenTree::Ident(ident) => names.contains(&&ident),
        _ => false,
    })
}

/// The type with every lifetime but `'static` made a parameter: what `for<…>` declares, and the type.
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
