//! The macros of procession. Use them through that crate: it re-exports them, and expansions name only what it has.

mod delayed;
mod diag;
mod main_attribute;
mod parallel;
mod path;
mod versioned;
mod worker;

use proc_macro::TokenStream;

/// Makes a function callable in other processes; the function itself stays as it is.
///
/// Beside it stands a hidden struct of the same name, by which `delayed!` and `parallel!` find it: `use jobs::collatz;` brings both.
/// So no type and no module of that name can stand in the same scope: "the name `collatz` is defined multiple times" means that one of them
/// needs another name. A function in an `impl` has no such place beside it: "struct is not supported in `trait`s or `impl`s" means that the
/// function is to stand outside.
///
/// # Parameters
///
/// Owned values, `&str`, `&[u8]`, `&Path`, `&[T]` and `&T`, of types that are `Serialize` and `Deserialize`. What is borrowed is
/// decoded in the worker and lent to the function; `&str`, `&[u8]` and `&Path` without a copy. Paths travel with any bytes.
///
/// A parameter with `#[default(expression)]` may be left out of calls, or given by name. The expression is evaluated by the caller, when
/// it is needed.
///
/// # Result
///
/// Anything that is `Serialize` and `DeserializeOwned`, a `Result` of such included. For `?` on errors of any kind, return
/// `RemoteError`.
///
/// # `async`
///
/// An `async fn` needs procession's feature `tokio`: it runs to its end on a runtime of the worker's own.
///
/// # Options
///
/// - `instances(<u32>, <String>)`: the types that a generic function's parameters stand for. A call with others does not compile.
/// - `crate = path`: where procession is, if it is not known as `::procession`.
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

/// Makes workers start at the top of `main`, in a fully initialised process, and never run its body.
///
/// Without it, workers start before `main`, when constructors of other crates may not have run yet. Attributes below this one, such as
/// a runtime's, are for the body: a worker starts none of that.
///
/// The option `crate = path` says where procession is, if it is not known as `::procession`.
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

/// What `procession::delayed!` becomes.
#[doc(hidden)]
#[proc_macro]
pub fn delayed(input: TokenStream) -> TokenStream {
    delayed::expand(input.into()).into()
}

/// What `procession::parallel!` becomes.
#[doc(hidden)]
#[proc_macro]
pub fn parallel(input: TokenStream) -> TokenStream {
    parallel::expand(input.into()).into()
}

/// Has the linker gather what a static names, under a name that carries the package and its version.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn gathered(_: TokenStream, item: TokenStream) -> TokenStream {
    versioned::gathered(item.into()).into()
}

/// A name that carries the package and its version, as a string.
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
