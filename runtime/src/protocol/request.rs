//! The requests of the host, and their decoding in the worker.
//!
//! `supervisor` makes the heads, `batch.rs` the tasks behind them, and the worker decodes both with [`ToWorker::decode`].

use super::{batch::split_record, encoding::Malformed, handshake::Hello};
use crate::{codec, id::FunctionId, segment::SegmentId};

pub(super) const HELLO: u8 = 1;

const RUN: u8 = 2;

const RUN_LARGE: u8 = 3;

const FORGET: u8 = 4;

/// The rest is one byte vector, without its length.
const BARE: u8 = 1;

/// The bits of the flags byte.
const MAY_SPIN: u8 = 1;

const WANTS_PROGRESS: u8 = 2;

const IS_TIMED: u8 = 4;

const IS_INITIALIZER: u8 = 8;

const IS_PATIENT: u8 = 16;

const COUNTS_WAITS: u8 = 32;

/// tag, levels, flags, bare; first sequence number, number of tasks; first task; seed
pub(crate) const RUN_HEAD_BYTES: usize = 4 + 4 + 4 + 8 + 8;

/// The same, and the function of the one task whose arguments are the rest.
const RUN_LARGE_HEAD_BYTES: usize = RUN_HEAD_BYTES + 4;

/// The most verbose records that the host wants. 0 is none, 5 is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// For the `log` facade.
    pub(crate) log: u8,
    /// For `tracing`.
    pub(crate) trace: u8,
    /// Whether each task is timed individually, for a timeline.
    pub(crate) is_timed: bool,
}

/// The settings that apply to all tasks of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunFlags {
    pub(crate) levels: Levels,
    /// More tasks will come soon, and a core is free for waiting.
    pub(crate) may_spin: bool,
    /// The progress of tasks is shown.
    pub(crate) wants_progress: bool,
    /// The task is the initializer of the worker.
    pub(crate) is_initializer: bool,
    /// No thread can use a single result, so the host is woken only when it should send more.
    pub(crate) is_patient: bool,
    /// The worker reports whether the tasks wait for anything but a core.
    pub(crate) counts_waits: bool,
    /// The seed of their call, from which the seeds of the tasks are derived.
    pub(crate) seed: u64,
}

/// The head of a request to run tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunHead {
    pub(crate) flags: RunFlags,
    /// The sequence number of the first task. They are consecutive.
    pub(crate) first_seq: u32,
    pub(crate) count: u32,
    /// The ID of the first task. They are consecutive.
    pub(crate) first_task: u64,
}

/// The encoded head of a request. The tasks follow, or the arguments of one large task.
#[derive(Debug)]
pub(crate) struct RunHeadBytes {
    bytes: [u8; RUN_LARGE_HEAD_BYTES],
    len: usize,
}

impl RunHead {
    /// Encodes the head. `large` is the function of one task whose arguments follow, and whether these are bare.
    pub(crate) fn to_bytes(self, large: Option<(FunctionId, bool)>) -> RunHeadBytes {
        let mut bytes = [0; RUN_LARGE_HEAD_BYTES];
        bytes[0] = if large.is_some() { RUN_LARGE } else { RUN };
        let RunFlags { levels, may_spin, wants_progress, is_initializer, is_patient, counts_waits, .. } =
            self.flags;
        bytes[1] = levels.log | (levels.trace << 4);
        bytes[2] = if may_spin { MAY_SPIN } else { 0 };
        bytes[2] |= if wants_progress { WANTS_PROGRESS } else { 0 };
        bytes[2] |= if levels.is_timed { IS_TIMED } else { 0 };
        bytes[2] |= if is_initializer { IS_INITIALIZER } else { 0 };
        bytes[2] |= if is_patient { IS_PATIENT } else { 0 };
        bytes[2] |= if counts_waits { COUNTS_WAITS } else { 0 };
        bytes[4..8].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first_task.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.flags.seed.to_le_bytes());
        match large {
            None => RunHeadBytes { bytes, len: RUN_HEAD_BYTES },
            Some((function, is_bare)) => {
                bytes[3] = if is_bare { BARE } else { 0 };
                bytes[RUN_HEAD_BYTES..].copy_from_slice(&function.0.to_le_bytes());
                RunHeadBytes { bytes, len: RUN_LARGE_HEAD_BYTES }
            }
        }
    }
}

