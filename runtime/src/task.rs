//! Defines [`Task`], a function and its encoded arguments. It does nothing until a pool, a process or [`Task::call`] takes it.
//!
//! Expansions build tasks with [`Args`].

use std::{ffi::OsStr, fmt, marker::PhantomData, os::unix::ffi::OsStrExt, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{self, OwnedResult, ShortBytes, bytes, output},
    dispatch,
    error::{Fault, Result, TaskError, TaskErrorKind, TaskLocation},
    id::FunctionId,
    registry::{self, Entry},
};

/// One call of a function that has not run yet. Created by [`delayed!`](crate::delayed).
///
/// A task is `Send` and `'static` and borrows nothing from the caller, because its arguments are encoded when it is created.
///
/// # Examples
///
/// ```
/// use procession::{Task, delayed, worker};
///
/// #[worker]
/// fn add(a: u32, b: u32) -> u32 {
///     a + b
/// }
///
/// let task: Task<u32> = delayed!(add(1, 2));
/// assert_eq!(task.call()?, 3);
/// # Ok::<(), procession::TaskError>(())
/// ```
#[must_use = "a task does nothing by itself: submit it to a pool, spawn it, or call it"]
pub struct Task<T> {
    pub(crate) call: EncodedCall,
    result: PhantomData<fn() -> T>,
}

/// Types that can be converted into a [`Task`]. Accepted by pools and processes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "this is not a `Task`, but the function or its result",
    note = "wrap the call: `delayed!(f(x))`"
)]
pub trait IntoTask<T> {
    #[doc(hidden)]
    fn into_task(self) -> Task<T>;
}

impl<T> IntoTask<T> for Task<T> {
    #[inline(always)]
    fn into_task(self) -> Task<T> {
        self
    }
}

/// Iterators over [`Task`]s. Accepted by [`Pool::map`](crate::Pool::map) and similar methods.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an iterator of tasks",
    label = "its items are not `Task`s",
    note = "wrap the calls: `pool.map(xs.into_iter().map(|x| delayed!(f(x))))`, or write `parallel!(pool = &pool; \
            f(x) for x in xs)`"
)]
pub trait Tasks<T>: IntoIterator<Item = Task<T>> {}

#[diagnostic::do_not_recommend]
impl<T, I: IntoIterator<Item = Task<T>>> Tasks<T> for I {}

/// A task without the type of its result, as handled by schedulers and transports.
#[derive(Clone)]
pub(crate) struct EncodedCall {
    pub(crate) entry: &'static Entry,
    /// The encoded arguments, or the reason why they could not be encoded.
    pub(crate) args: Result<ShortBytes, Box<str>>,
}

impl fmt::Debug for EncodedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Task");
        f.field("function", &self.entry.name);
        match &self.args {
            Ok(args) => f.field("args_len_bytes", &args.len()),
            Err(words) => f.field("error", words),
        };
        f.finish()
    }
}

impl<T: DeserializeOwned + 'static> Task<T> {
    /// Runs the task on the current thread, with the same encoding as in a worker. Useful for tests and debugging.
    ///
    /// # Errors
    ///
    /// Returns an error if the function panicked, or if an argument or the result could not be encoded or decoded. A crash is not
    /// contained, because the function runs in the calling process.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// assert_eq!(delayed!(square(7)).call()?, 49);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn call(self) -> Result<T, TaskError> {
        let place = TaskLocation { attempts: 1, ..TaskLocation::default() };
        let function = self.call.entry.name;
        self.call
            .run()
            .and_then(|mut result| {
                output::decode_result(result.as_encoded())
                    .map_err(|words| Fault::codec(format!("the result: {words}")))
            })
            .map_err(|fault| TaskError::new(function, fault.into(), place))
    }
}

impl<T> Task<T> {
    /// Returns the full path of the function, as in `census::entropy`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Task, delayed, worker};
    ///
    /// #[worker]
    /// fn square(n: u64) -> u64 {
    ///     n * n
    /// }
    ///
    /// let task: Task<u64> = delayed!(square(7));
    /// assert!(task.function().ends_with("square"));
    /// ```
    #[must_use]
    pub fn function(&self) -> &'static str {
        self.call.entry.name
    }
}

