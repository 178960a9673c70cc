//! What a worker's functions say by `tracing`.

use serde::{Deserialize, Serialize};

/// What was said, and the task that said it, if one did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) task: Option<u64>,
    pub(crate) record: TraceRecord,
}

/// One thing that was said. Spans are numbered by the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum TraceRecord {
    NewSpan {
        span: u64,
        parent: Parent,
        place: Place,
        values: Vec<(u32, FieldValue)>,
    },
    /// Values of a span that were not known when it was made.
    Values {
        span: u64,
        values: Vec<(u32, FieldValue)>,
    },
    Follows {
        span: u64,
        follows: u64,
    },
    Close {
        span: u64,
    },
    Event {
        parent: Parent,
        place: Place,
        values: Vec<(u32, FieldValue)>,
    },
}

/// What a span or an event stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Parent {
    /// Nothing, by its own wish.
    Root,
    /// What the call stands under.
    Call,
    /// A span of the worker.
    Span(u64),
}

/// Where in the program a span or an event is made, and what fields it may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) target: String,
    /// 1 is an error, 5 a trace.
    pub(crate) level: u8,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) fields: Vec<String>,
}

/// A field's value, of the type that `tracing` knows it by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum FieldValue {
    F64(f64),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    Bool(bool),
    Str(String),
    /// As its `Debug` or its `Display` writes it.
    Words(String),
}
