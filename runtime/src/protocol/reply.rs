//! The messages, one a frame. The first byte says which it is.
//!
//! Requests and results, which are many, are laid out by hand: numbers little-endian. The rest is in postcard's encoding. Nothing that is read here is believed: whatever does not fit is [`Malformed`].

use serde::{Deserialize, Serialize};

#[cfg(feature = "tracing")]
use super::trace::Said;
use super::{
    batch::split_record,
    handshake::{Hello, Ready, Refused},
};
use crate::{
    codec::{self, Encoded, ShortBytes},
    error::Fault,
    frame::{BRIEF_HEAD_BITS, Frames, MOST_BRIEF_BYTES},
    id::FunctionId,
    panic::RemotePanic,
    sys::buffer_cache,
};

/// A frame that is no message of this protocol.
#[derive(Debug)]
pub(crate) struct Malformed;

const HELLO: u8 = 1;
const RUN: u8 = 2;
const RUN_LARGE: u8 = 3;
/// What follows is one byte vector, without its length.
const BARE: u8 = 1;

const READY: u8 = 129;
const REFUSED: u8 = 130;
const DONE: u8 = 131;
const FAULT: u8 = 132;
const PANIC: u8 = 133;
const LOG: u8 = 134;
const PROGRESS: u8 = 135;
const NOTE: u8 = 136;
#[cfg(feature = "tracing")]
const TRACE: u8 = 137;

/// Bits of one byte.
const MAY_SPIN: u8 = 1;
const WANTS_PROGRESS: u8 = 2;
const IS_TIMED: u8 = 4;

/// tag, levels, flags, bare; first sequence number, number of tasks; first task; seed
pub(crate) const RUN_HEAD_BYTES: usize = 4 + 4 + 4 + 8 + 8;
/// The same, and the function of the one task whose arguments are the rest.
const RUN_LARGE_HEAD_BYTES: usize = RUN_HEAD_BYTES + 4;
/// tag, sequence number, nanoseconds
pub(crate) const DONE_HEAD_BYTES: usize = 1 + 4 + 8;

/// The most verbose records that the host wants: 0 is none, 5 is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Of the `log` facade.
    pub(crate) log: u8,
    /// Of `tracing`.
    pub(crate) trace: u8,
    /// And the time that each task takes, for a timeline.
    pub(crate) is_timed: bool,
}

/// What holds for all the tasks of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) levels: Levels,
    /// More will come soon, and there is a core to wait for it on.
    pub(crate) may_spin: bool,
    /// Somebody looks at how far tasks are.
    pub(crate) wants_progress: bool,
    /// Their call's: the seeds of the tasks are made of it.
    pub(crate) seed: u64,
}

/// What a request to run tasks says of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunHead {
    pub(crate) orders: Orders,
    /// Sequence numbers are consecutive from here.
    pub(crate) first_seq: u32,
    pub(crate) count: u32,
    /// So are the tasks' own numbers.
    pub(crate) first_task: u64,
}

/// The head of a request; the records follow, or the arguments of one large task.
#[derive(Debug)]
pub(crate) struct RunHeadBytes {
    bytes: [u8; RUN_LARGE_HEAD_BYTES],
    len: usize,
}

