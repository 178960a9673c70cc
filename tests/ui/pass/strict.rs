//! Under the strictest lints, with nothing allowed: expansions are as quiet as the functions themselves.
// serde's own derives allow `unused` and `nonstandard_style`, so those cannot be forbidden.
#![forbid(unsafe_code, missing_docs)]
#![deny(
    warnings,
    unused,
    nonstandard_style,
    clippy::pedantic,
    missing_debug_implementations,
    missing_copy_implementations,
    unreachable_pub,
    unused_qualifications,
    unused_lifetimes,
    single_use_lifetimes,
    elided_lifetimes_in_paths,
    explicit_outlives_requirements,
    absolute_paths_not_starting_with_crate,
    let_underscore_drop,
    macro_use_extern_crate,
    meta_variable_misuse,
    non_ascii_idents,
    redundant_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unnameable_types,
    unsafe_op_in_unsafe_fn,
    unused_import_braces,
    unused_macro_rules,
    unused_results,
    variant_size_differences
)]

/// Workers for others.
pub mod jobs {
    /// Doubles.
    #[procession::worker]
    #[must_use]
    #[inline]
    pub fn double(n: u32) -> u32 {
        2 * n
    }

    /// The longest.
    #[procession::worker(instances(<u8>, <String>))]
    pub fn longest<'a, T: Ord + Clone + serde::Serialize>(words: &'a [T], #[default(false)] reverse: bool) -> Option<T> {
        let mut words: Vec<&'a T> = words.iter().collect();
        words.sort();
        if reverse { words.first().copied().cloned() } else { words.last().copied().cloned() }
    }

    /// Nothing calls it.
    #[procession::worker]
    pub fn idle(#[default(1)] _n: u8) {}
}

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Private(u8);

#[procession::worker]
fn private(p: Private, lent: &Private) -> Private {
    Private(p.0 + lent.0)
}

#[procession::worker]
fn never_called(_: u8) {}

/// Gone with its companions.
#[cfg(any())]
#[procession::worker]
fn gone(x: NoSuchType) {}

#[procession::worker]
#[cfg(any())]
fn gone_too(x: NoSuchType) {}

/// Old.
mod old {
    #[procession::worker]
    #[deprecated]
    #[allow(unused_mut)]
    pub(crate) fn old(mut n: u8) -> u8 {
        n
    }
}

fn nested() -> procession::Task<u8> {
    #[procession::worker]
    fn inner(n: u8) -> u8 {
        n
    }
    procession::delayed!(inner(3))
}

#[procession::main]
fn main() -> procession::Result<()> {
    use jobs::{double, longest};
    let doubled = procession::parallel!(double(n) for n in 0..3)?;
    assert_eq!(doubled, [0, 2, 4]);
    assert_eq!(procession::delayed!(longest(&[1u8, 2], reverse = true)).call()?, Some(1));
    assert_eq!(procession::delayed!(private(Private(1), &Private(2))).call()?.0, 3);
    assert_eq!(nested().call()?, 3);
    let (a, b) = procession::parallel!(double(1), double(2))?;
    assert_eq!((a, b), (2, 4));
    let ok: Result<Vec<u32>, procession::RemoteError> = procession::parallel!(fallible(n)? for n in 0..2);
    assert_eq!(ok.ok(), Some(vec![0, 1]));
    Ok(())
}

#[procession::worker]
fn fallible(n: u32) -> Result<u32, procession::RemoteError> {
    Ok(n)
}
