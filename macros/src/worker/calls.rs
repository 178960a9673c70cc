//! The calls of a worker function, by position and by name.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::GenericParam;

use super::{
    argument::Param,
    model::{Worker, ident_of},
};
use crate::path::{at, plain, respan};

/// The parts in which calls of plain and of generic functions differ.
pub(super) struct Code<'a> {
    pub(super) worker: &'a Worker,
    /// `&'static Entry`.
    pub(super) entry: TokenStream,
    /// The type and const parameters, declared.
    pub(super) generics: Vec<TokenStream>,
    /// Their names.
    pub(super) arguments: TokenStream,
    /// Their conditions.
    pub(super) bounds: TokenStream,
}

impl Code<'_> {
    /// Returns `__callN` for each number of arguments that a call may have, `__fillN` for calls whose first argument is filled in, and the
    /// code for calls by name.
    pub(super) fn expand(&self) -> TokenStream {
        let worker = self.worker;
        let private = worker.krate.private();
        let f = worker.name();
        let calls: Vec<Vec<bool>> = worker.positional();
        let by_position = calls.iter().map(|given| self.call(given));
        let filled_in = calls.iter().filter_map(|given| self.fill_in(given));
        let mistakes = self.mistakes(&calls);
        let numbers = calls.iter().map(|given| count(given));
        let by_name = (worker.required() < worker.params.len()).then(|| self.by_name(&calls));
        let defaults = worker.params.iter().enumerate().filter_map(|(i, param)| self.default(i, param));
        quote_spanned! {Span::mixed_site()=>
            #(#defaults)*
            impl #f { #(#by_position)* #(#filled_in)* #mistakes }
            #(impl #private::Takes<#numbers> for #f {})*
            #by_name
        }
    }

    /// Returns the head of a function with these parameters, up to its opening brace.
    fn head(&self, name: &Ident, given: &[bool], result: &TokenStream) -> TokenStream {
        let vis = respan(&self.worker.item.vis);
        let (lifetimes, generics, bounds) = (self.worker.lifetimes(), &self.generics, &self.bounds);
        let comma = (!lifetimes.is_empty()).then(|| quote!(,));
        let params = self.given(given).map(|(_, param)| {
            let (binding, ty) = (&param.binding, param.given_type(&self.worker.krate.private()));
            quote!(#binding: #ty)
        });
        quote_spanned! {Span::mixed_site()=>
            #vis fn #name<#lifetimes #comma #(#generics),*>(#(#params),*) -> #result where #bounds
        }
    }

    fn given<'g>(&'g self, given: &'g [bool]) -> impl Iterator<Item = (usize, &'g Param)> {
        self.worker.params.iter().enumerate().filter(|(i, _)| given[*i])
    }

    /// Returns the statement that encodes an argument.
    fn put(&self, param: &Param, args: &TokenStream) -> TokenStream {
        param.put(&self.worker.krate.private(), &self.worker.listed_idents(), &self.entry, args)
    }

    /// Returns the function that encodes a parameter's default, which occurs in the expansion once.
    fn default(&self, i: usize, param: &Param) -> Option<TokenStream> {
        let expr = &param.default.as_ref()?.expr;
        let private = self.worker.krate.private();
        let (name, binding, ty) = (default_name(i), &param.binding, param.elided_type());
        let (generics, bounds) = (&self.generics, &self.bounds);
        let put = self.put(param, &quote_spanned!(Span::mixed_site()=> __args));
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

    /// Returns the statements that encode arguments or their defaults.
    fn puts(&self, given: &[bool]) -> impl Iterator<Item = TokenStream> {
        let args = quote_spanned!(Span::mixed_site()=> &mut __args);
        self.worker.params.iter().enumerate().map(move |(i, param)| match given[i] {
            true => self.put(param, &args),
            false => self.put_default(i, &args),
        })
    }

    /// Returns `__fillN`, a call without its first argument, which is filled in where the function runs. It has to be owned there.
    fn fill_in(&self, given: &[bool]) -> Option<TokenStream> {
        let private = self.worker.krate.private();
        let value = self.worker.params.first().filter(|_| given[0])?;
        let owned = value.owned_type(&private)?;
        let name = format_ident!("__fill{}", count(given), span = Span::mixed_site());
        let result = &self.worker.result;
        let mut others = given.to_vec();
        others[0] = false;
        let head = self.head(&name, &others, &quote!(#private::Update<#owned, #result>));
        let entry = &self.entry;
        let skip = quote_spanned!(Span::mixed_site()=> #private::Args::skip_lent(&mut __args););
        let skip = value.is_lent().then_some(skip);
        let puts = self.puts(given).skip(1);
        let mutable = (self.worker.params.len() > 1 || skip.is_some()).then(|| quote!(mut));
        Some(quote_spanned! {Span::mixed_site()=>
            #[inline]
            #head {
                let #mutable __args = #private::Args::new();
                #skip
                #(#puts)*
                #private::Args::update::<#owned, #result>(__args, #entry)
            }
        })
    }

    fn call(&self, given: &[bool]) -> TokenStream {
        let private = self.worker.krate.private();
        let result = &self.worker.result;
        let name = format_ident!("__call{}", count(given), span = Span::mixed_site());
        let head = self.head(&name, given, &quote!(#private::Task<#result>));
        let entry = &self.entry;
        let puts = self.puts(given);
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

    /// Returns the type that collects arguments by name. It appears in the error for a name that no parameter has.
    fn builder(&self) -> Ident {
        let function = plain(&self.worker.item.sig.ident);
        format_ident!("defaults_of_{}", function, span = Span::mixed_site())
    }

    /// Returns `__callN` and `__withN` for likely mistakes: fewer arguments than the function takes, and one too many. They take the right number of
    /// arguments, so every call of them is the compiler's own error, which names the missing argument or the one too many.
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

    /// Returns a builder with a method for each parameter that has a default and was not given by position.
    fn by_name(&self, calls: &[Vec<bool>]) -> TokenStream {
        let worker = self.worker;
        let private = worker.krate.private();
        let (generics, bounds, result, entry) = (&self.generics, &self.bounds, &worker.result, &self.entry);
        let (builder, idents, slots) = (self.builder(), &self.arguments, worker.params.len());
        let comma = (!generics.is_empty()).then(|| quote!(,));
        let types = worker.listed().filter(|param| matches!(param, GenericParam::Type(_)));
        let types = types.map(|param| respan(ident_of(param)));
        let starts = calls.iter().filter(|given| given.contains(&false)).map(|given| self.start(given));
        let fills = worker.params.iter().enumerate().map(|(i, param)| self.fill(i, param));
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

    /// Returns `__withN`, which starts a call by name with the arguments that are given by position, and the methods for the others.
    fn start(&self, given: &[bool]) -> TokenStream {
        let private = self.worker.krate.private();
        let (f, builder, slots) = (self.worker.name(), self.builder(), self.worker.params.len());
        let (generics, bounds, idents) = (&self.generics, &self.bounds, &self.arguments);
        let comma = (!generics.is_empty()).then(|| quote!(,));
        let n = count(given);
        let with = format_ident!("__with{}", n, span = Span::mixed_site());
        let head = self.head(&with, given, &quote!(#builder<#n #comma #idents>));
        let puts = self.given(given).map(|(i, param)| {
            let put = self.put(param, &quote_spanned!(Span::mixed_site()=> __slot));
            quote_spanned! {Span::mixed_site()=>
                let __slot = __slots[#i].insert(#private::Args::new());
                #put
            }
        });
        let params = self.worker.params.iter().enumerate();
        let setters = params.filter(|(i, _)| !given[*i]).filter_map(|(i, param)| self.setter(i, param));
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
    }

    /// Returns the method that sets an argument by name.
    fn setter(&self, i: usize, param: &Param) -> Option<TokenStream> {
        let private = self.worker.krate.private();
        let mut setter = param.default.as_ref()?.name.clone();
        setter.set_span(at(setter.span()));
        let (lifetimes, binding, ty) = (self.worker.lifetimes(), &param.binding, param.signature_type());
        let vis = respan(&self.worker.item.vis);
        let put = self.put(param, &quote_spanned!(Span::mixed_site()=> __slot));
        Some(quote_spanned! {Span::mixed_site()=>
            #[must_use]
            #vis fn #setter<#lifetimes>(mut self, #binding: #ty) -> Self {
                let __slot = self.slots[#i].insert(#private::Args::new());
                #put
                self
            }
        })
    }

    /// Returns the code that appends an argument that was given by name or by position, or its default.
    fn fill(&self, i: usize, param: &Param) -> TokenStream {
        let private = self.worker.krate.private();
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
    }
}

fn count(given: &[bool]) -> usize {
    given.iter().filter(|given| **given).count()
}

fn default_name(i: usize) -> Ident {
    format_ident!("__procession_default{}", i, span = Span::mixed_site())
}
