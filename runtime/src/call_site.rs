//! `delayed!` and `parallel!`, as users reach them.
//!
//! They are `macro_rules!` so that `$crate` says where procession is, whatever name it was given: the procedural macros behind
//! them are told, and need no search.

/// Makes a [`Task`](crate::Task) of a call: the function and its encoded arguments, to be run elsewhere.
///
/// The call names a [`#[worker]`](macro@crate::worker) function by its path. Parameters with a `#[default(...)]` may be left out, or given by
/// name.
///
/// # Examples
///
/// ```
/// use procession::{Task, delayed, worker};
///
/// #[worker]
/// fn greet(name: &str, #[default("Hello")] greeting: &str) -> String {
///     format!("{greeting}, {name}")
/// }
///
/// let name = String::from("Ada");
/// let task: Task<String> = delayed!(greet(&name, greeting = "Good evening"));
/// drop(name); // the task owns what it needs
/// assert_eq!(task.call()?, "Good evening, Ada");
/// assert_eq!(delayed!(greet("Bob")).call()?, "Hello, Bob");
/// # Ok::<(), procession::TaskError>(())
/// ```
#[macro_export]
macro_rules! delayed {
    ($($call:tt)*) => { $crate::__private::delayed!(($crate) $($call)*) };
}

/// Runs calls in other processes, and comes back when all are done.
///
/// A comprehension runs one function for each item, and gives a vector in the order of the input: any number of `for` clauses,
/// each with an `if` of its own. Arguments are lent to the call. Different calls side by side give a tuple. A `?` after a
/// comprehension's call takes the results apart: the first `Err` ends the call, and is what comes back.
///
/// Settings come first, before a semicolon: `pool = &pool` (instead of the process's own), `jobs = 8` (how many workers the call
/// may use at a time), `batch = 64` (how many tasks travel together).
///
/// # Examples
///
/// ```
/// use procession::{parallel, worker};
///
/// #[worker]
/// fn times(a: u64, b: u64) -> u64 {
///     a * b
/// }
///
/// #[worker]
/// fn words(text: &str) -> usize {
///     text.split_whitespace().count()
/// }
///
/// let table = parallel!(times(a, b) for a in 1..=3 for b in 1..=a if b != 2)?;
/// assert_eq!(table, [1, 2, 3, 9]);
///
/// let texts = vec![String::from("one two"), String::from("three")];
/// let counts: Vec<usize> = parallel!(batch = 8; words(text) for text in &texts)?;
/// assert_eq!(counts, [2, 1]);
///
/// let (product, count) = parallel!(times(6, 7), words(&texts[0]))?;
/// assert_eq!((product, count), (42, 2));
/// # Ok::<(), procession::Error>(())
/// ```
#[macro_export]
macro_rules! parallel {
    ($($calls:tt)*) => { $crate::__private::parallel!(($crate) $($calls)*) };
}
