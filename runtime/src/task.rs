//! Defines [`Task`], a function and its encoded arguments. It does nothing until a pool, a process or [`Task::call`] takes it.
//!
//! Expansions build tasks with [`Args`].

use std::{ffi::OsStr, fmt, marker::PhantomData, os::unix::ffi::OsStrExt, path::Path, ptr};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{self, OwnedResult, ShortBytes, bytes, output},
    dispatch,
    error::{Fault, Result, TaskError, TaskErrorKind, TaskLocation},
    id::FunctionId,
    registry::{self, Entry},
    segment::{
        self, Attachments, Copied, Found, Kind, LentPart, LentRange, Loan, Loans, To, moved_by,
        with_available,
    },
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

/// A call whose first argument is the value of an object of a [`Manager`](crate::Manager), which fills it in. Created by
/// [`delayed!`](crate::delayed) with `_` in the place of the value.
///
/// The function takes a `V` and returns the new value, an `R`.
///
/// # Examples
///
/// ```
/// use procession::{Manager, Update, delayed, worker};
///
/// #[worker]
/// fn add(a: u64, b: u64) -> u64 {
///     a + b
/// }
///
/// let update: Update<u64> = delayed!(add(_, 1));
/// let manager = Manager::in_process();
/// let counts = manager.dict::<String, u64>()?;
/// counts.insert("apple".to_owned(), 2)?;
/// assert_eq!(counts.update("apple", update)?, 3);
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use = "an update does nothing by itself: give it to an object of a manager"]
pub struct Update<V, R = V> {
    pub(crate) call: EncodedCall,
    of: PhantomData<fn(V) -> R>,
}

impl<V, R> fmt::Debug for Update<V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
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
    pub(crate) handles: Handles,
}

/// The handles among encoded arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handles {
    /// A bit for each argument that the function borrows: whether it is a part of a segment.
    lent: u32,
    /// The number of these bits.
    count: u32,
    /// The segments that the arguments name.
    pub(crate) attachments: Attachments,
    /// What the task has of memory that can be changed.
    pub(crate) loans: Loans,
    /// The size of the arguments that were copied into segments.
    pub(crate) copied_bytes: usize,
}

impl Handles {
    /// Notes whether the next argument that the function borrows is a part of a segment.
    #[inline]
    fn push(&mut self, is_part: bool) {
        self.lent |= u32::from(is_part).checked_shl(self.count).unwrap_or(0);
        self.count += 1;
    }

    /// Returns whether nothing is held for the task.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.attachments.is_empty() && self.loans.is_empty()
    }

    /// Returns whether the next argument may be a part of a segment.
    #[inline]
    fn has_bit(&self) -> bool {
        self.count < u32::BITS
    }

    /// Returns the bits of the arguments that the function borrows.
    pub(crate) fn lent(&self) -> u32 {
        self.lent
    }

    /// Returns what comes before the arguments of a task with handles.
    #[inline]
    pub(crate) fn prefix(&self) -> Option<[u8; 4]> {
        (!self.attachments.is_empty()).then(|| self.lent.to_le_bytes())
    }

    /// Appends those of arguments that were encoded separately. Returns whether all of their bits have room.
    fn append(&mut self, mut next: Self) -> bool {
        let lent = u64::from(next.lent).checked_shl(self.count).unwrap_or(u64::from(next.lent) << 32);
        self.lent |= lent as u32;
        self.count += next.count;
        self.attachments.merge(&next.attachments);
        self.loans.append(&mut next.loans);
        self.copied_bytes += next.copied_bytes;
        u32::try_from(lent).is_ok()
    }
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
            .map_err(|fault| {
                TaskError::new(function, fault.into(), place).after_lending(self.call.handles.loans.names())
            })
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
    /// Checks that several workers may run the call.
    ///
    /// # Errors
    ///
    /// It was given memory that one process at a time may have.
    pub(crate) fn check_repeatable(&self) -> Result<(), String> {
        if self.handles.loans.is_empty() {
            return Ok(());
        }
        let name = self.entry.name;
        Err(format!(
            "`{name}` is to run in every worker, but was given a shared slice that one process at a time may change"
        ))
    }

    /// Runs the call in this process and returns its encoded result.
    pub(crate) fn run(&self) -> Result<OwnedResult, Fault> {
        let args = self.args.as_ref().map_err(|words| Fault::codec(words.to_string()))?;
        let (mut head, mut body) = (Vec::new(), Vec::new());
        let Handles { lent, attachments, loans, .. } = &self.handles;
        loans.release().map_err(Fault::codec)?;
        let returned = with_available(attachments, || {
            dispatch::run(self.entry, || args.as_input().with_lent(*lent), To::Caller, &mut head, &mut body)
        })?;
        Ok(output::Encoded::Large(head.into(), body).attach(returned).into_owned())
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
    handles: Handles,
}

