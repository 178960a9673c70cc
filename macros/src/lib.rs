//! The macros of procession. Use them through the crate `procession`, which re-exports them. Expansions name only what that crate
//! provides.

mod delayed;
mod diag;
mod main_attribute;
mod parallel;
mod path;
mod tokens;
mod versioned;
mod worker;

use proc_macro::TokenStream;

/// Makes a function callable in other processes. The function itself does not change.
///
/// The attribute adds a hidden struct of the same name, by which `delayed!` and `parallel!` find the function. `use
/// jobs::collatz;` therefore imports both. A type or module of the same name cannot exist in the same scope: the error "the name
/// `collatz` is defined multiple times" means that one of them must be renamed. A function in an `impl` or `trait` cannot be a
/// worker: the error "struct is not supported in `trait`s or `impl`s" means that the function must be moved outside.
///
/// # Parameters
///
/// Parameters are owned values, `&str`, `&[u8]`, `&Path`, `&[T]` or `&T`, of types that implement `Serialize` and `Deserialize`.
/// A borrowed argument is decoded in the worker and lent to the function. `&str`, `&[u8]` and `&Path` are lent without a copy.
/// Paths may contain any bytes.
///
/// A parameter with `#[default(expression)]` may be omitted in calls, or given by name. The expression is evaluated by the caller
/// when it is needed.
///
/// # Result
///
/// The return type is any type that implements `Serialize` and `DeserializeOwned`, or a `Result` of such types. Return
/// `RemoteError` to use `?` with errors of any type.
///
/// # `async`
///
/// An `async fn` requires procession's feature `tokio`. It runs to completion on a runtime that belongs to the worker.
///
/// # Options
///
/// - `instances(<u32>, <String>)`: the types for the parameters of a generic function. A call with other types does not compile.
/// - `crate = path`: the path of procession, if it is not `::procession`.
///
/// # Examples
///
/// ```
/// use std::path::Path;
///
/// use procession::{RemoteError, delayed, parallel, worker};
///
/// /// Counts the lines that are at least as long as `width`.
/// #[worker]
/// fn long_lines(path: &Path, #[default(80)] width: usize) -> Result<usize, RemoteError> {
///     let text = std::fs::read_to_string(path)?;
///     Ok(text.lines().filter(|line| line.len() >= width).count())
/// }
///
/// #[worker(instances(<u32>, <String>))]
/// fn largest<T: Ord>(values: Vec<T>) -> Option<T> {
///     values.into_iter().max()
/// }
///
/// let paths = ["Cargo.toml", "src/lib.rs"].map(Path::new);
/// let counts: Result<Vec<usize>, RemoteError> = parallel!(long_lines(path, width = 100)? for path in paths);
/// assert_eq!(counts?.len(), 2);
/// assert_eq!(delayed!(largest(vec![1u32, 3, 2])).call()?, Some(3));
/// # Ok::<(), procession::Error>(())
/// ```
#[proc_macro_attribute]
pub fn worker(options: TokenStream, item: TokenStream) -> TokenStream {
    worker::expand(options.into(), item.into()).into()
}

/// Makes workers start at the top of `main`, in a fully initialised process. They never run the body of `main`.
///
/// Without this attribute, workers start before `main`, when constructors of other crates may not have run yet. Attributes below
/// this one, such as that of an async runtime, apply to the body. A worker does not start any of it.
///
/// The option `crate = path` gives the path of procession, if it is not `::procession`.
///
/// # Examples
///
/// ```
/// use procession::{parallel, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// #[procession::main]
/// fn main() -> procession::Result<()> {
///     let squares = parallel!(square(n) for n in 1..=3)?;
///     assert_eq!(squares, [1, 4, 9]);
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    main_attribute::expand(options.into(), item.into()).into()
}

/// Implements `procession::delayed!`.
#[doc(hidden)]
#[proc_macro]
pub fn delayed(input: TokenStream) -> TokenStream {
    delayed::expand(input.into()).into()
}

/// Implements `procession::parallel!`.
#[doc(hidden)]
#[proc_macro]
pub fn parallel(input: TokenStream) -> TokenStream {
    parallel::expand(input.into()).into()
}

/// Makes the linker collect the entries of a static slice, under a name that contains the package and its version.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn gathered(_: TokenStream, item: TokenStream) -> TokenStream {
    versioned::gathered(item.into()).into()
}

/// Returns a name that contains the package and its version, as a string.
#[doc(hidden)]
#[proc_macro]
pub fn own_name(name: TokenStream) -> TokenStream {
    versioned::own_name(name.into()).into()
}

/// Puts code beside an item.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn beside(code: TokenStream, item: TokenStream) -> TokenStream {
    item.into_iter().chain(code).collect()
}
