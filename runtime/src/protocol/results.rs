//! The results of consecutive tasks in one piece of the stream, which the host handles together.
//!
//! `supervisor` splits them off, and `call` decodes them later on the caller's thread.

use crate::frame::Frames;

/// The results of consecutive tasks, as they arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Results<'a> {
    frames: Frames<'a>,
    count: u32,
    nanos: u64,
    most_nanos: u64,
}

impl<'a> Results<'a> {
    /// Splits off the results at the start of `frames`, of at most `most` tasks from `seq` on. Also returns the remaining frames.
    #[inline]
    pub(crate) fn split_from(frames: Frames<'a>, seq: u32, most: u32) -> (Self, Frames<'a>) {
        let (mut rest, mut count, mut total, mut most_nanos) = (frames, 0u32, 0u64, 0u64);
        while count < most
            && let Some((head, _, next)) = rest.split_brief()
            && head as u32 == seq.wrapping_add(count)
        {
            let nanos = head >> 32;
            total += nanos;
            most_nanos = most_nanos.max(nanos);
            count += 1;
            rest = next;
        }
        let len = frames.as_bytes().len() - rest.as_bytes().len();
        let frames = Frames::new(&frames.as_bytes()[..len]);
        (Self { frames, count, nanos: total, most_nanos }, rest)
    }

    /// Creates results from bytes that [`as_bytes`](Self::as_bytes) returned.
    pub(crate) fn from_bytes(bytes: &'a [u8], count: u32) -> Self {
        Self { frames: Frames::new(bytes), count, nanos: 0, most_nanos: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.frames.as_bytes()
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Returns how long the tasks took together, as far as the worker has reported it.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos
    }

    /// Returns the longest time that the worker has reported, for one task or for several short ones.
    pub(crate) fn most_nanos(&self) -> u64 {
        self.most_nanos
    }

    /// Returns what the worker reported with each result: how long the tasks took since its last report, or 0 for no report.
    pub(crate) fn each_nanos(self) -> impl Iterator<Item = u64> {
        let mut frames = self.frames;
        std::iter::from_fn(move || {
            let (head, _, rest) = frames.split_brief()?;
            frames = rest;
            Some(head >> 32)
        })
    }
}

impl<'a> Iterator for Results<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (_, result, rest) = self.frames.split_brief()?;
        self.frames = rest;
        Some(result)
    }
}
