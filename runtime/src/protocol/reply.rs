//! The replies of a worker, one per frame, and their encoding. The first byte of a frame is the tag of the reply.
//!
//! The worker makes results with [`ReplyFrame`], and the host decodes every frame with [`Reply::decode`]. Results are frequent and
//! therefore laid out by hand, with little-endian numbers. All other replies are one [`Notice`]. The host trusts nothing that is
//! read here: invalid bytes are [`Malformed`].

use super::{
    encoding::{DONE, FAULT, Malformed, NOTICE, decode, tagged},
    handshake::Hello,
    notice::Notice,
    request::HELLO,
};
use crate::{
    codec::{self, Encoded, ShortBytes},
    error::Fault,
    frame::{BRIEF_HEAD_BITS, MOST_BRIEF_BYTES},
    sys::buffer_cache,
};

/// tag, sequence number, nanoseconds
pub(crate) const DONE_HEAD_BYTES: usize = 1 + 4 + 8;

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        tagged(HELLO, self)
    }
}

/// A message from a worker.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    /// The task returned a result.
    Done {
        seq: u32,
        nanos: u64,
        result: Encoded<'a>,
    },
    /// The task failed.
    Fault {
        seq: u32,
        nanos: u64,
        fault: Fault,
    },
    Notice(Notice),
}

/// A reply to one task, which is reused for the next.
#[derive(Debug)]
pub(crate) struct ReplyFrame {
    seq: u32,
    nanos: u64,
    failed: bool,
    /// The result, or the fault. A large part of it is separate.
    bytes: Vec<u8>,
    large: Vec<u8>,
}

/// The parts of a [`ReplyFrame`] that are sent.
#[derive(Debug)]
pub(crate) enum ReplyWire<'a> {
    /// The head of a brief and its body.
    Brief(u64, &'a [u8]),
    /// Two parts of the head, and the body.
    Parts([u8; DONE_HEAD_BYTES], &'a [u8], &'a [u8]),
}

/// A buffer that a large reply has enlarged beyond this is freed.
const MOST_KEPT_BYTES: usize = 1 << 20;
/// The maximum time that the head of a brief has room for, besides the sequence number.
const MOST_BRIEF_NANOS: u64 = (1 << (BRIEF_HEAD_BITS - 32)) - 1;

impl ReplyFrame {
    pub(crate) fn new() -> Self {
        Self { seq: 0, nanos: 0, failed: false, bytes: Vec::new(), large: Vec::new() }
    }

    /// Makes it the reply to task `seq`. `run` appends the result and puts a large part of it separately. Returns what `run` has returned,
    /// or nothing after a fault.
    #[inline]
    pub(crate) fn make<R: Default>(
        &mut self,
        seq: u32,
        run: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> Result<R, Fault>,
    ) -> R {
        (self.seq, self.nanos, self.failed) = (seq, 0, false);
        self.bytes.clear();
        run(&mut self.bytes, &mut self.large).unwrap_or_else(|fault| {
            self.fail(&fault);
            R::default()
        })
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

    /// Reports how long the task took, together with those before it that reported nothing.
    #[inline]
    pub(crate) fn set_nanos(&mut self, nanos: u64) {
        self.nanos = nanos;
    }

    /// Returns whether the task has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() + self.large.len()
    }

    /// Returns what to send.
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

    /// Frees the memory that a large reply used.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if !self.large.is_empty() || self.bytes.capacity() > MOST_KEPT_BYTES {
            let Self { bytes, large, .. } = std::mem::replace(self, Self::new());
            buffer_cache::put(if large.is_empty() { bytes } else { large });
        }
    }
}

impl<'a> Reply<'a> {
    /// Returns the task whose outcome a large reply with this head is.
    pub(crate) fn ends_large(head: &[u8]) -> Option<u32> {
        let (&tag, rest) = head.split_first()?;
        matches!(tag, DONE | FAULT).then(|| rest.first_chunk().map(|seq| u32::from_le_bytes(*seq)))?
    }

    /// Returns the task whose outcome it is.
    pub(crate) fn ends(&self) -> Option<u32> {
        match self {
            Self::Done { seq, .. } | Self::Fault { seq, .. } => Some(*seq),
            Self::Notice(_) => None,
        }
    }

    /// Decodes a brief.
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
            NOTICE => Notice::decode(rest).map(Self::Notice),
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
                Reply::Notice(notice) => Ok(Reply::Notice(notice)),
                Reply::Done { .. } | Reply::Fault { .. } => Err(Malformed),
            },
        }
    }
}

/// Splits a reply about a task into the sequence number, the nanoseconds, and the rest.
fn split_done(rest: &[u8]) -> Result<(u32, u64, &[u8]), Malformed> {
    let (seq, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let (nanos, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
    Ok((u32::from_le_bytes(*seq), u64::from_le_bytes(*nanos), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{Frames, Prefix},
        id::FunctionId,
        protocol::{
            EncodedTasks, Wire, put_record,
            request::{Levels, RunFlags, RunHead, RunTask, ToWorker},
            results::Results,
        },
    };

    const LEVELS: Levels = Levels { log: 3, trace: 4, is_timed: true };
    const ORDERS: RunFlags = RunFlags {
        levels: LEVELS,
        may_spin: true,
        wants_progress: false,
        is_initializer: true,
        is_patient: true,
        counts_waits: true,
        seed: u64::MAX - 5,
    };
    const HEAD: RunHead = RunHead { flags: ORDERS, first_seq: 41, count: 2, first_task: 7 };

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
        let mut records = EncodedTasks::large(FunctionId(9), vec![5; 100]);
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
                ToWorker::Hello(_) | ToWorker::Forget(_) => Ok(None),
            });
            assert!(whole.is_err(), "{len} bytes");
        }
        let mut reply = ReplyFrame::new();
        reply.make(9, |_, _| Err::<(), _>(Fault::codec("no".to_owned())));
        let ReplyWire::Parts(head, _, body) = reply.wire() else { panic!("a fault is no brief") };
        let done = &[&head[..], body].concat()[..];
        for len in 0..done.len() {
            assert!(Reply::decode(&done[..len]).is_err(), "{len} bytes");
        }
        assert!(matches!(Reply::decode(done), Ok(Reply::Fault { seq: 9, .. })));
        assert!(matches!(Reply::decode_large(&head, body.to_vec()), Ok(Reply::Fault { seq: 9, .. })));
    }
}
