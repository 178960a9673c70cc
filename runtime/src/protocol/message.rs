//! The messages, one a frame. The first byte says which it is.
//!
//! Requests and results, which are many, are laid out by hand: numbers little-endian, lengths of 64 bits. The rest is in postcard's
//! encoding. Nothing that is read here is believed: whatever does not fit is [`Malformed`].

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::handshake::{Hello, Ready, Refused};
use crate::{codec, error::Fault, id::FunctionId, panic::RemotePanic};

/// A frame that is no message of this protocol.
#[derive(Debug)]
pub(crate) struct Malformed;

const HELLO: u8 = 1;
const RUN: u8 = 2;

const READY: u8 = 129;
const REFUSED: u8 = 130;
const DONE: u8 = 131;
const FAULT: u8 = 132;
const PANIC: u8 = 133;
const LOG: u8 = 134;
const BATCH: u8 = 135;

/// tag, log level, first sequence number, number of tasks
const RUN_HEAD_BYTES: usize = 1 + 1 + 4 + 4;
/// task, function, length of the arguments
const TASK_HEAD_BYTES: usize = 8 + 4 + 8;
/// tag, sequence number, nanoseconds
const DONE_HEAD_BYTES: usize = 1 + 4 + 8;

/// Builds a request to run tasks: consecutive sequence numbers from the first.
#[derive(Debug)]
pub(crate) struct RunBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl RunBuilder {
    /// A request that reuses `bytes`.
    pub(crate) fn new(mut bytes: Vec<u8>, log_level: u8, first_seq: u32) -> Self {
        bytes.clear();
        bytes.extend_from_slice(&[RUN, log_level]);
        bytes.extend_from_slice(&first_seq.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        Self { bytes, count: 0 }
    }

    /// Adds a task.
    pub(crate) fn add(&mut self, task: u64, function: FunctionId, args: &[u8]) {
        self.add_head(task, function, args.len());
        self.bytes.extend_from_slice(args);
    }

    /// Adds the last task, whose arguments follow the returned bytes in the frame.
    pub(crate) fn add_head(&mut self, task: u64, function: FunctionId, args_len_bytes: usize) {
        self.count += 1;
        self.bytes.extend_from_slice(&task.to_le_bytes());
        self.bytes.extend_from_slice(&function.0.to_le_bytes());
        self.bytes.extend_from_slice(&(args_len_bytes as u64).to_le_bytes());
    }

    /// The bytes of the frame.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes[6..RUN_HEAD_BYTES].copy_from_slice(&self.count.to_le_bytes());
        self.bytes
    }
}

/// What a worker hears.
#[derive(Debug)]
pub(crate) enum ToWorker<'a> {
    Hello(Hello),
    Run { log_level: u8, tasks: RunTasks<'a> },
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
    seq: u32,
    left: u32,
}

