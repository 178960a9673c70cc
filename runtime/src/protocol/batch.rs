//! Tasks in the layout in which they travel: for each task its function, the length of its arguments, and the arguments.
//!
//! The queues of the host keep waiting tasks in this form, so sending them needs no further encoding. The bytes are our own here.
//! The worker checks them when it reads a request.

use std::sync::Arc;

use crate::{
    codec::{LARGE_BYTES, ShortBytes},
    id::FunctionId,
    segment::Attachments,
    sys::buffer_cache,
};

/// function, length of the arguments
pub(crate) const RECORD_HEAD_BYTES: usize = 4 + 4;

/// Tasks, oldest first, as bytes that are sent to a worker unchanged.
#[derive(Clone, Debug)]
pub(crate) struct EncodedTasks {
    kind: Kind,
    /// The segments that their arguments name. A task that was split off keeps those of all.
    attachments: Attachments,
}

#[derive(Clone, Debug)]
enum Kind {
    Small {
        bytes: Vec<u8>,
        /// The offset of the first remaining task, except for those that are `done`.
        at: usize,
        /// The number of tasks from `at` on that are done. They are skipped when the bytes are requested.
        done: u32,
        left: u32,
    },
    /// One task whose arguments are sent from their own memory. Empty once it is done.
    Large { function: FunctionId, args: Option<Arc<LargeArgs>> },
}

/// The arguments of one task, which are sent from their own memory.
#[derive(Debug)]
pub(crate) struct LargeArgs {
    bytes: Vec<u8>,
    /// The arguments are one byte vector, without its length.
    pub(crate) is_bare: bool,
}

impl AsRef<[u8]> for LargeArgs {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for LargeArgs {
    fn drop(&mut self) {
        buffer_cache::put(std::mem::take(&mut self.bytes));
    }
}

/// Appends one task.
#[inline]
pub(crate) fn put_record(function: FunctionId, args: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&record_head(function, args.len()));
    out.extend_from_slice(args);
}

/// Returns the bytes that go before the arguments.
#[inline]
pub(crate) fn record_head(function: FunctionId, args_len_bytes: usize) -> [u8; RECORD_HEAD_BYTES] {
    let len = u32::try_from(args_len_bytes).expect("large arguments travel apart");
    (u64::from(len) << 32 | u64::from(function.0)).to_le_bytes()
}

/// Splits off the first task.
#[inline]
pub(crate) fn split_record(bytes: &[u8]) -> Option<(FunctionId, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let head = u64::from_le_bytes(*head);
    let (args, rest) = rest.split_at_checked((head >> 32) as usize)?;
    Some((FunctionId(head as u32), args, rest))
}

