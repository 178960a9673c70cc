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
///
/// # Messages of the compiler
///
/// The function is looked up where types stand, because that is where `#[worker]` puts its struct. A name that does not
/// belong to a worker is therefore not found as a type:
///
/// | the compiler says | it means |
/// |---|---|
/// | expected type, found function `f` | `f` is not a `#[worker]` function: put the attribute on it |
/// | expected type, found local variable `f` | a closure or a function in a variable cannot be found by another process: write a `#[worker]` function |
/// | cannot find type `f` in this scope | there is no `#[worker]` function `f` here: import it, `use jobs::f;` |
/// | `f` cannot be called with 4 argument(s) | the function takes fewer by two and more, or `f` is a type and no function |
/// | `f` cannot be called with 1 argument(s) by position and others by name | what is given by name has no `#[default(...)]`, or is given by position as well |
/// | this method takes 1 argument but 2 arguments were supplied | `pool.map(f, xs)` is Python: write `pool.map(xs.into_iter().map(\|x\| delayed!(f(x))))` |
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
/// # Settings
///
/// Settings come first, before a semicolon. They hold for this call alone.
///
/// | setting | what | default |
/// |---|---|---|
/// | `pool = &pool` | the pool that runs the call | the process's own |
/// | `jobs = 8` | how many workers it may use at a time: a number, [`Jobs`](crate::Jobs), or negative as in joblib | all of the pool's |
/// | `batch = 64` | how many tasks travel together; `auto`: found by measuring | `auto`, or the pool's `chunk_size` |
/// | `timeout = secs(3)` | how long each task may run: `millis`, `secs` and `mins` of any number, or a [`Duration`](std::time::Duration) | the pool's |
/// | `retries = 2` | how often a task whose worker died is started again | the pool's |
/// | `seed = 42` | what [`rng_seed`](crate::rng_seed) is made of in its tasks | made of the pool's and of the number of the call: each call draws other numbers, and each run of the program the same |
/// | `verbose = 10` | how much is said on stderr: 1 now and then, 10 for each batch, 50 for each task | `PROCESSION_VERBOSE`, or 0 |
/// | `progress = "scoring"` | a bar with this label, with the feature `indicatif`, if stderr is a terminal; `true`: without a label | none |
/// | `order = unordered` | results as they come, not in the order of the input (`ordered`) | `ordered` |
/// | `on_error = collect` | all tasks run, and each one's outcome is an item; `stop`: the first failure ends the call | `stop` |
///
/// `order(unordered)` and `on_error(collect)` mean the same as with `=`. With `collect` the vector has a `Result<T, TaskError>` for each
/// task; after a `?` it has the function's own `Result<T, E>`. What comes back around it is an [`Error`](crate::Error), should the call not
/// begin at all. In a tuple, `collect` makes each member a `Result`.
///
/// ```
/// use procession::{Pool, TaskError, parallel, worker};
///
/// #[worker]
/// fn divide(a: u32, b: u32) -> u32 {
///     a / b
/// }
///
/// let pool = Pool::new(2)?;
/// // Workers: two at most, for this call; eight tasks at a time.
/// assert_eq!(parallel!(pool = &pool, jobs = -1, batch = 8; divide(n, 2) for n in 0..4)?, [0, 0, 1, 1]);
/// // Each task has three seconds; one whose worker dies gets another chance.
/// assert_eq!(parallel!(pool = &pool, timeout = secs(3), retries = 1; divide(n, 1) for n in 0..2)?, [0, 1]);
/// // `[Parallel(jobs=2)]: Done   1 out of   2 | elapsed:    0.0s remaining:    0.0s`, and so on.
/// assert_eq!(parallel!(pool = &pool, verbose = 10; divide(6, n) for n in 1..=2)?, [6, 3]);
/// // A bar, where somebody sees it.
/// assert_eq!(parallel!(pool = &pool, progress = "dividing"; divide(6, n) for n in 1..=2)?, [6, 3]);
/// // Whatever comes first stands first.
/// let mut results = parallel!(pool = &pool, order = unordered; divide(n, 1) for n in 0..4)?;
/// results.sort();
/// assert_eq!(results, [0, 1, 2, 3]);
/// // One task in three fails, and the others' results are there.
/// let outcomes: Vec<Result<u32, TaskError>> = parallel!(pool = &pool, on_error = collect; divide(6, n) for n in 0..3)?;
/// assert!(outcomes[0].as_ref().unwrap_err().is_panic());
/// assert_eq!(outcomes[2].as_ref().unwrap(), &3);
/// // Random numbers that do not depend on how many workers there are.
/// #[worker]
/// fn draw() -> u64 {
///     procession::rng_seed()
/// }
/// let draws = parallel!(pool = &pool, seed = 42; draw() for _ in 0..3)?;
/// assert_eq!(draws, parallel!(pool = &pool, seed = 42, jobs = 1; draw() for _ in 0..3)?);
/// # Ok::<(), procession::Error>(())
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
/// What the compiler says of a function that is not a `#[worker]` function is explained at [`delayed!`](crate::delayed!#messages-of-the-compiler).
#[macro_export]
macro_rules! parallel {
    ($($calls:tt)*) => { $crate::__private::parallel!(($crate) $($calls)*) };
}