impl RunHead {
    /// `large`: the function of one task whose arguments follow, and whether these are bare.
    pub(crate) fn to_bytes(self, large: Option<(FunctionId, bool)>) -> RunHeadBytes {
        let mut bytes = [0; RUN_LARGE_HEAD_BYTES];
        bytes[0] = if large.is_some() { RUN_LARGE } else { RUN };
        let Orders { levels, may_spin, wants_progress, .. } = self.orders;
        bytes[1] = levels.log | (levels.trace << 4);
        bytes[2] = if may_spin { MAY_SPIN } else { 0 };
        bytes[2] |= if wants_progress { WANTS_PROGRESS } else { 0 };
        bytes[2] |= if levels.is_timed { IS_TIMED } else { 0 };
        bytes[4..8].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first_task.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.orders.seed.to_le_bytes());
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

/// What a worker hears.
#[derive(Debug)]
pub(crate) enum ToWorker<'a> {
    Hello(Hello),
    Run(RunHead, RunTasks<'a>),
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
    /// The one task of a request whose arguments are large.
    large: Option<FunctionId>,
    is_bare: bool,
    seq: u32,
    task: u64,
    left: u32,
}

impl<'a> ToWorker<'a> {
    /// Decodes a frame of two parts; of one that came in one piece the second is empty.
    pub(crate) fn decode(frame: &'a [u8], body: &'a [u8]) -> Result<Self, Malformed> {
        let (&tag, rest) = frame.split_first().ok_or(Malformed)?;
        match tag {
            HELLO => Ok(Self::Hello(codec::decode(rest).map_err(|_| Malformed)?)),
            RUN | RUN_LARGE => {
                let (&[levels, flags, bare], rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (seq, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (count, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (task, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (seed, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let orders = Orders {
                    levels: Levels { log: levels & 15, trace: levels >> 4, is_timed: flags & IS_TIMED != 0 },
                    may_spin: flags & MAY_SPIN != 0,
                    wants_progress: flags & WANTS_PROGRESS != 0,
                    seed: u64::from_le_bytes(*seed),
                };
                let head = RunHead {
                    orders,
                    first_seq: u32::from_le_bytes(*seq),
                    count: u32::from_le_bytes(*count),
                    first_task: u64::from_le_bytes(*task),
                };
                let (large, rest) = if tag == RUN_LARGE {
                    let (function, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                    let large = Some(FunctionId(u32::from_le_bytes(*function)));
                    (large, if rest.is_empty() { body } else { rest })
                } else {
                    (None, if rest.is_empty() { body } else { rest })
                };
                let (seq, task, left) = (head.first_seq, head.first_task, head.count);
                let is_bare = large.is_some() && bare == BARE;
                Ok(Self::Run(head, RunTasks { rest, large, is_bare, seq, task, left }))
            }
            _ => Err(Malformed),
        }
    }
}

impl<'a> RunTasks<'a> {
    /// It is one task, whose arguments are all that follows the head.
    pub(crate) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    /// Its arguments are one byte vector, without its length.
    pub(crate) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// Whether there is another.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        self.left > 0
    }

    /// The next task; `None` after the last.
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

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        tagged(HELLO, self)
    }
}

/// What a host hears.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Ready(Ready),
    Refused(Refused),
    /// The task gave a result.
    Done {
        seq: u32,
        nanos: u64,
        result: Encoded<'a>,
    },
    /// The task gave none.
    Fault {
        seq: u32,
        nanos: u64,
        fault: Fault,
    },
    /// The running task panics. If the process lives, a `Fault` follows.
    Panic {
        seq: u32,
        panic: RemotePanic,
    },
    Said(Record),
    /// The task of this number is so far: a fraction of itself.
    Progress {
        seq: u32,
        fraction: f64,
    },
    Note(Note),
}

/// What a worker tells of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// It has looked more closely at so many tasks: nanoseconds for decoding and encoding.
    Sample { tasks: u64, encoding: u64, peak_rss_bytes: u64 },
    /// The tasks whose replies follow began at this time, by the monotonic clock, and then one after the other.
    Begun { nanos: u64 },
    /// The last so many tasks whose replies said nothing of their time took so long: what was to follow them was taken back. The last
    /// of them was this.
    Late { nanos: u64, tasks: u32, task: u64, function: u32 },
}

/// What functions say besides their results.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Log(LogRecord),
    #[cfg(feature = "tracing")]
    Trace(Said),
}

impl Record {
    /// The task that said it, if one did.
    pub(crate) fn task(&self) -> Option<u64> {
        match self {
            Self::Log(record) => record.task,
            #[cfg(feature = "tracing")]
            Self::Trace(said) => said.task,
        }
    }
}

/// Results of consecutive tasks, as they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Results<'a> {
    frames: Frames<'a>,
    count: u32,
    nanos: u64,
    most_nanos: u64,
}

impl<'a> Results<'a> {
    /// The results at the start of `frames`, of at most `most` tasks from `seq` on; and the frames after them.
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