/// The parts of [`EncodedTasks`] that are sent.
#[derive(Debug)]
pub(crate) enum Wire<'a> {
    Small(&'a [u8]),
    Large(FunctionId, &'a Arc<LargeArgs>),
}

impl From<Kind> for EncodedTasks {
    fn from(kind: Kind) -> Self {
        Self { kind, attachments: Attachments::default() }
    }
}

impl EncodedTasks {
    /// Creates records from bytes that [`put_record`] made.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        let left = count(&bytes);
        Kind::Small { bytes, at: 0, done: 0, left }.into()
    }

    /// Creates a record of one task with arguments of any size.
    pub(crate) fn of(function: FunctionId, args: ShortBytes) -> Self {
        if args.len() < LARGE_BYTES {
            let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + args.len());
            put_record(function, &args, &mut bytes);
            Kind::Small { bytes, at: 0, done: 0, left: 1 }.into()
        } else {
            let (bytes, is_bare) = args.into_parts();
            Kind::Large { function, args: Some(Arc::new(LargeArgs { bytes, is_bare })) }.into()
        }
    }

    /// Creates a record of one task whose arguments are large.
    #[cfg(test)]
    pub(super) fn large(function: FunctionId, args: Vec<u8>) -> Self {
        let args = LargeArgs { bytes: args, is_bare: false };
        Kind::Large { function, args: Some(Arc::new(args)) }.into()
    }

    pub(crate) fn is_large(&self) -> bool {
        matches!(self.kind, Kind::Large { .. })
    }

    /// Returns the number of tasks that are left.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        match &self.kind {
            Kind::Small { left, .. } => *left,
            Kind::Large { args, .. } => u32::from(args.is_some()),
        }
    }

    /// Returns the approximate size. Tasks that are done are included until the bytes are requested.
    pub(crate) fn len_bytes(&self) -> usize {
        match &self.kind {
            Kind::Small { bytes, at, .. } => bytes.len() - at,
            Kind::Large { args, .. } => args.as_ref().map_or(0, |args| args.bytes.len()),
        }
    }

    /// Adds the segments that the arguments name.
    pub(crate) fn with_attachments(mut self, attachments: &Attachments) -> Self {
        self.attachments.merge(attachments);
        self
    }

    /// Returns the segments that the arguments name.
    pub(crate) fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// Appends other small records.
    pub(crate) fn append(&mut self, more: &Self) {
        self.attachments.merge(&more.attachments);
        if let (Kind::Small { bytes, left, .. }, Wire::Small(others)) = (&mut self.kind, more.clone_wire()) {
            bytes.extend_from_slice(others);
            *left += more.len();
        }
    }

    /// Appends one task if all are small and together they have at most `most_bytes`. Returns whether it was appended.
    pub(crate) fn append_one(&mut self, function: FunctionId, args: &[u8], most_bytes: usize) -> bool {
        match &mut self.kind {
            Kind::Small { bytes, left, .. } if bytes.len() + args.len() < most_bytes => {
                put_record(function, args, bytes);
                *left += 1;
                true
            }
            _ => false,
        }
    }

    /// Returns the functions of the remaining tasks, in order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = FunctionId> {
        let (mut rest, mut large) = match &self.kind {
            Kind::Small { bytes, at, done, .. } => (skip(&bytes[*at..], *done), None),
            Kind::Large { function, args } => (&[][..], args.as_ref().map(|_| *function)),
        };
        std::iter::from_fn(move || match split_record(rest) {
            Some((function, _, next)) => {
                rest = next;
                Some(function)
            }
            None => large.take(),
        })
    }

    /// Returns the bytes, without skipping the tasks that are done.
    fn clone_wire(&self) -> Wire<'_> {
        match &self.kind {
            Kind::Small { bytes, at, done, .. } => Wire::Small(skip(&bytes[*at..], *done)),
            Kind::Large { function, args } => {
                Wire::Large(*function, args.as_ref().expect("a task that is done is not sent"))
            }
        }
    }

    /// Returns what to send.
    pub(crate) fn wire(&mut self) -> Wire<'_> {
        self.step();
        self.clone_wire()
    }

    /// Marks the first `n` tasks as done.
    #[inline]
    pub(crate) fn advance(&mut self, n: u32) {
        match &mut self.kind {
            Kind::Small { done, left, .. } => {
                *done += n;
                *left -= n;
            }
            Kind::Large { args, .. } if n > 0 => *args = None,
            Kind::Large { .. } => {}
        }
    }

    /// Splits off the first `n` tasks.
    pub(crate) fn take_first(&mut self, n: u32) -> Self {
        self.step();
        let kind = match &mut self.kind {
            Kind::Small { bytes, at, left, .. } => {
                let n = n.min(*left);
                let here = &bytes[*at..];
                let len = here.len() - skip(here, n).len();
                let first = here[..len].to_vec();
                *at += len;
                *left -= n;
                Kind::Small { bytes: first, at: 0, done: 0, left: n }
            }
            Kind::Large { function, args } => {
                let args = if n > 0 { args.take() } else { None };
                Kind::Large { function: *function, args }
            }
        };
        Self { kind, attachments: self.attachments.clone() }
    }

    /// Returns the function and the arguments of the first task.
    #[cfg(test)]
    pub(crate) fn first(&self) -> Option<(FunctionId, &[u8])> {
        match &self.kind {
            Kind::Small { bytes, at, done, .. } => {
                split_record(skip(&bytes[*at..], *done)).map(|(function, args, _)| (function, args))
            }
            Kind::Large { function, args } => args.as_ref().map(|args| (*function, &args.bytes[..])),
        }
    }

    /// Returns the function of the task after the first `n`.
    pub(crate) fn function_after(&self, n: u32) -> Option<FunctionId> {
        match &self.kind {
            Kind::Small { bytes, at, done, .. } => {
                split_record(skip(&bytes[*at..], *done + n)).map(|(function, ..)| function)
            }
            Kind::Large { function, .. } => Some(*function),
        }
    }

    fn step(&mut self) {
        if let Kind::Small { bytes, at, done, .. } = &mut self.kind
            && *done > 0
        {
            *at = bytes.len() - skip(&bytes[*at..], *done).len();
            *done = 0;
        }
    }
}

/// Counts the tasks.
fn count(mut bytes: &[u8]) -> u32 {
    let mut count = 0;
    while let Some((_, _, rest)) = split_record(bytes) {
        bytes = rest;
        count += 1;
    }
    count
}

/// Returns the bytes after the first `n` tasks.
fn skip(mut bytes: &[u8], n: u32) -> &[u8] {
    for _ in 0..n {
        match split_record(bytes) {
            Some((_, _, rest)) => bytes = rest,
            None => return &[],
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(n: u8) -> EncodedTasks {
        let mut bytes = Vec::new();
        (0..n).for_each(|i| put_record(FunctionId(u32::from(i)), &vec![i; usize::from(i)], &mut bytes));
        EncodedTasks::from_bytes(bytes)
    }

    fn numbers(mut records: EncodedTasks) -> Vec<u32> {
        let mut numbers = Vec::new();
        while let Some((function, args)) = records.first() {
            assert_eq!(args, vec![function.0 as u8; function.0 as usize]);
            numbers.push(function.0);
            records.advance(1);
        }
        assert_eq!(records.len(), 0);
        numbers
    }

    #[test]
    fn tasks_are_taken_and_done_in_their_order() {
        let mut records = some(9);
        records.advance(2);
        let first = records.take_first(3);
        assert_eq!((first.len(), records.len()), (3, 4));
        assert_eq!(numbers(first), [2, 3, 4]);
        records.advance(1);
        let mut rest = records.take_first(100);
        rest.append(&some(2));
        assert_eq!(numbers(rest), [6, 7, 8, 0, 1]);
        assert_eq!(numbers(records), []);
    }

    #[test]
    fn large_arguments_are_one_task() {
        let mut records = EncodedTasks::large(FunctionId(7), vec![1; 9]);
        assert_eq!((records.len(), records.len_bytes()), (1, 9));
        assert_eq!(records.take_first(0).len(), 0);
        let mut taken = records.take_first(1);
        assert_eq!((records.len(), taken.len()), (0, 1));
        assert_eq!(taken.first(), Some((FunctionId(7), &[1; 9][..])));
        taken.advance(1);
        assert_eq!(taken.first(), None);
    }

    #[test]
    fn every_truncation_ends_without_a_panic() {
        let mut records = some(5);
        let Wire::Small(bytes) = records.wire() else { panic!("small") };
        for len in 0..bytes.len() {
            assert!(EncodedTasks::from_bytes(bytes[..len].to_vec()).len() < 5);
        }
    }
}