impl EncodedCall {
    /// Runs the call in this process and returns its encoded result.
    pub(crate) fn run(&self) -> Result<OwnedResult, Fault> {
        let args = self.args.as_ref().map_err(|words| Fault::codec(words.to_string()))?;
        let (mut head, mut body) = (Vec::new(), Vec::new());
        dispatch::run(self.entry, || args.as_input(), &mut head, &mut body)?;
        Ok(output::Encoded::Large(head.into(), body).into_owned())
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

/// Types that can be arguments, on the caller's side. Expansions require [`Argument`](crate::__private::Argument) first, which has
/// the error message.
pub trait Sent: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Sent for T {}

/// Collects the arguments of one call, in the order of the parameters. Part of the expansion's interface.
#[derive(Debug)]
pub struct Args {
    bytes: Result<ShortBytes, Box<str>>,
}

impl Args {
    /// Creates an empty list.
    #[expect(clippy::new_without_default, reason = "only expansions call it")]
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self { bytes: Ok(ShortBytes::new()) }
    }

    /// Encodes the next argument. If it cannot be encoded, the task fails with that error.
    #[inline]
    pub fn put<A: Sent + ?Sized>(&mut self, name: &str, value: &A) {
        if let Ok(bytes) = &mut self.bytes
            && let Err(words) = codec::encode(value, bytes)
        {
            self.bytes = Err(format!("argument `{name}`: {words}").into());
        }
    }

    /// Encodes the next argument, which is a slice.
    #[inline]
    pub fn put_slice<A: Sent>(&mut self, name: &str, value: &[A]) {
        self.put(name, value);
    }

    /// Encodes the next argument, which is a byte slice, with one copy.
    pub fn put_bytes(&mut self, _name: &str, value: &[u8]) {
        if let Ok(bytes) = &mut self.bytes {
            bytes::encode_bytes(value, bytes);
        }
    }

    /// Encodes the next argument, which is an owned byte vector. A large one is not copied.
    pub fn put_byte_vec(&mut self, _name: &str, value: Vec<u8>) {
        if let Ok(bytes) = &mut self.bytes {
            bytes::encode_byte_vec(value, bytes);
        }
    }

    /// Encodes the next argument, which is a path of any bytes.
    pub fn put_path(&mut self, name: &str, value: &Path) {
        self.put_bytes(name, OsStr::as_bytes(value.as_os_str()));
    }

    /// Appends arguments that were encoded separately.
    pub fn append(&mut self, next: Self) {
        match (&mut self.bytes, next.bytes) {
            (Ok(bytes), Ok(next)) => bytes.append(&next),
            (Ok(_), next @ Err(_)) => self.bytes = next,
            (Err(_), _) => {}
        }
    }

    /// Creates the task: a call of the function of `entry` that returns a `T`.
    #[inline]
    pub fn task<T>(self, entry: &'static Entry) -> Task<T> {
        Task { call: EncodedCall { entry, args: self.bytes }, result: PhantomData }
    }
}

/// Returns the error of a function that the linker left out of the table.
pub(crate) fn not_in_table(request: &EncodedCall, index: Option<usize>) -> TaskError {
    let message = concat!(
        "the linker left it out of the table of workers: is the section `linkme_",
        procession_macros::own_name!(WORKERS),
        "` kept by the linker's options?"
    );
    let kind = TaskErrorKind::Lost { message: message.to_owned() };
    TaskError::new(request.entry.name, kind, TaskLocation { index, ..TaskLocation::default() })
}

/// Returns a task's function and arguments, if it can be sent to another process.
pub(crate) fn travels(
    call: crate::task::EncodedCall,
    index: Option<usize>,
) -> Result<(FunctionId, ShortBytes), TaskError> {
    let Some(function) = registry::id_of(call.entry) else { return Err(not_in_table(&call, index)) };
    let args = call.args.map_err(|words| {
        let kind = TaskErrorKind::Codec { message: words.into() };
        TaskError::new(call.entry.name, kind, TaskLocation { index, ..TaskLocation::default() })
    })?;
    Ok((function, args))
}