    /// The results that [`as_bytes`](Self::as_bytes) gave.
    pub(crate) fn from_bytes(bytes: &'a [u8], count: u32) -> Self {
        Self { frames: Frames::new(bytes), count, nanos: 0, most_nanos: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.frames.as_bytes()
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// How long the tasks took in all, as far as the worker has said.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos
    }

    /// The longest time that the worker has said, of one task or of several short ones.
    pub(crate) fn most_nanos(&self) -> u64 {
        self.most_nanos
    }

    /// What the worker has said with each result: how long the tasks took since it last said so, or nothing, 0.
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

/// A record of the `log` facade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    /// As `log::Level` counts them.
    pub(crate) level: u8,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// The task that made it, if one did.
    pub(crate) task: Option<u64>,
    pub(crate) fields: Vec<(String, String)>,
}

/// Messages that are encoded by postcard.
pub(crate) enum Plain<'a> {
    Ready(&'a Ready),
    Refused(&'a Refused),
    Log(&'a LogRecord),
    #[cfg(feature = "tracing")]
    Trace(&'a Said),
    Note(&'a Note),
}

/// Encodes what is known of a panic as it begins.
pub(crate) fn encode_panic(seq: u32, panic: &RemotePanic) -> Vec<u8> {
    let mut bytes = vec![PANIC];
    bytes.extend_from_slice(&seq.to_le_bytes());
    codec::encode(panic, &mut bytes).expect("our own messages are plain structs, which always encode");
    bytes
}

/// Encodes how far a task is.
pub(crate) fn encode_progress(seq: u32, fraction: f64) -> [u8; 13] {
    let mut bytes = [PROGRESS; 13];
    bytes[1..5].copy_from_slice(&seq.to_le_bytes());
    bytes[5..].copy_from_slice(&fraction.to_le_bytes());
    bytes
}

/// Encodes one of the rarer replies.
pub(crate) fn encode_reply<'a>(reply: impl Into<Plain<'a>>) -> Vec<u8> {
    match reply.into() {
        Plain::Ready(ready) => tagged(READY, ready),
        Plain::Refused(refused) => tagged(REFUSED, refused),
        Plain::Log(record) => tagged(LOG, record),
        Plain::Note(note) => tagged(NOTE, note),
        #[cfg(feature = "tracing")]
        Plain::Trace(said) => tagged(TRACE, said),
    }
}

/// A reply to one task, as it is made.
#[derive(Debug)]
pub(crate) struct ReplyFrame {
    seq: u32,
    nanos: u64,
    failed: bool,
    /// The result, or the fault, and what of it is large apart.
    bytes: Vec<u8>,
    large: Vec<u8>,
}

/// What of a [`ReplyFrame`] goes over the wire.
#[derive(Debug)]
pub(crate) enum ReplyWire<'a> {
    /// The head of a brief, and its body.
    Brief(u64, &'a [u8]),
    /// Two parts of the head, and the body.
    Parts([u8; DONE_HEAD_BYTES], &'a [u8], &'a [u8]),
}

/// A vector that a large reply has blown up is given back.
const MOST_KEPT_BYTES: usize = 1 << 20;
/// What a brief's head has room for, besides the sequence number.
const MOST_BRIEF_NANOS: u64 = (1 << (BRIEF_HEAD_BITS - 32)) - 1;

impl ReplyFrame {
    pub(crate) fn new() -> Self {
        Self { seq: 0, nanos: 0, failed: false, bytes: Vec::new(), large: Vec::new() }
    }

    /// Makes it a reply about task `seq`: `run` appends the result, and puts what of it is large apart.
    #[inline]
    pub(crate) fn make(
        &mut self,
        seq: u32,
        run: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> Result<(), Fault>,
    ) {
        (self.seq, self.nanos, self.failed) = (seq, 0, false);
        self.bytes.clear();
        if let Err(fault) = run(&mut self.bytes, &mut self.large) {
            self.fail(&fault);
        }
    }

    #[cold]
    fn fail(&mut self, fault: &Fault) {
        self.failed = true;
        self.large = Vec::new();
        self.bytes.clear();
        if codec::encode(fault, &mut self.bytes).is_err() {
            self.bytes.clear();
        }
    }

    /// Says how long the task took, and those before it that said nothing.
    #[inline]
    pub(crate) fn set_nanos(&mut self, nanos: u64) {
        self.nanos = nanos;
    }

    /// What to send.
    #[inline]
    pub(crate) fn wire(&self) -> ReplyWire<'_> {
        let is_brief = !self.failed
            && self.nanos <= MOST_BRIEF_NANOS
            && self.bytes.len() <= MOST_BRIEF_BYTES
            && self.large.is_empty();
        if is_brief {
            return ReplyWire::Brief(self.nanos << 32 | u64::from(self.seq), &self.bytes);
        }
        let mut head = [0; DONE_HEAD_BYTES];
        head[0] = if self.failed { FAULT } else { DONE };
        head[1..5].copy_from_slice(&self.seq.to_le_bytes());
        head[5..].copy_from_slice(&self.nanos.to_le_bytes());
        match &self.large[..] {
            [] => ReplyWire::Parts(head, &[], &self.bytes),
            large => ReplyWire::Parts(head, &self.bytes, large),
        }
    }

    /// Gives back what a large reply took.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if !self.large.is_empty() || self.bytes.capacity() > MOST_KEPT_BYTES {
            let Self { bytes, large, .. } = std::mem::replace(self, Self::new());
            buffer_cache::put(if large.is_empty() { bytes } else { large });
        }
    }
}

impl<'a> Reply<'a> {
    /// The task whose outcome a large reply with this head is.
    pub(crate) fn ends_large(head: &[u8]) -> Option<u32> {
        let (&tag, rest) = head.split_first()?;
        matches!(tag, DONE | FAULT).then(|| rest.first_chunk().map(|seq| u32::from_le_bytes(*seq)))?
    }