impl<'a> ToWorker<'a> {
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, Malformed> {
        let (&tag, rest) = frame.split_first().ok_or(Malformed)?;
        match tag {
            HELLO => Ok(Self::Hello(codec::decode(rest).map_err(|_| Malformed)?)),
            RUN => {
                let (&[log_level], rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (seq, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (count, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let tasks =
                    RunTasks { rest, seq: u32::from_le_bytes(*seq), left: u32::from_le_bytes(*count) };
                Ok(Self::Run { log_level, tasks })
            }
            _ => Err(Malformed),
        }
    }
}

impl<'a> RunTasks<'a> {
    /// Whether there is another.
    pub(crate) fn has_more(&self) -> bool {
        self.left > 0
    }

    /// The next task; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<RunTask<'a>>, Malformed> {
        if self.left == 0 {
            return if self.rest.is_empty() { Ok(None) } else { Err(Malformed) };
        }
        let (head, rest) = self.rest.split_first_chunk::<TASK_HEAD_BYTES>().ok_or(Malformed)?;
        let (task, head) = head.split_first_chunk::<8>().ok_or(Malformed)?;
        let (function, len) = head.split_first_chunk::<4>().ok_or(Malformed)?;
        let len = u64::from_le_bytes(*len.first_chunk().ok_or(Malformed)?);
        let (args, rest) =
            rest.split_at_checked(usize::try_from(len).map_err(|_| Malformed)?).ok_or(Malformed)?;
        let seq = self.seq;
        self.rest = rest;
        self.seq = seq.wrapping_add(1);
        self.left -= 1;
        let function = FunctionId(u32::from_le_bytes(*function));
        Ok(Some(RunTask { seq, task: u64::from_le_bytes(*task), function, args }))
    }
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        tagged(HELLO, self)
    }
}

/// What a host hears, results apart from the rest for their number.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Ready(Ready),
    Refused(Refused),
    /// The task gave a result.
    Done {
        seq: u32,
        nanos: u64,
        result: Cow<'a, [u8]>,
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
    /// Several of `Done` and `Fault`.
    Batch(Batch),
    Log(LogRecord),
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
}

/// Encodes what is known of a panic as it begins.
pub(crate) fn encode_panic(seq: u32, panic: &RemotePanic) -> Vec<u8> {
    let mut bytes = vec![PANIC];
    bytes.extend_from_slice(&seq.to_le_bytes());
    codec::encode(panic, &mut bytes).expect("our own messages are plain structs, which always encode");
    bytes
}

/// Replies about tasks, one after the other: each has its length before it, and ends at a whole word, as in the outbox.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    at: usize,
}

/// tag and padding to a whole word
const BATCH_HEAD_BYTES: usize = 8;

impl Batch {
    /// What the outbox or a message holds.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next reply, which is `Done` or `Fault`.
    pub(crate) fn next(&mut self) -> Result<Option<Reply<'_>>, Malformed> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (len, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| Malformed)?;
        let reply = rest.get(..len).ok_or(Malformed)?;
        self.at = (self.at + 8 + len.next_multiple_of(8)).min(self.bytes.len());
        match Reply::decode(Cow::Borrowed(reply))? {
            reply @ (Reply::Done { .. } | Reply::Fault { .. }) => Ok(Some(reply)),
            _ => Err(Malformed),
        }
    }
}

/// Makes `bytes` an empty message of several replies.
pub(crate) fn begin_batch(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&[BATCH, 0, 0, 0, 0, 0, 0, 0]);
}

/// Adds a reply to a message of several; returns where it begins.
pub(crate) fn add_to_batch(bytes: &mut Vec<u8>, reply: &[u8]) -> usize {
    let start = bytes.len();
    bytes.extend_from_slice(&(reply.len() as u64).to_le_bytes());
    bytes.extend_from_slice(reply);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    start
}

/// Encodes one of the rarer replies.
pub(crate) fn encode_reply<'a>(reply: impl Into<Plain<'a>>) -> Vec<u8> {
    match reply.into() {
        Plain::Ready(ready) => tagged(READY, ready),
        Plain::Refused(refused) => tagged(REFUSED, refused),
        Plain::Log(record) => tagged(LOG, record),
    }
}

/// Makes a vector a reply about task `seq`: `run` appends the result to it.
pub(crate) fn encode_done(
    bytes: &mut Vec<u8>,
    seq: u32,
    run: impl FnOnce(&mut Vec<u8>) -> (Result<(), Fault>, u64),
) {
    bytes.clear();
    bytes.push(DONE);
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let (outcome, nanos) = run(bytes);
    if let Err(fault) = outcome {
        bytes[0] = FAULT;
        bytes.truncate(DONE_HEAD_BYTES);
        if codec::encode(&fault, bytes).is_err() {
            bytes.truncate(DONE_HEAD_BYTES);
        }
    }
    bytes[5..DONE_HEAD_BYTES].copy_from_slice(&nanos.to_le_bytes());
}

