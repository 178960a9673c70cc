//! The code of a worker function: the function as it is, the hidden struct of its name, its entry and its calls.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{GenericParam, Type};

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
    quote_spanned! {Span::mixed_site()=>
        #function
        #companion
        #cfg
        #(#lints)*
        const _: () = { #code };
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

/// A function without instances: one entry, and calls that encode by themselves.
fn single(worker: &Worker) -> TokenStream {
    let entry = entry(worker, &plain(&worker.item.sig.ident), &quote!());
    let private = worker.krate.private();
    let defaults = worker.params.iter().enumerate().filter_map(|(i, param)| {
        let default = default_fn(worker, i, param)?;
        Some(quote!(#default))
    });
    let code = Code {
        worker,
        entry: quote_spanned!(Span::mixed_site()=> &__PROCESSION_ENTRY),
        put: Box::new(|_, param, args| put(&private, param, &param.binding, args)),
        default: Box::new(|i, args| {
            let default = default_name(i);
            quote_spanned!(Span::mixed_site()=> #default(#args);)
        }),
        generics: Vec::new(),
        bounds: quote!(),
    };
    let calls = code.calls();
    quote!(#entry #(#defaults)* #calls)
}

/// A generic function: a trait that its listed instances implement, an entry for each, and calls that go by the trait.
fn generic(worker: &Worker, instances: &[Instance]) -> TokenStream {
    let private = worker.krate.private();
    let f = name(worker);
    let words = plain(&worker.item.sig.ident);
    let generics: Vec<&GenericParam> = worker.listed().collect();
    let idents: Vec<&Ident> = generics.iter().map(|param| ident_of(param)).collect();
    let declared: Vec<TokenStream> = generics.iter().map(|param| respan(without_default(param))).collect();
    let bounds = type_bounds(worker);

    let message = {
        let these: Vec<String> = idents.iter().map(|ident| format!("{{{ident}}}")).collect();
        format!("`{words}` has no instance for `<{}>`", these.join(", "))
    };
    let listed: Vec<String> = instances.iter().map(|instance| format!("`{}`", instance.name)).collect();
    let note = format!(
        "its instances are {}; add yours to the list: `#[worker(instances(..., <Type>))]`",
        listed.join(", ").replace('{', "{{").replace('}', "}}")
    );
    let put_name = |i: usize| format_ident!("__put{}", i, span = Span::mixed_site());
    let lifetimes = worker.lifetimes();
    let put_signatures: Vec<TokenStream> = worker
        .params
        .iter()
        .enumerate()
        .map(|(i, param)| {
            let (name, binding, ty) = (put_name(i), &param.binding, param.signature_type());
            quote_spanned!(Span::mixed_site()=>
                fn #name<#lifetimes>(args: &mut #private::Args, #binding: #ty))
        })
        .collect();
    let default_signatures: Vec<TokenStream> = worker
        .params
        .iter()
        .enumerate()
        .filter(|(_, param)| param.default.is_some())
        .map(|(i, _)| {
            let name = default_name(i);
            quote_spanned!(Span::mixed_site()=> fn #name(args: &mut #private::Args))
        })
        .collect();

    let implementations = instances.iter().map(|instance| {
        let alias = |i: usize| format_ident!("__Procession{}", i, span = Span::mixed_site());
        // The user's words are read outside of the block in which the parameters' names mean them.
        let outer = generics.iter().zip(&instance.args).enumerate().map(|(i, (param, arg))| {
            let (alias, arg) = (alias(i), respan(arg));
            match param {
                GenericParam::Const(param) => {
                    let ty = respan(&param.ty);
                    quote_spanned!(Span::mixed_site()=> const #alias: #ty = { #arg };)
                }
                _ => quote_spanned!(Span::mixed_site()=> type #alias = #arg;),
            }
        });
        let inner = generics.iter().enumerate().map(|(i, param)| {
            let alias = alias(i);
            match param {
                GenericParam::Const(param) => {
                    let (name, ty) = (respan(&param.ident), respan(&param.ty));
                    quote_spanned!(Span::mixed_site()=> const #name: #ty = #alias;)
                }
                param => {
                    let name = respan(ident_of(param));
                    quote_spanned!(Span::mixed_site()=> type #name = #alias;)
                }
            }
        });
        let arguments = idents.iter().map(|ident| respan(ident));
        let arguments = quote!(<#(#arguments),*>);
        let entry = entry(worker, &format!("{words}::{}", instance.name), &quote!(::#arguments));
        let puts = worker.params.iter().zip(&put_signatures).map(|(param, signature)| {
            let args = Ident::new("args", Span::mixed_site());
            let put = put(&private, param, &param.binding, &quote!(#args));
            quote!(#signature { #put })
        });
        let defaults = worker.params.iter().enumerate().filter_map(|(i, param)| default_fn(worker, i, param));
        quote_spanned! {Span::mixed_site()=>
            const _: () = {
                #(#outer)*
                const _: () = {
                    #(#inner)*
                    #entry
                    impl __ProcessionInstance #arguments for #f {
                        fn __entry() -> &'static #private::Entry {
                            &__PROCESSION_ENTRY
                        }
                        #(#puts)*
                        #(#defaults)*
                    }
                };
            };
        }
    });

    let own = idents.iter().map(|ident| respan(ident));
    let instance = quote_spanned!(Span::mixed_site()=> <#f as __ProcessionInstance<#(#own),*>>);
    let own = idents.iter().map(|ident| respan(ident));
    let code = Code {
        worker,
        entry: quote_spanned!(Span::mixed_site()=> #instance::__entry()),
        put: Box::new(|i, param, args| {
            let (put, binding) = (put_name(i), &param.binding);
            quote_spanned!(Span::mixed_site()=> #instance::#put(#args, #binding);)
        }),
        default: Box::new(|i, args| {
            let default = default_name(i);
            quote_spanned!(Span::mixed_site()=> #instance::#default(#args);)
        }),
        generics: declared.clone(),
        bounds: quote_spanned!(Span::mixed_site()=> #f: __ProcessionInstance<#(#own),*>, #bounds),
    };
    let calls = code.calls();
    quote_spanned! {Span::mixed_site()=>
        #[diagnostic::on_unimplemented(message = #message, label = "not among the instances", note = #note)]
        pub trait __ProcessionInstance<#(#declared),*> where #bounds {
            fn __entry() -> &'static #private::Entry;
            #(#put_signatures;)*
            #(#default_signatures;)*
        }
        #(#implementations)*
        #calls
    }
}

/// The static entry of the function, and what it runs. `instance` is the turbofish of the function.
fn entry(worker: &Worker, words: &str, instance: &TokenStream) -> TokenStream {
    let private = worker.krate.private();
    let f = name(worker);
    // `file!` and `line!` answer for the outermost place: these tokens are the user's own.
    let here = worker.item.sig.ident.span();
    let file = quote_spanned!(here=> ::core::file!());
    let line = quote_spanned!(here=> ::core::line!());
    let takes = worker.params.iter().map(|param| take(&private, param));
    let arguments = worker.params.iter().map(|param| {
        let binding = &param.binding;
        match param.travels {
            Travels::Value | Travels::ByteVec | Travels::PathBuf | Travels::Bytes | Travels::Path => {
                quote!(#binding)
            }
            Travels::LentByteVec | Travels::LentPathBuf | Travels::Slice(_) | Travels::Lent(_) => {
                quote!(&#binding)
            }
        }
    });
    let input = Ident::new("input", Span::mixed_site());
    let input = if worker.params.is_empty() { quote!(#input) } else { quote!(mut #input) };
    let result = &worker.result;
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
            mut output: #private::Output<'_>,
        ) -> ::core::result::Result<(), #private::Fault> {
            #(#takes)*
            #private::Input::finish(input)?;
            #private::put_result::<#result>(&mut output, &#f #instance(#(#arguments),*))
        }
    }
}

/// `let n: u64 = …`, from the encoded arguments.
fn take(private: &TokenStream, param: &Param) -> TokenStream {
    let (binding, name, span) = (&param.binding, &param.name, param.span());
    let input = Ident::new("input", Span::mixed_site());
    let take = |ty: &Type| {
        let ty = respan(elided(ty));
        quote_spanned!(span=> #private::Input::take::<#ty>(&mut #input, #name)?)
    };
    let value = match &param.travels {
        Travels::Value => take(&param.ty),
        Travels::Lent(ty) => take(ty),
        Travels::Slice(elem) => {
            let elem = respan(elided(elem));
            quote_spanned!(span=> #private::Input::take::<#private::Vec<#elem>>(&mut #input, #name)?)
        }
        Travels::Bytes => quote_spanned!(span=> #private::Input::take_bytes(&mut #input, #name)?),
        Travels::ByteVec | Travels::LentByteVec => {
            quote_spanned!(span=> <[::core::primitive::u8]>::to_vec(#private::Input::take_bytes(&mut #input, #name)?))
        }
        Travels::Path => quote_spanned!(span=> #private::Input::take_path(&mut #input, #name)?),
        Travels::PathBuf | Travels::LentPathBuf => {
            quote_spanned!(span=> #private::Path::to_path_buf(#private::Input::take_path(&mut #input, #name)?))
        }
    };
    quote_spanned!(span=> let #binding = #value;)
}

/// `args.put("n", &n);`: `value` has the parameter's type.
fn put(private: &TokenStream, param: &Param, value: &Ident, args: &TokenStream) -> TokenStream {
    let (name, span) = (&param.name, param.span());
    let (put, value) = match &param.travels {
        Travels::Value => match borrowed(&param.ty) {
            Some(elem) => (typed_put(&respan(elem)), quote!(#value)),
            None => (typed_put(&param.signature_type()), quote!(&#value)),
        },
        Travels::Lent(ty) => (typed_put(&respan(ty)), quote!(#value)),
        Travels::Slice(elem) => {
            let elem = respan(elem);
            (typed_put(&quote!([#elem])), quote!(#value))
        }
        Travels::Bytes | Travels::LentByteVec => (quote!(put_bytes), quote!(#value)),
        Travels::ByteVec => (quote!(put_bytes), quote!(&#value)),
        Travels::Path | Travels::LentPathBuf => (quote!(put_path), quote!(#value)),
        Travels::PathBuf => (quote!(put_path), quote!(&#value)),
    };
    quote_spanned!(span=> #private::Args::#put(#args, #name, #value);)
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

/// The function that encodes a parameter's default, which stands in the expansion once.
fn default_fn(worker: &Worker, i: usize, param: &Param) -> Option<TokenStream> {
    let expr = &param.default.as_ref()?.expr;
    let private = worker.krate.private();
    let name = default_name(i);
    let args = Ident::new("args", Span::mixed_site());
    let (binding, ty, span) = (&param.binding, respan(elided(&param.ty)), param.span());
    let put = put(&private, param, binding, &quote!(#args));
    Some(quote_spanned! {span=>
        fn #name(#args: &mut #private::Args) {
            let #binding: #ty = #expr;
            #put
        }
    })
}

/// The parts in which calls of plain and of generic functions differ.
struct Code<'a> {
    worker: &'a Worker,
    /// `&'static Entry`.
    entry: TokenStream,
    /// Encodes the argument that its parameter's binding holds.
    put: Box<dyn Fn(usize, &Param, &TokenStream) -> TokenStream + 'a>,
    /// Encodes the default of the parameter at this place.
    default: Box<dyn Fn(usize, &TokenStream) -> TokenStream + 'a>,
    /// The type and const parameters, declared.
    generics: Vec<TokenStream>,
    /// What is asked of them.
    bounds: TokenStream,
}

impl Code<'_> {
    /// `__callN`, for each number of arguments that a call may give, and what calls by name need.
    fn calls(&self) -> TokenStream {
        let Self { worker, .. } = self;
        let private = worker.krate.private();
        let f = name(worker);
        let calls: Vec<Vec<bool>> = worker.positional();
        let by_position = calls.iter().map(|given| self.call(given));
        let numbers = calls.iter().map(|given| count(given));
        let by_name = worker.params.iter().any(|param| param.default.is_some()).then(|| self.by_name(&calls));
        quote_spanned! {Span::mixed_site()=>
            impl #f { #(#by_position)* }
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

    fn call(&self, given: &[bool]) -> TokenStream {
        let private = self.worker.krate.private();
        let result = &self.worker.result;
        let name = format_ident!("__call{}", count(given), span = Span::mixed_site());
        let head = self.head(&name, given, &quote!(#private::Task<#result>));
        let entry = &self.entry;
        let args = quote_spanned!(Span::mixed_site()=> &mut args);
        let puts = self.worker.params.iter().enumerate().map(|(i, param)| match given[i] {
            true => (self.put)(i, param, &args),
            false => (self.default)(i, &args),
        });
        let mutable = (!self.worker.params.is_empty()).then(|| quote!(mut));
        quote_spanned! {Span::mixed_site()=>
            #head {
                let #mutable args = #private::Args::new();
                #(#puts)*
                #private::Args::task::<#result>(args, #entry)
            }
        }
    }

    /// A builder with a method for each parameter that has a default and was not given by position.
    fn by_name(&self, calls: &[Vec<bool>]) -> TokenStream {
        let worker = self.worker;
        let private = worker.krate.private();
        let f = name(worker);
        let (generics, bounds, result, entry) = (&self.generics, &self.bounds, &worker.result, &self.entry);
        let idents: Vec<TokenStream> = worker.listed().map(|param| respan(ident_of(param))).collect();
        let comma = (!generics.is_empty()).then(|| quote!(,));
        // It is named in the error for a name that no parameter has.
        let builder =
            format_ident!("defaults_of_{}", plain(&worker.item.sig.ident), span = Span::mixed_site());
        let slots = worker.params.len();
        let types = worker.listed().filter(|param| matches!(param, GenericParam::Type(_))).map(|param| {
            let ident = respan(ident_of(param));
            quote!(#ident)
        });
        let slot = quote_spanned!(Span::mixed_site()=> slot);
        let starts = calls.iter().filter(|given| given.contains(&false)).map(|given| {
            let n = count(given);
            let with = format_ident!("__with{}", n, span = Span::mixed_site());
            let head = self.head(&with, given, &quote!(#builder<#n #comma #(#idents),*>));
            let puts = self.given(given).map(|(i, param)| {
                let put = (self.put)(i, param, &slot);
                quote_spanned! {Span::mixed_site()=>
                    let slot = slots[#i].insert(#private::Args::new());
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
                    let put = (self.put)(i, param, &slot);
                    Some(quote_spanned! {Span::mixed_site()=>
                        #[must_use]
                        #vis fn #setter<#lifetimes>(mut self, #binding: #ty) -> Self {
                            let slot = self.slots[#i].insert(#private::Args::new());
                            #put
                            self
                        }
                    })
                });
            quote_spanned! {Span::mixed_site()=>
                impl #f {
                    #head {
                        let mut slots = [const { ::core::option::Option::None }; #slots];
                        #(#puts)*
                        #builder { slots, types: ::core::marker::PhantomData }
                    }
                }
                impl<#(#generics),*> #builder<#n #comma #(#idents),*> where #bounds {
                    #(#setters)*
                }
                impl #private::TakesByName<#n> for #f {}
            }
        });
        let fills = worker.params.iter().enumerate().map(|(i, param)| {
            let missing = match param.default {
                Some(_) => (self.default)(i, &quote_spanned!(Span::mixed_site()=> &mut args)),
                None => quote!(),
            };
            quote_spanned! {Span::mixed_site()=>
                match slots[#i].take() {
                    ::core::option::Option::Some(slot) => #private::Args::append(&mut args, slot),
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
            impl<const __GIVEN: ::core::primitive::usize #comma #(#generics),*> #builder<__GIVEN #comma #(#idents),*>
            where #bounds
            {
                #vis fn __task(self) -> #private::Task<#result> {
                    let Self { mut slots, .. } = self;
                    let mut args = #private::Args::new();
                    #(#fills)*
                    #private::Args::task::<#result>(args, #entry)
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

fn without_default(param: &GenericParam) -> TokenStream {
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
    quote!(#(#predicates),*)
}

fn names_a_lifetime(tokens: &impl ToTokens) -> bool {
    let mut tokens = tokens.to_token_stream().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_tick = matches!(&token, proc_macro2::TokenTree::Punct(punct) if punct.as_char() == '\'');
        if is_tick && matches!(tokens.peek(), Some(proc_macro2::TokenTree::Ident(ident)) if ident != "static")
        {
            return true;
        }
    }
    false
}
