//! Creates names that contain the package and its version, so that two versions in one program do not collide.
//!
//! The linker merges all sections of one name, whichever crate defined them, and an environment has one variable per name.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Attribute, Token, Visibility,
    parse::{Parse, ParseStream},
};

/// `#[...] pub static NAME: …;`
struct Gathered {
    attrs: Vec<Attribute>,
    vis: Visibility,
    name: Ident,
    rest: TokenStream,
}

impl Parse for Gathered {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        input.parse::<Token![static]>()?;
        Ok(Self { attrs, vis, name: input.parse()?, rest: input.parse()? })
    }
}

/// Expands `static NAME: [T];` to a slice of `linkme` under the full name, which can also be used as `NAME`.
pub(crate) fn gathered(item: TokenStream) -> TokenStream {
    let Gathered { attrs, vis, name, rest } = match syn::parse2(item) {
        Ok(gathered) => gathered,
        Err(error) => return error.to_compile_error(),
    };
    let full = format_ident!("{}", own_package().name(&name.to_string()), span = name.span());
    quote! {
        #(#attrs)*
        #[linkme::distributed_slice]
        #vis static #full #rest
        #vis use #full as #name;
    }
}

/// Expands `NAME` to the full name, as a literal.
pub(crate) fn own_name(name: TokenStream) -> TokenStream {
    match syn::parse2::<Ident>(name) {
        Ok(name) => {
            let mut name = Literal::string(&own_package().name(&name.to_string()));
            name.set_span(Span::call_site());
            quote!(#name)
        }
        Err(error) => error.to_compile_error(),
    }
}

/// The package that is being compiled.
struct Package {
    name: String,
    version: String,
}

fn own_package() -> Package {
    // Cargo sets both for the compiler of each package.
    let get = |variable| std::env::var(variable).unwrap_or_default();
    Package { name: get("CARGO_PKG_NAME"), version: get("CARGO_PKG_VERSION") }
}

impl Package {
    /// Returns a name such as `PROCESSION_1_2_3_WORKERS`, which is valid for an identifier and for an environment variable.
    fn name(&self, name: &str) -> String {
        let all = format!("{}_{}_{name}", self.name, self.version);
        all.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_the_package_and_its_version() {
        let check = |name: &str, version: &str, full: &str| {
            assert_eq!(Package { name: name.into(), version: version.into() }.name("WORKERS"), full);
        };
        check("procession", "0.1.0", "PROCESSION_0_1_0_WORKERS");
        check("procession", "0.1.1", "PROCESSION_0_1_1_WORKERS");
        check("procession", "0.2.0-rc.1+linux", "PROCESSION_0_2_0_RC_1_LINUX_WORKERS");
        check("my-procession", "0.1.0", "MY_PROCESSION_0_1_0_WORKERS");
    }

    #[test]
    fn a_gathered_static_has_its_full_name_and_its_own() {
        let item = quote! {
            /// Words.
            pub static WORKERS: [Entry];
        };
        let full = format_ident!("{}", own_package().name("WORKERS"));
        let wanted = quote! {
            /// Words.
            #[linkme::distributed_slice]
            pub static #full: [Entry];
            pub use #full as WORKERS;
        };
        assert_eq!(gathered(item).to_string(), wanted.to_string());
        assert!(
            gathered(quote!(
                fn f() {}
            ))
            .to_string()
            .contains("compile_error")
        );
    }
}