impl<'a> Reply<'a> {
    pub(crate) fn decode(frame: Cow<'a, [u8]>) -> Result<Self, Malformed> {
        let (&tag, rest) = frame.split_first().ok_or(Malformed)?;
        match tag {
            DONE | FAULT => {
                let (seq, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
                let (nanos, body) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
                let (seq, nanos) = (u32::from_le_bytes(*seq), u64::from_le_bytes(*nanos));
                if tag == FAULT {
                    return Ok(Self::Fault { seq, nanos, fault: decode(body)? });
                }
                let result = match frame {
                    Cow::Borrowed(frame) => Cow::Borrowed(&frame[DONE_HEAD_BYTES..]),
                    Cow::Owned(mut frame) => {
                        frame.drain(..DONE_HEAD_BYTES);
                        Cow::Owned(frame)
                    }
                };
                Ok(Self::Done { seq, nanos, result })
            }
            READY => Ok(Self::Ready(decode(rest)?)),
            REFUSED => Ok(Self::Refused(decode(rest)?)),
            PANIC => {
                let (seq, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
                Ok(Self::Panic { seq: u32::from_le_bytes(*seq), panic: decode(rest)? })
            }
            BATCH => {
                let mut bytes = frame.into_owned();
                bytes.drain(..BATCH_HEAD_BYTES.min(bytes.len()));
                Ok(Self::Batch(Batch::new(bytes)))
            }
            LOG => Ok(Self::Log(decode(rest)?)),
            _ => Err(Malformed),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let mut run = RunBuilder::new(Vec::new(), 3, 41);
        run.add(7, FunctionId(1), b"abc");
        run.add(8, FunctionId(2), b"");
        let frame = run.finish();
        let Ok(ToWorker::Run { log_level: 3, mut tasks }) = ToWorker::decode(&frame) else {
            panic!("no request")
        };
        let first = RunTask { seq: 41, task: 7, function: FunctionId(1), args: b"abc" };
        assert_eq!(tasks.next().unwrap(), Some(first));
        let second = RunTask { seq: 42, task: 8, function: FunctionId(2), args: b"" };
        assert_eq!(tasks.next().unwrap(), Some(second));
        assert_eq!(tasks.next().unwrap(), None);
    }

    #[test]
    fn replies_of_a_batch_come_back_in_their_order() {
        let (mut batch, mut reply) = (Vec::new(), Vec::new());
        begin_batch(&mut batch);
        for seq in 0..3u32 {
            encode_done(&mut reply, seq, |result| {
                result.extend(std::iter::repeat_n(9, seq as usize));
                (Ok(()), 1)
            });
            add_to_batch(&mut batch, &reply);
        }
        for len in 1..batch.len() {
            // Cut anywhere, it gives what is whole, and then an error or nothing; it never panics.
            if let Ok(Reply::Batch(mut cut)) = Reply::decode(Cow::Borrowed(&batch[..len])) {
                while let Ok(Some(_)) = cut.next() {}
            }
        }
        let Ok(Reply::Batch(mut whole)) = Reply::decode(Cow::Owned(batch)) else { panic!("no batch") };
        for expected in 0..3u32 {
            let Ok(Some(Reply::Done { seq, result, .. })) = whole.next() else {
                panic!("no reply {expected}")
            };
            assert_eq!((seq, result.len()), (expected, expected as usize));
        }
        assert!(matches!(whole.next(), Ok(None)));
    }

    #[test]
    fn every_truncation_of_a_message_is_malformed_and_none_panics() {
        let mut run = RunBuilder::new(Vec::new(), 3, 41);
        run.add(7, FunctionId(1), b"abc");
        let frame = run.finish();
        for len in 0..frame.len() {
            let whole = ToWorker::decode(&frame[..len]).and_then(|message| match message {
                ToWorker::Run { mut tasks, .. } => tasks.next().and_then(|_| tasks.next()),
                ToWorker::Hello(_) => Ok(None),
            });
            assert!(whole.is_err(), "{len} bytes");
        }
        let mut done = Vec::new();
        let fault = Fault::Codec("no".to_owned());
        encode_done(&mut done, 9, |_| (Err(fault), 5));
        for len in 0..done.len() {
            assert!(Reply::decode(Cow::Borrowed(&done[..len])).is_err(), "{len} bytes");
        }
        assert!(matches!(Reply::decode(Cow::Owned(done)), Ok(Reply::Fault { seq: 9, nanos: 5, .. })));
    }
}
