//! What clients ask of a manager, and its replies. Keys and values are encoded: a manager does not know their types.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{codec::Bytes, error::Fault, segment::Attachments};

/// An encoded value, and what it contains handles of.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    pub(super) bytes: Arc<[u8]>,
    pub(super) with: Attachments,
}

impl Value {
    pub(super) fn new(bytes: &[u8], with: &Attachments) -> Self {
        Self { bytes: bytes.into(), with: with.clone() }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Value {
    /// The attachments are those of the whole message.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        Ok(Self::new(bytes, &Attachments::default()))
    }
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request<'a> {
    Create(#[serde(borrow)] Create<'a>),
    Use {
        object: u64,
        #[serde(borrow)]
        action: Action<'a>,
    },
}

/// The object to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Create<'a> {
    Dict,
    List,
    Counter(i64),
    Queue {
        capacity: u64,
    },
    #[serde(borrow)]
    Mutex(Bytes<'a>),
    Semaphore {
        permits: u64,
    },
    Event,
    Barrier {
        parties: u64,
    },
    Condvar,
}

/// What is done with an object. A `wait` is how long it may take at most, or `None` without a limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Action<'a> {
    Len,
    Clear,
    Snapshot,
    #[serde(borrow)]
    Get(Bytes<'a>),
    Insert(Bytes<'a>, Bytes<'a>),
    Remove(Bytes<'a>),
    Contains(Bytes<'a>),
    CompareExchange {
        key: Bytes<'a>,
        current: Option<Bytes<'a>>,
        new: Option<Bytes<'a>>,
    },
    /// Applies the update to the value, or inserts a value if there is none.
    Enter {
        key: Bytes<'a>,
        update: Option<Call<'a>>,
        or: Bytes<'a>,
    },
    Update(Bytes<'a>, Call<'a>),
    At(u64),
    SetAt(u64, Bytes<'a>),
    UpdateAt(u64, Call<'a>),
    Extend(Vec<Bytes<'a>>),
    Pop,
    Add(i64),
    Store(i64),
    Put(Bytes<'a>, Option<Duration>),
    Take(Option<Duration>),
    Acquire(Option<Duration>),
    /// Gives a permit or a lock back. A lock's value is replaced if it was changed.
    Release(Option<Bytes<'a>>),
    Set,
    Wait(Option<Duration>),
    /// Releases the mutex, waits for a notification, and acquires the mutex again.
    WaitWith {
        mutex: u64,
        changed: Option<Bytes<'a>>,
        wait: Option<Duration>,
    },
    Notify {
        all: bool,
    },
}

/// A call of a function whose first argument is the value of an object.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Call<'a> {
    pub(super) function: u32,
    /// The other arguments.
    #[serde(borrow)]
    pub(super) args: Bytes<'a>,
    /// Which of the arguments that the function borrows are parts of segments.
    pub(super) lent: u32,
}

/// A reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Flag(bool),
    Number(i64),
    Value(Option<Value>),
    Exchanged(Result<(), Option<Value>>),
    Values(Vec<Value>),
    Pairs(Vec<(Value, Value)>),
    Locked {
        value: Value,
        timed_out: bool,
    },
    TimedOut,
    /// The words say what is wrong with the request.
    Refused(String),
    /// The update has failed.
    Failed {
        function: u32,
        fault: Fault,
    },
}

impl Reply {
    pub(super) fn number(len: usize) -> Self {
        Self::Number(i64::try_from(len).unwrap_or(i64::MAX))
    }

    /// Returns the values in it.
    pub(super) fn values(&self) -> Vec<&Value> {
        match self {
            Self::Value(value) | Self::Exchanged(Err(value)) => value.iter().collect(),
            Self::Locked { value, .. } => vec![value],
            Self::Values(values) => values.iter().collect(),
            Self::Pairs(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the values in it, which did not come with their attachments.
    pub(super) fn values_mut(&mut self) -> Vec<&mut Value> {
        match self {
            Self::Value(value) | Self::Exchanged(Err(value)) => value.iter_mut().collect(),
            Self::Locked { value, .. } => vec![value],
            Self::Values(values) => values.iter_mut().collect(),
            Self::Pairs(pairs) => pairs.iter_mut().flat_map(|(key, value)| [key, value]).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn refused(words: impl Into<String>) -> Self {
        Self::Refused(words.into())
    }
}