impl RunHeadBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum ToWorker<'a> {
    Hello(Hello),
    Run(RunHead, RunTasks<'a>),
    /// The host has dropped these segments.
    Forget(Vec<SegmentId>),
}

/// Encodes a request to forget segments.
pub(crate) fn encode_forget(ids: &[SegmentId]) -> Vec<u8> {
    let mut bytes = vec![FORGET];
    codec::encode(ids, &mut bytes).expect("numbers can be encoded");
    bytes
}

/// One task of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunTask<'a> {
    pub(crate) seq: u32,
    pub(crate) task: u64,
    pub(crate) function: FunctionId,
    pub(crate) args: &'a [u8],
}

/// The tasks of a request, in order.
#[derive(Debug)]
pub(crate) struct RunTasks<'a> {
    rest: &'a [u8],
    /// The function of the only task of a request, if its arguments are large.
    large: Option<FunctionId>,
    is_bare: bool,
    seq: u32,
    task: u64,
    left: u32,
}

impl<'a> ToWorker<'a> {
    /// Decodes a frame of two parts. The second part is empty if the frame came in one piece.
    pub(crate) fn decode(frame: &'a [u8], body: &'a [u8]) -> Result<Self, Malformed> {
        let (&tag, rest) = frame.split_first().ok_or(Malformed)?;
        match tag {
            HELLO => Ok(Self::Hello(codec::decode(rest).map_err(|_| Malformed)?)),
            FORGET => Ok(Self::Forget(codec::decode(rest).map_err(|_| Malformed)?)),
            RUN | RUN_LARGE => {
                let (&[levels, flags, bare], rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (seq, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (count, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (task, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (seed, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let flags = RunFlags {
                    levels: Levels { log: levels & 15, trace: levels >> 4, is_timed: flags & IS_TIMED != 0 },
                    may_spin: flags & MAY_SPIN != 0,
                    wants_progress: flags & WANTS_PROGRESS != 0,
                    is_initializer: flags & IS_INITIALIZER != 0,
                    is_patient: flags & IS_PATIENT != 0,
                    counts_waits: flags & COUNTS_WAITS != 0,
                    seed: u64::from_le_bytes(*seed),
                };
                let head = RunHead {
                    flags,
                    first_seq: u32::from_le_bytes(*seq),
                    count: u32::from_le_bytes(*count),
                    first_task: u64::from_le_bytes(*task),
                };
                let (large, rest) = if tag == RUN_LARGE {
                    let (function, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                    (Some(FunctionId(u32::from_le_bytes(*function))), rest)
                } else {
                    (None, rest)
                };
                let rest = if rest.is_empty() { body } else { rest };
                let (seq, task, left) = (head.first_seq, head.first_task, head.count);
                let is_bare = large.is_some() && bare == BARE;
                Ok(Self::Run(head, RunTasks { rest, large, is_bare, seq, task, left }))
            }
            _ => Err(Malformed),
        }
    }
}

impl<'a> RunTasks<'a> {
    /// Returns whether it is one task whose arguments are everything after the head.
    pub(crate) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    /// Returns whether its arguments are one byte vector, without its length.
    pub(crate) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// Returns the number of tasks that follow.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// Returns whether there is another task.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        self.left > 0
    }

    /// Returns the next task, or `None` after the last.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<RunTask<'a>>, Malformed> {
        if self.left == 0 {
            return if self.rest.is_empty() { Ok(None) } else { Err(Malformed) };
        }
        let (function, args) = match self.large {
            Some(function) => (function, std::mem::take(&mut self.rest)),
            None => {
                let (function, args, rest) = split_record(self.rest).ok_or(Malformed)?;
                self.rest = rest;
                (function, args)
            }
        };
        let (seq, task) = (self.seq, self.task);
        self.seq = seq.wrapping_add(1);
        self.task = task.wrapping_add(1);
        self.left -= 1;
        Ok(Some(RunTask { seq, task, function, args }))
    }
}