    /// The task whose outcome it is.
    pub(crate) fn ends(&self) -> Option<u32> {
        match self {
            Self::Done { seq, .. } | Self::Fault { seq, .. } => Some(*seq),
            Self::Ready(_)
            | Self::Refused(_)
            | Self::Panic { .. }
            | Self::Said(_)
            | Self::Progress { .. }
            | Self::Note(_) => None,
        }
    }

    /// What a brief says.
    pub(crate) fn from_brief(head: u64, body: &'a [u8]) -> Self {
        Self::Done { seq: head as u32, nanos: head >> 32, result: Encoded::Short(body) }
    }

    /// Decodes a frame that came in one piece.
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let (&tag, rest) = frame.split_first().ok_or(Malformed)?;
        match tag {
            DONE => {
                let (seq, nanos, result) = split_done(rest)?;
                Ok(Self::Done { seq, nanos, result: Encoded::Short(result) })
            }
            FAULT => {
                let (seq, nanos, fault) = split_done(rest)?;
                Ok(Self::Fault { seq, nanos, fault: decode(fault)? })
            }
            READY => Ok(Self::Ready(decode(rest)?)),
            REFUSED => Ok(Self::Refused(decode(rest)?)),
            PANIC => {
                let (seq, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
                Ok(Self::Panic { seq: u32::from_le_bytes(*seq), panic: decode(rest)? })
            }
            NOTE => Ok(Self::Note(decode(rest)?)),
            LOG => Ok(Self::Said(Record::Log(decode(rest)?))),
            #[cfg(feature = "tracing")]
            TRACE => Ok(Self::Said(Record::Trace(decode(rest)?))),
            PROGRESS => {
                let (seq, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
                let fraction = f64::from_le_bytes(rest.try_into().map_err(|_| Malformed)?);
                let fraction =
                    if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { return Err(Malformed) };
                Ok(Self::Progress { seq: u32::from_le_bytes(*seq), fraction })
            }
            _ => Err(Malformed),
        }
    }

    /// Decodes a frame that was too large for one piece.
    pub(crate) fn decode_large(head: &'a [u8], body: Vec<u8>) -> Result<Reply<'static>, Malformed> {
        match head.split_first() {
            Some((&DONE, rest)) => {
                let (seq, nanos, result) = split_done(rest)?;
                Ok(Reply::Done { seq, nanos, result: Encoded::Large(ShortBytes::from_slice(result), body) })
            }
            Some((&FAULT, rest)) => {
                let (seq, nanos, fault) = split_done(rest)?;
                let fault = if fault.is_empty() { decode(&body)? } else { return Err(Malformed) };
                Ok(Reply::Fault { seq, nanos, fault })
            }
            Some(_) => Err(Malformed),
            None => match Reply::decode(&body)? {
                Reply::Panic { seq, panic } => Ok(Reply::Panic { seq, panic }),
                Reply::Said(record) => Ok(Reply::Said(record)),
                Reply::Refused(refused) => Ok(Reply::Refused(refused)),
                _ => Err(Malformed),
            },
        }
    }
}

/// Sequence number, nanoseconds, and the rest of a reply about a task.
fn split_done(rest: &[u8]) -> Result<(u32, u64, &[u8]), Malformed> {
    let (seq, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let (nanos, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
    Ok((u32::from_le_bytes(*seq), u64::from_le_bytes(*nanos), rest))
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    codec::decode(bytes).map_err(|_| Malformed)
}

fn tagged<T: Serialize>(tag: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![tag];
    codec::encode(value, &mut bytes).expect("our own messages are plain structs, which always encode");
    bytes
}

impl<'a> From<&'a Ready> for Plain<'a> {
    fn from(ready: &'a Ready) -> Self {
        Self::Ready(ready)
    }
}

impl<'a> From<&'a Refused> for Plain<'a> {
    fn from(refused: &'a Refused) -> Self {
        Self::Refused(refused)
    }
}

impl<'a> From<&'a LogRecord> for Plain<'a> {
    fn from(record: &'a LogRecord) -> Self {
        Self::Log(record)
    }
}

#[cfg(feature = "tracing")]
impl<'a> From<&'a Said> for Plain<'a> {
    fn from(said: &'a Said) -> Self {
        Self::Trace(said)
    }
}

impl<'a> From<&'a Note> for Plain<'a> {
    fn from(note: &'a Note) -> Self {
        Self::Note(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::Prefix,
        protocol::{Records, Wire, put_record},
    };

    const LEVELS: Levels = Levels { log: 3, trace: 4, is_timed: true };
    const ORDERS: Orders =
        Orders { levels: LEVELS, may_spin: true, wants_progress: false, seed: u64::MAX - 5 };
    const HEAD: RunHead = RunHead { orders: ORDERS, first_seq: 41, count: 2, first_task: 7 };

    fn request() -> Vec<u8> {
        let mut frame = HEAD.to_bytes(None).as_slice().to_vec();
        put_record(FunctionId(1), b"abc", &mut frame);
        put_record(FunctionId(2), b"", &mut frame);
        frame
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let frame = request();
        let Ok(ToWorker::Run(head, mut tasks)) = ToWorker::decode(&frame, &[]) else { panic!("no request") };
        assert_eq!(head, HEAD);
        let first = RunTask { seq: 41, task: 7, function: FunctionId(1), args: b"abc" };
        assert_eq!(tasks.next().unwrap(), Some(first));
        let second = RunTask { seq: 42, task: 8, function: FunctionId(2), args: b"" };
        assert_eq!(tasks.next().unwrap(), Some(second));
        assert_eq!(tasks.next().unwrap(), None);
    }

    #[test]
    fn a_request_with_large_arguments_comes_back_in_one_piece_or_two() {
        let mut records = Records::large(FunctionId(9), vec![5; 100]);
        let Wire::Large(function, args) = records.wire() else { panic!("large") };
        let head = RunHead { count: 1, ..HEAD }.to_bytes(Some((function, false)));
        let args = (**args).as_ref();
        let whole = [head.as_slice(), args].concat();
        for (head, body) in [(head.as_slice(), args), (&whole[..], &[][..])] {
            let Ok(ToWorker::Run(_, mut tasks)) = ToWorker::decode(head, body) else { panic!("no request") };
            let task = RunTask { seq: 41, task: 7, function: FunctionId(9), args: &[5; 100] };
            assert_eq!(tasks.next().unwrap(), Some(task));
            assert_eq!(tasks.next().unwrap(), None);
        }
    }

    #[test]
    fn results_of_consecutive_tasks_are_taken_together() {
        let (mut frames, mut reply) = (Vec::new(), ReplyFrame::new());
        for seq in 0..5u32 {
            reply.make(seq, |result, _| {
                result.extend(std::iter::repeat_n(9, seq as usize));
                if seq == 3 { Err(Fault::codec("no".to_owned())) } else { Ok(()) }
            });
            reply.set_nanos(10);
            match reply.wire() {
                ReplyWire::Brief(head, body) => {
                    frames.extend_from_slice(&Prefix::Brief { head, len: body.len() }.to_bytes());
                    frames.extend_from_slice(body);
                }
                ReplyWire::Parts(head, more, body) => {
                    let frame = [&head[..], more, body].concat();
                    frames.extend_from_slice(&Prefix::Frame { head_len: 0, len: frame.len() }.to_bytes());
                    frames.extend_from_slice(&frame);
                }
            }
        }
        let (results, rest) = Results::split_from(Frames::new(&frames), 0, 100);
        assert_eq!((results.len(), results.nanos()), (3, 30));
        assert_eq!(results.map(<[u8]>::len).collect::<Vec<_>>(), [0, 1, 2]);
        let (fault, rest) = rest.split_first().unwrap();
        assert!(matches!(Reply::decode(fault), Ok(Reply::Fault { seq: 3, .. })));
        assert_eq!(Results::split_from(rest, 3, 100).0.len(), 0, "it is out of its turn");
        assert_eq!(Results::split_from(rest, 4, 0).0.len(), 0);
        assert_eq!(Results::split_from(rest, 4, 1).0.len(), 1);
    }

    #[test]
    fn every_truncation_of_a_message_is_malformed_and_none_panics() {
        let frame = request();
        for len in 0..frame.len() {
            let whole = ToWorker::decode(&frame[..len], &[]).and_then(|message| match message {
                ToWorker::Run(_, mut tasks) => {
                    tasks.next().and_then(|_| tasks.next()).and_then(|_| tasks.next())
                }
                ToWorker::Hello(_) => Ok(None),
            });
            assert!(whole.is_err(), "{len} bytes");
        }
        let mut reply = ReplyFrame::new();
        reply.make(9, |_, _| Err(Fault::codec("no".to_owned())));
        let ReplyWire::Parts(head, _, body) = reply.wire() else { panic!("a fault is no brief") };
        let done = &[&head[..], body].concat()[..];
        for len in 0..done.len() {
            assert!(Reply::decode(&done[..len]).is_err(), "{len} bytes");
        }
        assert!(matches!(Reply::decode(done), Ok(Reply::Fault { seq: 9, .. })));
        assert!(matches!(Reply::decode_large(&head, body.to_vec()), Ok(Reply::Fault { seq: 9, .. })));
    }
}
