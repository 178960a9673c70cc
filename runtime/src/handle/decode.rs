//! Decodes results on the thread that requests them, because a user's `Deserialize` may block or panic and must not do so under a
//! lock.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::de::DeserializeOwned;

use crate::{
    codec::{Encoded, output},
    error::{TaskError, TaskErrorKind, TaskLocation},
};

/// Decodes the result of a task. If that fails, it is the error of the task.
#[inline]
pub(crate) fn decode<T: DeserializeOwned + 'static>(
    function: &'static str,
    result: Encoded<'_>,
    place: TaskLocation,
) -> Result<T, TaskError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| output::decode_result(result)));
    decoded
        .unwrap_or_else(|_| Err(DESERIALIZE_PANICKED.to_owned()))
        .map_err(|words| not_decoded(function, &words, place))
}

/// Decodes the results of consecutive tasks and passes each to `keep`, until that breaks. `first` is the index of the first task.
///
/// `keep` must not run user code, because a panic in it would be attributed to the value.
#[inline]
pub(crate) fn decode_many<'a, T: DeserializeOwned + 'static>(
    function: &'static str,
    first: usize,
    mut results: impl Iterator<Item = &'a [u8]>,
    mut keep: impl FnMut(usize, Result<T, TaskError>) -> ControlFlow<()>,
) {
    let mut next = first;
    loop {
        // All of them are decoded under one catch, which is renewed after a panic.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for result in results.by_ref() {
                next += 1;
                if keep(next - 1, Ok(output::decode_result(Encoded::Short(result))?)).is_break() {
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

const DESERIALIZE_PANICKED: &str = "its Deserialize panicked";

fn not_decoded(function: &'static str, words: &str, place: TaskLocation) -> TaskError {
    TaskError::new(function, TaskErrorKind::Codec { message: format!("the result: {words}") }, place)
}
