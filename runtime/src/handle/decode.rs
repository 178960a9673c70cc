//! Decodes results on the thread that requests them, because a user's `Deserialize` may block or panic and must not do so under a
//! lock.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::de::DeserializeOwned;

use crate::{
    codec::{Encoded, OwnedResult, output},
    error::{TaskError, TaskErrorKind, TaskLocation},
};

/// A result as it is requested: a value, or for a group of calls of different types, the encoded result.
pub(crate) trait Decode: Sized {
    /// Decodes the result of a task. If that fails, it is the error of the task.
    fn decode(function: &'static str, result: Encoded<'_>, place: TaskLocation) -> Result<Self, TaskError>;

    /// Decodes the results of consecutive tasks and passes each to `keep`, until that breaks. `first` is the index of the first task.
    ///
    /// `keep` must not run user code, because a panic in it would be attributed to the value.
    fn decode_many<'a>(
        function: &'static str,
        first: usize,
        results: impl Iterator<Item = &'a [u8]>,
        keep: impl FnMut(usize, Result<Self, TaskError>) -> ControlFlow<()>,
    );
}

impl<T: DeserializeOwned + 'static> Decode for T {
    #[inline]
    fn decode(function: &'static str, result: Encoded<'_>, place: TaskLocation) -> Result<Self, TaskError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| output::decode_result(result)));
        decoded
            .unwrap_or_else(|_| Err(DESERIALIZE_PANICKED.to_owned()))
            .map_err(|words| not_decoded(function, &words, place))
    }

    #[inline]
    fn decode_many<'a>(
        function: &'static str,
        first: usize,
        mut results: impl Iterator<Item = &'a [u8]>,
        mut keep: impl FnMut(usize, Result<Self, TaskError>) -> ControlFlow<()>,
    ) {
        let mut next = first;
        loop {
            // All of them are decoded under one catch, which is renewed after a panic.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                for result in results.by_ref() {
                    next += 1;
                    if keep(next - 1, Ok(output::decode_short(result)?)).is_break() {
                        break;
                    }
                }
                Ok(())
            }));
            let Err(words) = ended.unwrap_or_else(|_| Err(DESERIALIZE_PANICKED.to_owned())) else { return };
            let index = next - 1;
            let place = TaskLocation { index: Some(index), attempts: 1, worker: None };
            if keep(index, Err(not_decoded(function, &words, place))).is_break() {
                return;
            }
        }
    }
}

impl Decode for OwnedResult {
    fn decode(_: &'static str, result: Encoded<'_>, _: TaskLocation) -> Result<Self, TaskError> {
        Ok(result.into_owned())
    }

    fn decode_many<'a>(
        _: &'static str,
        first: usize,
        results: impl Iterator<Item = &'a [u8]>,
        mut keep: impl FnMut(usize, Result<Self, TaskError>) -> ControlFlow<()>,
    ) {
        let mut results = (first..).zip(results);
        let _ = results.try_for_each(|(index, result)| keep(index, Ok(Encoded::Short(result).into_owned())));
    }
}

const DESERIALIZE_PANICKED: &str = "its Deserialize panicked";

fn not_decoded(function: &'static str, words: &str, place: TaskLocation) -> TaskError {
    TaskError::new(function, TaskErrorKind::Codec { message: format!("the result: {words}") }, place)
}
