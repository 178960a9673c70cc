//! The rare messages from worker to host: its part of the handshake, records, notes, panics and progress.
//!
//! All of them are one enum, in postcard's encoding behind one tag. A new one is a variant here, and an arm of
//! `receive_notice` in `supervisor/receive.rs`, which handles every variant.

use serde::{Deserialize, Serialize};

#[cfg(feature = "tracing")]
use super::trace::Said;
use super::{
    encoding::{Malformed, NOTICE, decode, tagged},
    handshake::{Ready, Refused},
};
use crate::panic::RemotePanic;

/// A rare message from a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    Ready(Ready),
    Refused(Refused),
    Said(Record),
    /// The running task panics. If the process survives, a `Fault` follows.
    Panic {
        seq: u32,
        panic: RemotePanic,
    },
    /// The progress of a task, as a fraction.
    Progress {
        seq: u32,
        fraction: f64,
    },
    Note(Note),
    /// The answer to a recall, where the host cannot see it at once: the tasks after `begun` that had been sent were taken back. Workers
    /// on this machine do not send it. It is for connections to other machines.
    Recalled {
        begun: u32,
    },
    /// The descriptors of the segments that the result of a task names came with this message. The result follows.
    Segments {
        seq: u32,
        /// The number of descriptors.
        count: u32,
    },
}

impl Notice {
    pub(crate) fn encode(&self) -> Vec<u8> {
        tagged(NOTICE, self)
    }

    /// Decodes what is behind the tag.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        match decode(bytes)? {
            Self::Progress { seq, fraction } if fraction.is_finite() => {
                Ok(Self::Progress { seq, fraction: fraction.clamp(0.0, 1.0) })
            }
            Self::Progress { .. } => Err(Malformed),
            notice => Ok(notice),
        }
    }
}

/// A report of a worker about time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The measurement of some tasks: the nanoseconds that decoding and encoding took.
    Sample { tasks: u64, encoding: u64, peak_rss_bytes: u64 },
    /// The tasks whose replies follow began at this time of the monotonic clock, and ran one after the other.
    Begun { nanos: u64 },
    /// The last `tasks` tasks whose replies reported no time took `nanos`, because the tasks that were to be timed with them were
    /// taken back. `task` was the last of them.
    Late { nanos: u64, tasks: u32, task: u64, function: u32 },
    /// The `tasks` tasks of a request have slept this number of times.
    Waited { tasks: u32, times: u32 },
}

/// A record of a function: of the `log` facade, or of `tracing`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    Log(LogRecord),
    #[cfg(feature = "tracing")]
    Trace(Said),
}

impl Record {
    /// Returns the task that made the record, if one did.
    pub(crate) fn task(&self) -> Option<u64> {
        match self {
            Self::Log(record) => record.task,
            #[cfg(feature = "tracing")]
            Self::Trace(said) => said.task,
        }
    }
}

/// A record of the `log` facade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    /// Numbered like `log::Level`.
    pub(crate) level: u8,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// The task that made the record, if one did.
    pub(crate) task: Option<u64>,
    pub(crate) fields: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Reply;

    fn log_record() -> LogRecord {
        LogRecord {
            level: 3,
            target: "t".to_owned(),
            message: "m".repeat(100),
            module: None,
            file: Some("f".to_owned()),
            line: Some(7),
            task: Some(9),
            fields: vec![("a".to_owned(), "b".to_owned())],
        }
    }

    fn all() -> Vec<Notice> {
        vec![
            Notice::Ready(Ready { version: 1, build_id: 2, pid: 3 }),
            Notice::Refused("no memory".into()),
            Notice::Said(Record::Log(log_record())),
            Notice::Panic { seq: 4, panic: RemotePanic::from_payload(&"out of corn") },
            Notice::Progress { seq: u32::MAX, fraction: 0.25 },
            Notice::Note(Note::Sample { tasks: 1, encoding: 2, peak_rss_bytes: u64::MAX }),
            Notice::Note(Note::Begun { nanos: 5 }),
            Notice::Note(Note::Late { nanos: 1, tasks: 2, task: 3, function: 4 }),
            Notice::Note(Note::Waited { tasks: 5, times: 6 }),
            Notice::Recalled { begun: 6 },
            Notice::Segments { seq: 1, count: 2 },
        ]
    }

    #[test]
    fn every_notice_comes_back_as_it_was_made_in_one_piece_or_two() {
        for notice in all() {
            let bytes = notice.encode();
            for decoded in [Reply::decode(&bytes), Reply::decode_large(&[], bytes.clone())] {
                let Ok(Reply::Notice(decoded)) = decoded else { panic!("{notice:?}: {decoded:?}") };
                assert_eq!(format!("{decoded:?}"), format!("{notice:?}"));
            }
        }
    }

    #[test]
    fn every_truncation_and_every_extension_of_a_notice_is_malformed() {
        for notice in all() {
            let bytes = notice.encode();
            for len in 0..bytes.len() {
                assert!(Reply::decode(&bytes[..len]).is_err(), "{len} bytes of {notice:?}");
            }
            assert!(Reply::decode(&[&bytes[..], &[0]].concat()).is_err(), "{notice:?}");
        }
    }

    #[test]
    fn progress_is_a_fraction_or_malformed() {
        for (sent, received) in [(-1.0, Some(0.0)), (7.0, Some(1.0)), (f64::NAN, None), (f64::INFINITY, None)]
        {
            let bytes = Notice::Progress { seq: 1, fraction: sent }.encode();
            match (Reply::decode(&bytes), received) {
                (Ok(Reply::Notice(Notice::Progress { fraction, .. })), Some(received)) => {
                    assert!((fraction - received).abs() < f64::EPSILON, "{sent}");
                }
                (Err(Malformed), None) => {}
                (reply, _) => panic!("{sent}: {reply:?}"),
            }
        }
    }
}
