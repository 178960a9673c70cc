//! Defines `delayed!` and `parallel!`.
//!
//! They are `macro_rules!` so that `$crate` passes the path of procession to the procedural macros behind them, under any name that the
//! dependency has.

/// Creates a [`Task`](crate::Task) from a call: the function and its encoded arguments, to be run in another process.
///
/// The function is the path of a [`#[worker]`](macro@crate::worker) function. Parameters with a `#[default(...)]` may be omitted, or given
/// by name.
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
///
/// # Messages of the compiler
///
/// The function is looked up in the type namespace, where `#[worker]` has placed its struct. The compiler therefore reports a name that is
/// not a worker as a missing type:
///
/// | message | meaning |
/// |---|---|
/// | expected type, found function `f` | `f` is not a `#[worker]` function: put the attribute on it |
/// | expected type, found local variable `f` | another process cannot find a closure or a function in a variable: write a `#[worker]` function |
/// | cannot find type `f` in this scope | there is no `#[worker]` function `f` here: import it, `use jobs::f;` |
/// | `f` cannot be called with 4 argument(s) | the function takes at least two arguments fewer, or `f` is a type and not a function |
/// | `f` cannot be called with 1 argument(s) by position and others by name | a parameter that is given by name has no `#[default(...)]`, or is given by position as well |
/// | this method takes 1 argument but 2 arguments were supplied | `pool.map(f, xs)` is written as in Python: write `pool.map(xs.into_iter().map(\|x\| delayed!(f(x))))` |
#[macro_export]
macro_rules! delayed {
    ($($call:tt)*) => { $crate::__private::delayed!(($crate) $($call)*) };
}

/// Runs calls in other processes and returns when all are done.
///
/// A comprehension calls one function for each item and returns a `Vec` in the order of the input. It has any number of `for` clauses, each
/// with an optional `if`. Arguments may borrow from the caller. Several different calls, separated by commas, run at the same time and return
/// a tuple. With a `?` after the call of a comprehension, the first `Err` that the function returns ends the call and is returned.
///
/// # Settings
///
/// Settings come before the call, followed by a semicolon. They apply to this call only.
///
/// | setting | meaning | default |
/// |---|---|---|
/// | `pool = &pool` | the pool that runs the call | the pool of this process |
/// | `jobs = 8` | the maximum number of workers used at a time: a number, [`Jobs`](crate::Jobs), or negative as in joblib | all workers of the pool |
/// | `batch = 64` | the number of tasks sent together. `auto` measures | the pool's `chunk_size`, or `auto` |
/// | `timeout = secs(3)` | how long each task may run: `millis`, `secs` or `mins` of a number, or a [`Duration`](std::time::Duration) | the pool's |
/// | `retries = 2` | how many times a task is retried after its worker dies | the pool's |
/// | `seed = 42` | the number from which [`rng_seed`](crate::rng_seed) is derived in the tasks | derived from the pool's seed and the number of the call |
/// | `verbose = 10` | how much is reported on stderr: 1 occasionally, 10 each batch, 50 each task | `PROCESSION_VERBOSE`, or 0 |
/// | `progress = "scoring"` | shows a bar with this label if stderr is a terminal (feature `indicatif`). `true` shows it without a label | no bar |
/// | `order = unordered` | returns results in the order of completion instead of the order of the input (`ordered`) | `ordered` |
/// | `on_error = collect` | runs all tasks and returns the outcome of each. `stop`: the first failure ends the call | `stop` |
///
/// `order(unordered)` and `on_error(collect)` have the same meaning as with `=`. With `collect`, the items are `Result<T, TaskError>`, and with
/// a `?` after the call they are the function's own `Result<T, E>`. The surrounding `Result` has an [`Error`](crate::Error) only if the call
/// could not start. In a tuple, `collect` makes each member a `Result`.
///
/// ```
/// use procession::{Pool, TaskError, parallel, worker};
///
/// #[worker]
/// fn divide(a: u32, b: u32) -> u32 {
///     a / b
/// }
///
/// # fn main() -> procession::Result<()> {
/// let pool = Pool::new(2)?;
/// // At most all workers, and eight tasks at a time.
/// assert_eq!(parallel!(pool = &pool, jobs = -1, batch = 8; divide(n, 2) for n in 0..4)?, [0, 0, 1, 1]);
/// // Each task has three seconds, and one more attempt if its worker dies.
/// assert_eq!(parallel!(pool = &pool, timeout = secs(3), retries = 1; divide(n, 1) for n in 0..2)?, [0, 1]);
/// // Prints `[Parallel(jobs=2)]: Done   1 out of   2 | elapsed:    0.0s remaining:    0.0s` and so on.
/// assert_eq!(parallel!(pool = &pool, verbose = 10; divide(6, n) for n in 1..=2)?, [6, 3]);
/// // Shows a bar on terminals.
/// assert_eq!(parallel!(pool = &pool, progress = "dividing"; divide(6, n) for n in 1..=2)?, [6, 3]);
/// // The first task to finish comes first.
/// let mut results = parallel!(pool = &pool, order = unordered; divide(n, 1) for n in 0..4)?;
/// results.sort();
/// assert_eq!(results, [0, 1, 2, 3]);
/// // One of three tasks fails, and the other results are available.
/// let outcomes: Vec<Result<u32, TaskError>> = parallel!(pool = &pool, on_error = collect; divide(6, n) for n in 0..3)?;
/// assert!(outcomes[0].as_ref().unwrap_err().is_panic());
/// assert_eq!(outcomes[2].as_ref().unwrap(), &3);
/// // Random numbers that do not depend on the number of workers.
/// #[worker]
/// fn draw() -> u64 {
///     procession::rng_seed()
/// }
/// let draws = parallel!(pool = &pool, seed = 42; draw() for _ in 0..3)?;
/// assert_eq!(draws, parallel!(pool = &pool, seed = 42, jobs = 1; draw() for _ in 0..3)?);
/// # Ok(())
/// # }
/// ```
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
///
/// The compiler's messages for a function that is not a `#[worker]` function are explained at [`delayed!`](crate::delayed!#messages-of-the-compiler).
#[macro_export]
macro_rules! parallel {
    ($($calls:tt)*) => { $crate::__private::parallel!(($crate) $($calls)*) };
}
