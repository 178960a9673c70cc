//! The messages for spans and events of `tracing`. Used by the forwarders in `worker` and `observe`.

use serde::{Deserialize, Serialize};
use tracing_core::LevelFilter;

/// Returns the number by which a level travels. 0 is none, 5 is all.
pub(crate) fn level_number(level: LevelFilter) -> u8 {
    match level {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => 1,
        LevelFilter::WARN => 2,
        LevelFilter::INFO => 3,
        LevelFilter::DEBUG => 4,
        _ => 5,
    }
}

/// A span or event, and the task that made it, if one did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) task: Option<u64>,
    pub(crate) record: TraceRecord,
}

/// The event or the change of a span. Spans are numbered by the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum TraceRecord {
    NewSpan {
        span: u64,
        parent: Parent,
        place: SourceLocation,
        values: Vec<(u32, FieldValue)>,
    },
    /// Values of a span that were not known when it was created.
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
        place: SourceLocation,
        values: Vec<(u32, FieldValue)>,
    },
}

/// The parent of a span or an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Parent {
    /// None, as the function requested.
    Root,
    /// The parent of the call.
    Call,
    /// A span of the worker.
    Span(u64),
}

/// The place in the program that creates a span or an event, and the fields that it may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SourceLocation {
    pub(crate) name: String,
    pub(crate) target: String,
    /// 1 is an error, 5 is a trace.
    pub(crate) level: u8,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) fields: Vec<String>,
}

/// The value of a field, with the type under which `tracing` knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum FieldValue {
    F64(f64),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    Bool(bool),
    Str(String),
    /// As written by its `Debug` or `Display`.
    Text(String),
}