impl Args {
    /// Creates an empty list.
    #[expect(clippy::new_without_default, reason = "only expansions call it")]
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self { bytes: Ok(ShortBytes::new()), handles: Handles::default() }
    }

    /// Encodes the next argument. If it cannot be encoded, the task fails with that error.
    #[inline]
    pub fn put<A: Sent + ?Sized>(&mut self, name: &str, value: &A) {
        if let Ok(bytes) = &mut self.bytes
            && let Handles { attachments, loans, .. } = &mut self.handles
            && let Err(words) = moved_by(To::Task, attachments, loans, || codec::encode(value, bytes))
        {
            self.bytes = Err(format!("argument `{name}`: {words}").into());
        }
    }

    /// Encodes the next argument, which the function borrows.
    #[inline]
    pub fn put_lent<A: Sent>(&mut self, name: &str, value: &A) {
        let found = segment::find::<A>(Kind::Value, ptr::from_ref(value).addr(), size_of::<A>());
        if !self.put_part(name, found, size_of::<A>(), || None) {
            self.put(name, value);
        }
    }

    /// Encodes the next argument, which is a slice.
    #[inline]
    pub fn put_slice<A: Sent>(&mut self, name: &str, value: &[A]) {
        if !self.put_elements(name, value) {
            self.put(name, value);
        }
    }

    /// Encodes the next argument, which is text.
    #[inline]
    pub fn put_str(&mut self, name: &str, value: &str) {
        let found = segment::find::<str>(Kind::Slice, value.as_ptr().addr(), value.len());
        if !self.put_part(name, found, value.len(), || segment::share_text(value)) {
            self.put(name, value);
        }
    }

    /// Encodes the next argument, which is a byte slice that the function borrows.
    pub fn put_byte_slice(&mut self, name: &str, value: &[u8]) {
        if !self.put_elements(name, value) {
            self.put_bytes(name, value);
        }
    }

    /// Encodes the next argument, a slice that the function writes.
    pub fn put_mut(&mut self, name: &str, range: LentRange) {
        self.put(name, &LentPart::of(&range));
        self.handles.attachments.add(range.segment());
        self.handles.loans.add(Loan::Part(range));
    }

    #[inline]
    fn put_elements<A>(&mut self, name: &str, value: &[A]) -> bool {
        let found = segment::find::<A>(Kind::Slice, value.as_ptr().addr(), size_of_val(value));
        self.put_part(name, found, size_of_val(value), || segment::share(value))
    }

    /// Encodes the next argument as a part of a segment if it was found in one, or if one is made of it. Returns whether that is so.
    #[inline]
    fn put_part(
        &mut self,
        name: &str,
        found: Option<Found>,
        len_bytes: usize,
        share: impl FnOnce() -> Option<Copied>,
    ) -> bool {
        let mut found = found.filter(|found| found.segment.can_go(To::Task));
        if !self.handles.has_bit() {
            found = None;
        } else if found.is_none()
            && let Some(Copied { segment, len_bytes }) = share()
        {
            self.handles.copied_bytes += len_bytes;
            found = Some(Found { segment, offset_bytes: 0 });
        }
        self.handles.push(found.is_some());
        let Some(found) = found else { return false };
        self.put(name, &LentPart::new(&found, len_bytes));
        self.handles.attachments.add(&found.segment);
        true
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
        let fits = self.handles.append(next.handles);
        match (&mut self.bytes, next.bytes) {
            (Ok(_), Ok(_)) if !fits => {
                self.bytes =
                    Err("shared memory cannot be given by name to a function that borrows over 32 arguments"
                        .into());
            }
            (Ok(bytes), Ok(next)) => bytes.append(&next),
            (Ok(_), next @ Err(_)) => self.bytes = next,
            (Err(_), _) => {}
        }
    }

    /// Leaves out an argument that the function borrows. It is filled in where the function runs.
    pub fn skip_lent(&mut self) {
        self.handles.push(false);
    }

    /// Creates the update: a call of the function of `entry` without its first argument.
    pub fn update<V, R>(self, entry: &'static Entry) -> Update<V, R> {
        Update { call: EncodedCall { entry, args: self.bytes, handles: self.handles }, of: PhantomData }
    }

    /// Creates the task: a call of the function of `entry` that returns a `T`.
    #[inline]
    pub fn task<T>(self, entry: &'static Entry) -> Task<T> {
        Task { call: EncodedCall { entry, args: self.bytes, handles: self.handles }, result: PhantomData }
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

/// A task as it is sent to another process.
pub(crate) struct SentTask {
    pub(crate) function: FunctionId,
    pub(crate) args: ShortBytes,
    pub(crate) attachments: Attachments,
    /// Kept until the task has its outcome.
    pub(crate) loans: Loans,
}

/// Returns a task as it is sent, if it can be sent to another process.
pub(crate) fn travels(call: EncodedCall, index: Option<usize>) -> Result<SentTask, TaskError> {
    let Some(function) = registry::id_of(call.entry) else { return Err(not_in_table(&call, index)) };
    let args = call.args.and_then(|args| call.handles.loans.check().map(|()| args).map_err(Box::from));
    let args = args.map_err(|words| {
        let kind = TaskErrorKind::Codec { message: words.into() };
        TaskError::new(call.entry.name, kind, TaskLocation { index, ..TaskLocation::default() })
    })?;
    let Some(prefix) = call.handles.prefix() else {
        let (attachments, loans) = (Attachments::default(), Loans::default());
        return Ok(SentTask { function, args, attachments, loans });
    };
    let mut bytes = ShortBytes::from_slice(&prefix);
    bytes.append(&args);
    let Handles { attachments, loans, .. } = call.handles;
    Ok(SentTask { function: function.with_handles(), args: bytes, attachments, loans })
}

/// Splits what [`travels`] has put before the arguments of a task with handles off them.
pub(crate) fn split_lent(args: &[u8]) -> Option<(u32, &[u8])> {
    let (lent, args) = args.split_first_chunk()?;
    Some((u32::from_le_bytes(*lent), args))
}
